"""From still images to what the image-to-video models are given: output sizes, frames, masks.

Images are [H, W, C] or [B, H, W, C] in 0..1. Source: wan/image2video.py, wan/textimage2video.py and
wan/utils/utils.py of the official code; the end image follows wan/first_last_frame2video.py of Wan2.1.
"""

import math

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
    # the official code resizes 8-bit images; a float one is rounded to them
    pixels = Image.fromarray(image.detach().cpu().float().mul(255).round().clamp(0, 255).byte().numpy())
    scale = max(width / pixels.width, height / pixels.height)
    pixels = pixels.resize(
        (round(pixels.width * scale), round(pixels.height * scale)), Image.Resampling.LANCZOS
    )
    left, top = (pixels.width - width) // 2, (pixels.height - height) // 2
    pixels = pixels.crop((left, top, left + width, top + height))
    return torch.from_numpy(np.array(pixels)).to(image.device, torch.float32).div_(255)


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
    """Which of the 4n + 1 frames [T] are known -> mask [4, 1 + n, height, width] for the latents, 1 where known.

    Each latent frame has four channels for its four frames; the first stands for one frame, four times."""
    rows = torch.cat([known[:1].repeat(4), known[1:]]).float().view(-1, 4).T
    return rows[:, :, None, None].expand(-1, -1, height, width)
