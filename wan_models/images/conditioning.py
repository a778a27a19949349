"""The frames that a model is given of its video, and the masks that say which.

Source: wan/image2video.py and wan/animate.py of the official code; the end image follows
wan/first_last_frame2video.py of Wan2.1.
"""

from collections.abc import Mapping

import torch
from einops import rearrange, repeat
from torch import Tensor

from ..wording import counted
from .resize import resize_masks


def known_frames(
    start: Tensor | None, end: Tensor | None, frames: int, keyframes: Mapping[int, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Start and end frames [n, H, W, 3], and others by their place [1, H, W, 3], all of one size -> (video
    [frames, H, W, 3], known [frames] bool).

    Unknown frames are grey, which is zero to the VAE. Raises ValueError where they do not fit into `frames`."""
    keyframes = keyframes or {}
    parts = [part for part in (start, end, *keyframes.values()) if part is not None]
    if sum(part.shape[0] for part in parts) > frames:
        raise ValueError(
            f"{sum(part.shape[0] for part in parts)} images are given for a video of {counted(frames, 'frame')}: give "
            "fewer images, or make the video longer"
        )
    video = parts[0].new_full((frames, *parts[0].shape[1:]), 0.5)
    known = torch.zeros(frames, dtype=torch.bool)
    if start is not None:
        video[: start.shape[0]] = start
        known[: start.shape[0]] = True
    if end is not None:
        video[-end.shape[0] :] = end
        known[-end.shape[0] :] = True
    for frame, picture in keyframes.items():
        video[frame] = picture[0]
        known[frame] = True
    return video, known


def mask_channels(known: Tensor, height: int, width: int) -> Tensor:
    """Which of the 4n + 1 frames are known, [T] or [T, height, width] -> mask [4, 1 + n, height, width] for the
    latents, 1 where known.

    Each latent frame has four channels for its four frames; the first stands for one frame, four times."""
    if known.dim() == 1:
        known = repeat(known, "t -> t h w", h=height, w=width)
    rows = torch.cat([repeat(known[:1], "1 h w -> k h w", k=4), known[1:]]).float()
    return rearrange(rows, "(t k) h w -> k t h w", k=4)


def reference_mask_channels(known: Tensor, height: int, width: int) -> Tensor:
    """`mask_channels` of a clip of Animate-14B, after those of its reference: [4, 2 + n, height, width]."""
    rows = mask_channels(known, height, width)
    return torch.cat([torch.ones_like(rows[:, :1]), rows], dim=1)


def replaced_frames(
    frames: int, size: tuple[int, int], carried: Tensor | None, background: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Frames of an Animate-14B clip, and where known -> (video [frames, H, W, 3], known [frames, H / 8, W / 8]).

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
        known = 1 - resize_masks(subject, width // 8, height // 8)
    if carried is not None:
        video[: carried.shape[0]] = carried.to(video)
        known[: carried.shape[0]] = 1
    return video, known
