"""Long videos as a chain of clips, each of which looks back on the frames before it: S2V-14B's and Animate-14B's.

The loop knows no model: it is handed callables that denoise, encode and decode. Pixels are [T, H, W, 3] in 0..1;
latents are raw or normalised, as those callables exchange them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import MOTION_FRAMES
from ..images.resize import shortest_side_crop_float

REFERENCE_FRAMES = 4
"""As many more frames of an animated clip as its reference's latent frame stands for."""
_FIRST_DROPPED = 3
"""Frames cut off the first clip: those of the latent frame in which the reference turns into the video."""
_FROM_REFERENCE = 6
"""Last of the MOTION_FRAMES that show the reference, where the video starts from it."""


@dataclass(frozen=True)
class SpeechSegment:
    """A clip's place in a talking video: its number, its first frame (in audio and pose video too), and the latents of
    the frames before it; None for a first clip, whose past the model ignores."""

    index: int
    start: int
    motion: Tensor | None


def speech_clip_count(frames: int, frames_per_clip: int, from_reference: bool) -> int:
    """Number of clips that `frames` frames of video need; ValueError on a clip length that the model cannot make."""
    if frames_per_clip < 4 or frames_per_clip % 4:
        nearest = max(4, round(frames_per_clip / 4) * 4)
        raise ValueError(
            f"{frames_per_clip} frames per clip are not a multiple of 4; the nearest that is: {nearest}"
        )
    dropped = 0 if from_reference else _FIRST_DROPPED
    return max(1, -(-(frames + dropped) // frames_per_clip))


def chain(
    make: Callable[[int, Tensor], Tensor], past: Tensor, clips: int, done: Sequence[Tensor] | None = None
) -> Iterator[Tensor]:
    """Yields the frames of each clip, made by make(index, past).

    past: the last frames of the video so far, always as many as at the start. done: frames of clips that an earlier run
    has made; the chain goes on after them."""
    finished = done or []
    kept = past.shape[0]
    ending: list[Tensor] = []
    for index in reversed(range(len(finished))):  # no more of them are read than are looked at
        ending.insert(0, finished[index][-kept:].to(past))
        if sum(len(part) for part in ending) >= kept:
            break
    past = torch.cat([past, *ending])[-kept:]
    for index in range(len(finished), clips):
        frames = make(index, past)
        past = torch.cat([past, frames[-kept:].to(past)])[-kept:]
        yield frames


def speech_clips(
    denoise: Callable[[SpeechSegment], Tensor],
    encode: Callable[[Tensor], Tensor],
    decode: Callable[[Tensor], Tensor],
    reference: Tensor,
    *,
    frames_per_clip: int,
    clips: int,
    from_reference: bool = False,
    done: Sequence[Tensor] | None = None,
) -> Iterator[Tensor]:
    """Yields the frames [T, H, W, 3] of each clip of a talking video; done as in `chain`.

    denoise(segment) returns the clip's latents [B, C, frames_per_clip / 4, h, w]; encode(pixels) and decode(latents)
    are the VAE's. reference: the picture [1, H, W, 3]. from_reference: the video starts from the reference, as in image
    to video. Source: WanS2V.generate of wan/speech2video.py."""
    past = reference.new_full((MOTION_FRAMES, *reference.shape[1:]), 0.5)
    if from_reference:
        past[-_FROM_REFERENCE:] = reference

    def make(index: int, past: Tensor) -> Tensor:
        is_first = index == 0 and not from_reference
        motion = encode(past)
        latents = denoise(SpeechSegment(index, index * frames_per_clip, None if is_first else motion))
        before = encode(reference) if is_first else motion
        frames = decode(torch.cat([before.to(latents), latents], dim=2))[-frames_per_clip:]
        return frames[_FIRST_DROPPED:] if is_first else frames

    return chain(make, past, clips, done)


@dataclass(frozen=True)
class AnimateSegment:
    """A clip's place in the video of an animated character: its number, its first frame, and the last frames
    [n, H, W, 3] of the clip before, which it begins with; None for the first clip."""

    index: int
    start: int
    carried: Tensor | None


def animate_clip_count(frames: int, frames_per_clip: int, carried: int) -> int:
    """Number of clips that `frames` frames of video need, where each but the first begins with the last `carried`
    frames of the one before; ValueError on lengths that the model cannot make."""
    if frames_per_clip < 5 or frames_per_clip % 4 != 1:
        nearest = max(5, round((frames_per_clip - 1) / 4) * 4 + 1)
        raise ValueError(
            f"{frames_per_clip} frames per clip are not a multiple of 4 plus 1; the nearest that are: {nearest}"
        )
    if not 0 < carried < frames_per_clip or carried % 4 != 1:
        raise ValueError(
            f"{carried} carried frames do not go with clips of {frames_per_clip}: 1 or 5, and fewer than a clip has"
        )
    return max(1, -(-(frames - carried) // (frames_per_clip - carried)))


def animate_clips(
    denoise: Callable[[AnimateSegment], Tensor],
    decode: Callable[[Tensor], Tensor],
    reference: Tensor,
    *,
    frames_per_clip: int,
    carried: int,
    clips: int,
    done: Sequence[Tensor] | None = None,
) -> Iterator[Tensor]:
    """Yields the new frames [T, H, W, 3] of each clip of an animated character; done as in `chain`.

    denoise(segment) returns the clip's latents [B, C, 1 + (frames_per_clip + 3) / 4, h, w], the reference's first;
    decode(latents) is the VAE's. reference: the picture [1, H, W, 3]. carried: frames that a clip shares with the one
    before. Source: WanAnimate.generate of wan/animate.py."""

    def make(index: int, past: Tensor) -> Tensor:
        segment = AnimateSegment(index, index * (frames_per_clip - carried), past if index else None)
        frames = decode(denoise(segment)[:, :, 1:])
        return frames[carried:] if index else frames

    return chain(make, reference.expand(carried, -1, -1, -1), clips, done)


def ping_pong(start: int, count: int, length: int) -> list[int]:
    """Indices of `count` frames from `start` on of a video of `length` frames that runs forwards and backwards without
    end. Source: inputs_padding of wan/animate.py."""
    period = max(1, 2 * (length - 1))
    return [min(i % period, period - i % period) if length > 1 else 0 for i in range(start, start + count)]


def pose_clip(pose: Tensor, start: int, frames: int, size: tuple[int, int]) -> Tensor:
    """Pose frames [frames + 1, H, W, 3] that a clip's pose latents are encoded from, of poses [T, H', W', 3]: its own
    in the video's size, width and height, with the first one twice; black past the poses' end."""
    part = shortest_side_crop_float(pose[start : start + frames], *size)
    part = F.pad(part, (0, 0, 0, 0, 0, 0, 0, frames - part.shape[0]))
    return torch.cat([part[:1], part])
