"""Parts of a text for parts of a video, as Prompt Relay has them (arXiv 2604.10030).

All texts are one prompt. In the cross-attention a latent frame's look at the tokens of a text is penalised by how far
the frame lies outside of the text's segment: strength * d^2 / (2 sigma^2) is taken from the logits, d in latent frames.
That is a Gaussian, which falls to a thousandth two frames past a segment's end, as in the authors' newer code. Tokens
of no segment (what holds for all of the video, the end of the text, its padding) are looked at from everywhere.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from ..attention import Attention, biased
from .tokens import FrameSpan

TAIL, EPSILON = 2.0, 1e-3
SIGMA = TAIL / math.sqrt(2 * math.log(1 / EPSILON))
_LARGEST = 1e4  # of a penalty: more is nothing seen as well, and float16 holds this


class Segment(NamedTuple):
    """Tokens `first` up to `last` of a text, which are for the latent frames from `start` up to `stop`."""

    first: int
    last: int
    start: int
    stop: int


@dataclass(frozen=True)
class Schedule:
    """Which tokens of a text are for which latent frames of a video.

    frames: latent frames of the video. strength: factor on the penalties. shown: of a call that is given a part of the
    video, the latent frame that each of its own is (a negative number for none); None for all of them in order."""

    segments: tuple[Segment, ...]
    frames: int
    strength: float = 1.0
    shown: tuple[int, ...] | None = None

    def plain(self) -> tuple:
        """The same as plain data, for files and other processes."""
        return tuple(map(tuple, self.segments)), self.frames, self.strength, self.shown

    @classmethod
    def of_plain(cls, data: tuple) -> "Schedule":
        """Schedule from the data of `plain`."""
        segments, *others = data
        return cls(tuple(Segment(*segment) for segment in segments), *others)

    def times(self, frames: int, before: int) -> tuple[int, ...]:
        """Place in the video of each latent frame of a call; the first `before` are none of it, and negative.
        Raises ValueError where the call is for a video of another length."""
        if self.shown is None and frames - before != self.frames:
            raise ValueError(
                f"the prompt's schedule is for a video of {self.frames} latent frames, and this one has "
                f"{frames - before}: give both the same number of frames"
            )
        return tuple(index - before for index in (range(frames) if self.shown is None else self.shown))

    def penalties(self, times: Sequence[int], length: int) -> Tensor:
        """Amounts taken from the logits of `length` text tokens, [len(times), length] in float32, by latent frames at
        `times` of the video; none by negative ones."""
        out = torch.zeros(len(times), length)
        at = torch.tensor(times, dtype=torch.float32)
        for first, last, start, stop in self.segments:
            distance = torch.maximum(start - at, at - (stop - 1)).clamp_min(0)
            penalty = self.strength * distance.square() / (2 * SIGMA**2)
            out[:, first:last] = penalty.clamp_max(_LARGEST).where(at >= 0, 0.0)[:, None]
        return out

    def kernel(self, plain: Attention, text: Tensor, times: Sequence[int], frames: FrameSpan) -> Attention:
        """`plain` from the tokens of `frames`, and others after them, to a text [B, L_text, C]; times: of all latent
        frames in the call."""
        runs: list[tuple[int, int, Tensor | None]] = []
        at = -frames.before
        # frames that look at the text alike do so in one call
        for penalty, alike in groupby(self.penalties(times[frames.frames], text.shape[1]).tolist()):
            start, at = at, at + len(list(alike)) * frames.cells
            taken = torch.tensor(penalty, device=text.device) if any(penalty) else None
            runs.append((max(0, start), min(at, frames.tokens), taken))
        return ScheduledKernel(plain, tuple(run for run in runs if run[0] < run[1]))


@dataclass(frozen=True)
class ScheduledKernel:
    """Attention to a text. runs: of tokens `start` to `stop` of a video, and what is taken from their logits [L_text],
    None for nothing; tokens after them look at it plainly."""

    plain: Attention
    runs: tuple[tuple[int, int, Tensor | None], ...]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        out, end = torch.empty_like(q), 0
        for start, end, penalty in self.runs:
            part = q[:, start:end]
            if penalty is None:
                out[:, start:end] = self.plain(part, k, v, heads)
            else:
                out[:, start:end] = biased(part, k, v, heads, -penalty.to(q))
        if end < q.shape[1]:
            out[:, end:] = self.plain(q[:, end:], k, v, heads)
        return out
