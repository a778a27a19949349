"""Resizes and crops of images and masks.

`resize` and `resize_masks` are kornia's. Written by hand is only what has to give the official code's very values where
no library we may use gives them: OpenCV's INTER_LINEAR and INTER_AREA (`resize_linear`, `resize_area`; OpenCV is no
dependency of ours, kornia and torch sample otherwise), and the crops around PIL's Lanczos and bilinear (kornia has
neither, and its center_crop interpolates). kornia is imported when it is first used: it takes a good part of a second.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor

from .pixels import from_pil, to_pil
from .sizes import check_size, letterbox_rectangle, size_for_animate

Resize = Callable[[Tensor, int, int], Tensor]
"""(images, width, height) -> images."""


def resize(images: Tensor, width: int, height: int) -> Tensor:
    """[B, H, W, C] -> [B, height, width, C], bicubic, the aspect not kept; values may pass 0..1 a little."""
    from kornia.geometry import transform

    scaled = transform.resize(rearrange(images, "b h w c -> b c h w"), (height, width), "bicubic")
    return rearrange(scaled, "b c h w -> b h w c")


def resize_masks(masks: Tensor, width: int, height: int) -> Tensor:
    """[B, H, W] -> [B, height, width] in float32, by nearest neighbour: no new values."""
    from kornia.geometry import transform

    return transform.resize(masks[:, None].float(), (height, width), "nearest")[:, 0]


def resize_crop(images: Tensor, width: int, height: int) -> Tensor:
    """[B, H, W, 3] -> [B, height, width, 3]: scaled with Lanczos to cover the size, then cropped at the centre.

    In 8 bits, by PIL. Source: i2v of wan/textimage2video.py."""
    rows, columns = images.shape[1:3]
    scale = max(width / columns, height / rows)
    wide, high = round(columns * scale), round(rows * scale)
    corner = ((wide - width) // 2, (high - height) // 2)
    return _pil_resize_crop(images, (wide, high), corner, (width, height), Image.Resampling.LANCZOS)


def shortest_side_crop(images: Tensor, width: int, height: int) -> Tensor:
    """[B, H, W, 3] -> [B, height, width, 3]: the shorter side scaled to the shorter one of the size, then cropped at
    the centre; black where the image does not reach.

    In 8 bits, by PIL, as torchvision does it with pictures. Source: generate of wan/speech2video.py."""
    scaled = _shortest_side(images, width, height)
    corner = tuple(map(_crop_start, scaled, (width, height)))
    return _pil_resize_crop(images, scaled, corner, (width, height), Image.Resampling.BILINEAR)


def shortest_side_crop_float(frames: Tensor, width: int, height: int) -> Tensor:
    """As `shortest_side_crop`, in floating point and with grey where the frames do not reach, as torchvision does it
    with tensors in -1..1. Source: load_pose_cond of wan/speech2video.py.

    By torch itself: kornia's antialiasing is a blur, with other values, and torchvision would be one more dependency,
    bound to one build of torch."""
    wide, high = _shortest_side(frames, width, height)
    channels_first = rearrange(frames, "t h w c -> t c h w")
    scaled = F.interpolate(channels_first, size=(high, wide), mode="bilinear", antialias=True)
    left, top = _crop_start(wide, width), _crop_start(high, height)
    edges = (-left, width - wide + left, -top, height - high + top)  # below 0: cut off
    return rearrange(F.pad(scaled, edges, value=0.5), "t c h w -> t h w c")


def _shortest_side(images: Tensor, width: int, height: int) -> tuple[int, int]:
    """Width and height of the images with their shorter side as long as that of width x height."""
    rows, columns = images.shape[1:3]
    side, shorter = min(width, height), min(rows, columns)
    wide, high = (side if x == shorter else int(side * x / shorter) for x in (columns, rows))
    return wide, high


def _crop_start(size: int, target: int) -> int:
    """The first pixel of torchvision's CenterCrop, which rounds half of what is too much and half of what is missing
    in two ways; below 0 where something is missing."""
    return round((size - target) / 2) if size >= target else -((target - size) // 2)


def _pil_resize_crop(
    images: Tensor,
    scaled: tuple[int, int],
    corner: tuple[int, ...],
    size: tuple[int, int],
    resampling: Image.Resampling,
) -> Tensor:
    """Images scaled by PIL, and cut out from the corner (left, top) on in `size`; sizes are width and height."""
    (left, top), (width, height) = corner, size
    box = (left, top, left + width, top + height)
    return torch.stack(
        [from_pil(to_pil(image).resize(scaled, resampling).crop(box), image.device) for image in images]
    )


def centre_square(images: Tensor) -> Tensor:
    """[B, H, W, C] -> the largest square at its centre."""
    rows, columns = images.shape[1:3]
    side = min(rows, columns)
    top, left = (rows - side) // 2, (columns - side) // 2
    return images[:, top : top + side, left : left + side]


def resize_linear(images: Tensor, width: int, height: int) -> Tensor:
    """[B, H, W, C] in 0..1 -> [B, height, width, C] in steps of 1/255: OpenCV's INTER_LINEAR of bytes, in its whole
    numbers (weights of 1/2048, four bits dropped between the passes)."""

    def taps(size: int, target: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        place = (torch.arange(target, dtype=torch.float64) + 0.5) * (size / target) - 0.5
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


@lru_cache(maxsize=8)  # the frames of a video come one by one
def _area_weights(size: int, target: int, grows: bool) -> Tensor:
    """Weight of each of `size` old pixels in each of `target` new ones, [target, size]."""
    scale = size / target
    old, new = torch.arange(size, dtype=torch.float64), torch.arange(target, dtype=torch.float64)[:, None]
    if not grows:
        covered = torch.minimum(old + 1, (new + 1) * scale) - torch.maximum(old, new * scale)
        return (covered.clamp(min=0) / scale).float()
    first = (new * scale).floor()
    past = (new + 1 - (first + 1) / scale).clamp(min=0) % 1
    return ((old == first) * (1 - past) + (old == (first + 1).clamp(max=size - 1)) * past).float()


def resize_area(images: Tensor, width: int, height: int) -> Tensor:
    """[B, H, W, C] -> [B, height, width, C]: OpenCV's INTER_AREA, by which the official preprocessing resizes. Each
    new pixel is the mean of the area it covers, or bilinear where a side grows."""
    rows, columns = images.shape[1:3]
    if (rows, columns) == (height, width):
        return images
    grows = height > rows or width > columns
    down = _area_weights(rows, height, grows).to(images)
    across = _area_weights(columns, width, grows).to(images)
    return torch.stack([torch.einsum("yh,hwc,xw->yxc", down, image, across) for image in images])


def letterbox(images: Tensor, width: int, height: int, resize: Resize = resize_linear) -> Tensor:
    """[B, H, W, C] -> [B, height, width, C]: scaled to fit, in the middle of black.

    Raises ValueError where nothing is left of the images. Source: padding_resize of wan/animate.py."""
    rows, columns = images.shape[1:3]
    wide, high, left, top = letterbox_rectangle(columns, rows, width, height)
    check_size(wide, high, columns, rows, width * height)
    out = images.new_zeros(images.shape[0], height, width, images.shape[-1])
    out[:, top : top + high, left : left + wide] = resize(images, wide, high)
    return out


def resize_by_area(images: Tensor, area: int) -> Tensor:
    """[B, H, W, C] -> the same in the size that Animate-14B's preprocessing gives them in `area` pixels, letterboxed
    where its aspect is a little off. Source: resize_by_area of wan/modules/animate/preprocess/utils.py."""
    width, height = size_for_animate(images.shape[2], images.shape[1], area)
    shrinks = width * height < images.shape[1] * images.shape[2]
    return letterbox(images, width, height, resize_area if shrinks else resize_linear)
