"""From still images to what the image-to-video models are given: output sizes, frames, masks.

Images are [H, W, C] or [B, H, W, C] in 0..1. Source: wan/image2video.py, wan/textimage2video.py,
wan/speech2video.py and wan/utils/utils.py of the official code; the end image follows
wan/first_last_frame2video.py of Wan2.1.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def rgb(images: Tensor) -> Tensor:
    """[B, H, W, C] of 1 (grey), 3 or 4 channels -> [B, H, W, 3]; transparency is dropped as the official code does.

    Raises ValueError on an empty image and on other numbers of channels."""
    images = images[None] if images.dim() == 3 else images
    if images.dim() != 4 or not images.numel() or images.shape[-1] not in (1, 3, 4):
        raise ValueError(
            f"an image of shape {list(images.shape)} cannot be used: expected (batch, height, width, 3 colours)"
        )
    return images.expand(-1, -1, -1, 3) if images.shape[-1] == 1 else images[..., :3]


def latent_area_size(width: int, height: int, area: int, stride: int = 8, patch: int = 2) -> tuple[int, int]:
    """Width and height in pixels of about `area` pixels with the image's aspect: I2V-A14B's rule.

    Raises ValueError where the image is too narrow for any size."""
    aspect = height / width
    cells_high = round(np.sqrt(area * aspect) // stride // patch * patch)
    cells_wide = round(np.sqrt(area / aspect) // stride // patch * patch)
    return _not_empty(cells_wide * stride, cells_high * stride, width, height, area)


def best_area_size(width: int, height: int, area: int, multiple: int = 32) -> tuple[int, int]:
    """Width and height in pixels, multiples of `multiple` and at most `area` pixels, nearest to the image's aspect:
    TI2V-5B's rule. Raises ValueError where the image is too narrow for any size."""
    aspect = width / height
    exact_width = math.sqrt(area * aspect)
    exact_height = area / exact_width
    down = lambda x: int(x // multiple * multiple)  # noqa: E731
    candidates = []
    if wide := down(exact_width):
        candidates.append((wide, down(area / wide)))
    if high := down(exact_height):
        candidates.append((down(area / high), high))
    candidates = [size for size in candidates if min(size) > 0]
    if not candidates:
        _not_empty(0, 0, width, height, area)

    def distortion(size: tuple[int, int]) -> float:
        return max(aspect * size[1] / size[0], size[0] / size[1] / aspect)

    # where both are as good the official code takes the one that fits the height
    return min(reversed(candidates), key=distortion)


def floor_area_size(width: int, height: int, area: int, multiple: int = 16) -> tuple[int, int]:
    """Width and height in pixels, multiples of `multiple` and at most `area` pixels, of about the image's aspect: the
    rule of Animate-14B's preprocessing. Raises ValueError where the image is too narrow for any size."""
    high = math.sqrt(area / (width / height))
    wide, high = (int(n // multiple * multiple) for n in (area / high, high))
    return _not_empty(wide, high, width, height, area)


def _not_empty(out_width: int, out_height: int, width: int, height: int, area: int) -> tuple[int, int]:
    if min(out_width, out_height) < 1:
        raise ValueError(
            f"an image of {width}x{height} has no video size of its aspect in {area:,} pixels: crop the image, "
            "or set the exact width and height"
        )
    return out_width, out_height


def stretch(images: Tensor, width: int, height: int) -> Tensor:
    """[B, H, W, 3] -> [B, height, width, 3], bicubic, the aspect not kept; values may pass 0..1 a little."""
    channels_first = images.movedim(-1, 1)
    return F.interpolate(channels_first, size=(height, width), mode="bicubic").movedim(1, -1)


def cover(images: Tensor, width: int, height: int) -> Tensor:
    """[B, H, W, 3] -> [B, height, width, 3]: scaled with Lanczos to cover the size, then cropped at the centre."""
    return torch.stack([_cover(image, width, height) for image in images])


def _cover(image: Tensor, width: int, height: int) -> Tensor:
    pixels = _picture(image)
    scale = max(width / pixels.width, height / pixels.height)
    pixels = pixels.resize(
        (round(pixels.width * scale), round(pixels.height * scale)), Image.Resampling.LANCZOS
    )
    left, top = (pixels.width - width) // 2, (pixels.height - height) // 2
    pixels = pixels.crop((left, top, left + width, top + height))
    return _tensor(pixels, image.device)


def _picture(image: Tensor) -> Image.Image:
    """[H, W, 3] -> 8-bit picture, which is what the official code resizes; a float image is rounded to it."""
    return Image.fromarray(image.detach().cpu().float().mul(255).round().clamp(0, 255).byte().numpy())


def _tensor(picture: Image.Image, device: torch.device) -> Tensor:
    return torch.from_numpy(np.array(picture)).to(device, torch.float32).div_(255)


def known_frames(start: Tensor | None, end: Tensor | None, frames: int) -> tuple[Tensor, Tensor]:
    """Start and end frames [n, H, W, 3] of one size -> (video [frames, H, W, 3], known [frames] bool).

    Unknown frames are grey, which is zero to the VAE. Raises ValueError where they do not fit into `frames`."""
    given = [part for part in (start, end) if part is not None]
    if sum(part.shape[0] for part in given) > frames:
        raise ValueError(
            f"{sum(part.shape[0] for part in given)} images are given for a video of {frames} frames: give fewer "
            "images, or make the video longer"
        )
    video = given[0].new_full((frames, *given[0].shape[1:]), 0.5)
    known = torch.zeros(frames, dtype=torch.bool)
    if start is not None:
        video[: start.shape[0]] = start
        known[: start.shape[0]] = True
    if end is not None:
        video[-end.shape[0] :] = end
        known[-end.shape[0] :] = True
    return video, known


def mask_channels(known: Tensor, height: int, width: int) -> Tensor:
    """Which of the 4n + 1 frames are known, [T] or [T, height, width] -> mask [4, 1 + n, height, width] for the
    latents, 1 where known.

    Each latent frame has four channels for its four frames; the first stands for one frame, four times."""
    rows = torch.cat([known[:1].repeat(4, *(1,) * (known.dim() - 1)), known[1:]]).float()
    rows = rows.unflatten(0, (-1, 4)).transpose(0, 1)
    return rows if known.dim() == 3 else rows[:, :, None, None].expand(-1, -1, height, width)


def replaced_frames(
    frames: int, size: tuple[int, int], carried: Tensor | None, background: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """What Animate-14B knows of a clip's frames -> (video [frames, H, W, 3], known [frames, H / 8, W / 8]).

    size: width and height. carried: the first frames, [n, H, W, 3]. background: [frames, H, W, 3], known where mask
    [frames, H, W] is 0; without it the frames after the carried ones are grey and unknown. Source: generate of
    wan/animate.py."""
    width, height = size
    if background is None:
        video = torch.full((frames, height, width, 3), 0.5)
        known = torch.zeros(frames, height // 8, width // 8)
    else:
        video = background.clone()
        subject = torch.ones(frames, height, width) if mask is None else mask
        known = 1 - F.interpolate(subject[:, None].float(), size=(height // 8, width // 8))[:, 0]
    if carried is not None:
        video[: carried.shape[0]] = carried.to(video)
        known[: carried.shape[0]] = 1
    return video, known


def fitting_size(width: int, height: int, area: int, multiple: int = 64) -> tuple[int, int]:
    """Width and height in pixels, multiples of `multiple` and at most `area` pixels, that hold the image scaled down
    as little as needed: S2V-14B's rule, which never enlarges. Source: get_size_less_than_area of wan/speech2video.py.

    Raises ValueError where the image is too small or too narrow for any size."""
    largest, smallest = 1.0, 0.1
    if height * width > area:
        margin = multiple - 1
        b, c = margin * (height + width), margin**2 - area
        smallest = (math.sqrt(b**2 - 2 * height * width * c) - b) / (2 * height * width)
        largest = math.sqrt(area / (height * width))
    up = lambda x: x + (multiple - x % multiple) % multiple  # noqa: E731
    for i in range(100):
        scale = largest - (largest - smallest) * i / 100
        high, wide = up(int(height * scale)), up(int(width * scale))
        if high * wide <= area:
            return _not_empty(wide, high, width, height, area)
    aspect = width / height
    wide, high = (int(math.sqrt(x) // multiple * multiple) for x in (area * aspect, area / aspect))
    if wide >= width or high >= height:
        wide, high = (int(x // multiple * multiple) for x in (width, height))
    return _not_empty(wide, high, width, height, area)


def fitted(columns: int, rows: int, width: int, height: int) -> tuple[int, int, int, int]:
    """Width and height of a picture scaled to fit into width x height, and how far from the left and the top it then
    stands in the middle."""
    if rows / columns > height / width:
        wide, high = int(height / rows * columns), height
    else:
        wide, high = width, int(width / columns * rows)
    return wide, high, (width - wide) // 2, (height - high) // 2


def letterbox(images: Tensor, width: int, height: int, resize: Callable | None = None) -> Tensor:
    """[B, H, W, C] -> [B, height, width, C]: scaled to fit, in the middle of black. resize(images, width, height):
    `linear_8bit` unless another is given. Source: padding_resize of wan/animate.py."""
    rows, columns = images.shape[1:3]
    wide, high, left, top = fitted(columns, rows, width, height)
    if min(wide, high) < 1:
        _not_empty(wide, high, columns, rows, width * height)
    out = images.new_zeros(images.shape[0], height, width, images.shape[-1])
    out[:, top : top + high, left : left + wide] = (resize or linear_8bit)(images, wide, high)
    return out


def video_size(images: Tensor, area: int) -> Tensor:
    """[B, H, W, C] -> the same in the size of `floor_area_size`, letterboxed where its aspect is a little off."""
    width, height = floor_area_size(images.shape[2], images.shape[1], area)
    shrinks = width * height < images.shape[1] * images.shape[2]
    return letterbox(images, width, height, area_resize if shrinks else linear_8bit)


def linear_8bit(images: Tensor, width: int, height: int) -> Tensor:
    """[B, H, W, C] in 0..1 -> [B, height, width, C] in steps of 1/255: bilinear, in the whole numbers that OpenCV
    reckons with (weights of 1/2048, four bits dropped between the passes), without its dependency."""

    def taps(size: int, wanted: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        place = (torch.arange(wanted, dtype=torch.float64) + 0.5) * (size / wanted) - 0.5
        place = place.clamp(0, size - 1)
        first = place.floor().long()
        weight = ((place - first) * 2048).round().long()
        return first, (first + 1).clamp(max=size - 1), 2048 - weight, weight

    whole = images.detach().cpu().float().mul(255).round().long()
    left, right, a, b = taps(images.shape[2], width)
    rows = (whole[:, :, left] * a[:, None] + whole[:, :, right] * b[:, None]) >> 4
    top, bottom, a, b = (
        x.view(-1, 1, 1) if i > 1 else x for i, x in enumerate(taps(images.shape[1], height))
    )
    scaled = ((rows[:, top] * a >> 16) + (rows[:, bottom] * b >> 16) + 2) >> 2
    return scaled.to(images).div_(255)


def centre_square(images: Tensor) -> Tensor:
    """[B, H, W, C] -> the largest square at its centre."""
    rows, columns = images.shape[1:3]
    side = min(rows, columns)
    top, left = (rows - side) // 2, (columns - side) // 2
    return images[:, top : top + side, left : left + side]


@lru_cache(maxsize=8)  # the frames of a video come one by one
def _area_weights(size: int, wanted: int, grows: bool) -> Tensor:
    """How much each of `size` old pixels counts in each of `wanted` new ones, [wanted, size]."""
    scale = size / wanted
    old, new = torch.arange(size, dtype=torch.float64), torch.arange(wanted, dtype=torch.float64)[:, None]
    if not grows:
        covered = torch.minimum(old + 1, (new + 1) * scale) - torch.maximum(old, new * scale)
        return (covered.clamp(min=0) / scale).float()
    first = (new * scale).floor()
    past = (new + 1 - (first + 1) / scale).clamp(min=0) % 1
    return ((old == first) * (1 - past) + (old == (first + 1).clamp(max=size - 1)) * past).float()


def area_resize(images: Tensor, width: int, height: int) -> Tensor:
    """[B, H, W, C] -> [B, height, width, C]: each new pixel the mean of the area it covers, or bilinear
    where a side grows. OpenCV's INTER_AREA, by which the official preprocessing resizes."""
    rows, columns = images.shape[1:3]
    if (rows, columns) == (height, width):
        return images
    grows = height > rows or width > columns
    down = _area_weights(rows, height, grows).to(images)
    across = _area_weights(columns, width, grows).to(images)
    return torch.stack([torch.einsum("yh,hwc,xw->yxc", down, image, across) for image in images])


def shortest_side_crop(images: Tensor, width: int, height: int) -> Tensor:
    """[B, H, W, 3] -> [B, height, width, 3]: the shorter side scaled to the shorter one wanted, then the centre cut
    out; black where the image does not reach. 8-bit bilinear, as torchvision does it with pictures."""
    return torch.stack([_shortest_side_crop(image, width, height) for image in images])


def pose_frames(frames: Tensor, width: int, height: int) -> Tensor:
    """As `shortest_side_crop`, for the frames of a pose video: in floating point, as torchvision does tensors."""
    side, shorter = min(width, height), min(frames.shape[1:3])
    rows, columns = (side if x == shorter else int(side * x / shorter) for x in frames.shape[1:3])
    scaled = F.interpolate(
        frames.movedim(-1, 1), size=(rows, columns), mode="bilinear", align_corners=False, antialias=True
    )
    missing = [max(0, want - have) for want, have in ((width, columns), (height, rows))]
    padding = [n for m in missing for n in (m // 2, (m + 1) // 2)]
    scaled = F.pad(scaled, padding, value=0.5)  # grey: the official code pads values in -1..1 with zero
    top, left = (
        round((have - want) / 2.0) for have, want in zip(scaled.shape[2:], (height, width), strict=True)
    )
    return scaled[:, :, top : top + height, left : left + width].movedim(1, -1)


def _shortest_side_crop(image: Tensor, width: int, height: int) -> Tensor:
    pixels = _picture(image)
    side, shorter = min(width, height), min(pixels.width, pixels.height)
    size = [side if x == shorter else int(side * x / shorter) for x in (pixels.width, pixels.height)]
    pixels = pixels.resize((size[0], size[1]), Image.Resampling.BILINEAR)
    out = Image.new("RGB", (width, height))
    # torchvision rounds the two halves of what is cut off, and of what is missing, in its own ways
    corner = [
        -round((have - want) / 2.0) if have >= want else (want - have) // 2
        for have, want in zip(size, (width, height), strict=True)
    ]
    out.paste(pixels, (corner[0], corner[1]))
    return _tensor(out, image.device)
