"""Videos of any length as a chain of clips of one model, where a clip begins with what the one before ended with.

Source of the second way, over latents: inference_svi_2.0_pro.py of Stable-Video-Infinity (https://arxiv.org/abs/2510.09212),
SVI 2.0 Pro.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..images.colour import Colours, recoloured
from .clips import chain

COLOUR_MATCH = ("off", "mean-std", "to clip 1")
"""Whose colours a clip is given: its own, the clip's before (by the frames that both show), or the first clip's."""


@dataclass(frozen=True)
class Overlap:
    """Overlap of a clip with the one before. frames: how many it repeats. dropped: how many are cut off its start,
    those and what stands before them. latents: how many latent frames the clip before hands on."""

    frames: int
    dropped: int
    latents: int

    @classmethod
    def of_frames(cls, latents: int) -> "Overlap":
        """The last frames again: as many as so many latent frames at the start of a video hold."""
        frames = 4 * latents - 3 if latents else 0
        return cls(frames, frames, 0)

    @classmethod
    def of_latents(cls, latents: int) -> "Overlap":
        """The last latent frames again, of 4 frames each, after that of the reference, which holds one."""
        return cls(4 * latents, 4 * latents + 1 if latents else 0, latents)


@dataclass(frozen=True)
class LongSegment:
    """A clip's number, the last frames [n, H, W, 3] of the video so far, and the last latents [B, C, k, h, w] of the
    clip before; None where there are none, as for the first clip."""

    index: int
    past: Tensor | None
    latents: Tensor | None


def long_clip_count(frames: int, frames_per_clip: int, overlap: Overlap) -> int:
    """Number of clips that `frames` frames of video need. ValueError where a clip would bring nothing new."""
    new = frames_per_clip - overlap.dropped
    if new < 1:
        raise ValueError(
            f"clips of {frames_per_clip} frames bring nothing new where {overlap.dropped} of them repeat the clip "
            "before: make clips longer, or the overlap smaller"
        )
    return max(1, 1 + -(-(frames - frames_per_clip) // new))


def long_clips(
    denoise: Callable[[LongSegment], Tensor],
    decode: Callable[[Tensor], Tensor],
    blank: Tensor,
    overlap: Overlap,
    clips: int,
    *,
    colour_match: str = COLOUR_MATCH[0],
    done: Sequence[Tensor] | None = None,
    latents: Tensor | None = None,
) -> Iterator[Tensor]:
    """Yields the new frames [T, H, W, 3] of each clip; done as in `chain`, and `latents` the last ones of those clips.

    denoise(segment) returns a clip's latents [B, C, F, h, w]; decode(latents) is the VAE's. blank: any frame
    [1, H, W, 3] of the video's size, where its frames are to be kept."""
    first = Colours.of(done[0]) if done and colour_match == COLOUR_MATCH[2] else None

    def make(index: int, past: Tensor) -> Tensor:
        nonlocal latents, first
        before = past if index and overlap.frames else None
        clip = denoise(LongSegment(index, before, latents if index else None))
        latents = clip[:, :, -overlap.latents :] if overlap.latents else None
        frames = decode(clip)
        new = frames[overlap.dropped :] if index else frames
        if colour_match == COLOUR_MATCH[1] and before is not None:
            repeated = frames[overlap.dropped - overlap.frames : overlap.dropped]
            return recoloured(new, Colours.of(repeated), Colours.of(before))
        if colour_match == COLOUR_MATCH[2]:
            if first is not None:
                return recoloured(new, Colours.of(new), first)
            first = Colours.of(frames)
        return new

    return chain(make, blank.expand(max(1, overlap.frames), -1, -1, -1), clips, done)
