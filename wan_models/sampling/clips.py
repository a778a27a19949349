"""Long videos as a chain of clips, each of which looks back on the frames before it: S2V-14B's loop.

The loop knows no model: what denoises, encodes and decodes is given to it. Pixels are [T, H, W, 3] in 0..1 and
latents raw or normalised as those callables like them. Source: WanS2V.generate of wan/speech2video.py.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MOTION_FRAMES = 73
"""Frames that a clip looks back on."""
_FIRST_DROPPED = 3
"""Frames at the beginning of a video that stand for nothing: those of the first latent frame after the reference."""
_FROM_REFERENCE = 6
"""Last frames of the past that show the reference, where the video starts from it."""


@dataclass(frozen=True)
class Clip:
    """What a clip is denoised under: its number, the first of its frames in audio and pose, and the latents of the
    frames before, None where the model is to ignore them."""

    index: int
    start: int
    motion: Tensor | None


def clip_count(frames: int, frames_per_clip: int, from_reference: bool) -> int:
    """Clips that hold `frames` frames of video; ValueError where a clip's length cannot be made."""
    if frames_per_clip < 4 or frames_per_clip % 4:
        nearest = max(4, round(frames_per_clip / 4) * 4)
        raise ValueError(
            f"{frames_per_clip} frames per clip are not a multiple of 4; the nearest that is: {nearest}"
        )
    dropped = 0 if from_reference else _FIRST_DROPPED
    return max(1, -(-(frames + dropped) // frames_per_clip))


def speech_clips(
    denoise: Callable[[Clip], Tensor],
    encode: Callable[[Tensor], Tensor],
    decode: Callable[[Tensor], Tensor],
    reference: Tensor,
    frames_per_clip: int,
    clips: int,
    from_reference: bool = False,
    done: list[Tensor] | None = None,
) -> Iterator[Tensor]:
    """Yields the frames [T, H, W, 3] of each clip.

    denoise(clip) gives the clip's latents [B, C, frames_per_clip / 4, h, w]; encode(pixels) and decode(latents) are
    the VAE's. reference: the picture [1, H, W, 3]. from_reference: the video starts from the reference, as in image
    to video. done: frames of clips that were made before; the chain goes on after them."""
    past = reference.new_full((MOTION_FRAMES, *reference.shape[1:]), 0.5)
    if from_reference:
        past[-_FROM_REFERENCE:] = reference
    finished = done or []
    for frames in finished:
        past = torch.cat([past, frames.to(past)])[-MOTION_FRAMES:]
    for index in range(len(finished), clips):
        is_first = index == 0 and not from_reference
        motion = encode(past)
        latents = denoise(Clip(index, index * frames_per_clip, None if is_first else motion))
        before = encode(reference) if is_first else motion
        frames = decode(torch.cat([before.to(latents), latents], dim=2))[-frames_per_clip:]
        frames = frames[_FIRST_DROPPED:] if is_first else frames
        past = torch.cat([past, frames.to(past)])[-MOTION_FRAMES:]
        yield frames


def pose_clip(pose: Tensor, start: int, frames: int) -> Tensor:
    """The frames [frames + 1, H, W, 3] of a pose video that a clip is encoded from: its own, after its first one once
    more; black past the video's end."""
    part = pose[start : start + frames]
    part = F.pad(part, (0, 0, 0, 0, 0, 0, 0, frames - part.shape[0]))
    return torch.cat([part[:1], part])
