"""The tokens that a transformer works on, and how they belong to a clip and its latent frames."""

from dataclasses import dataclass
from math import prod
from typing import Protocol

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..attention import Attention
from ..rope import RotaryTable
from .passes import changeable
from .pieces import Lengths

Grid = tuple[int, int, int]
"""Latent frames, rows and columns of patches."""


@dataclass(frozen=True)
class Inputs:
    """Conditioning of a family's model beside text and image, constant over a clip; nothing by default."""


@dataclass(frozen=True)
class Conditions:
    """Result of a family's `prepare` from its `Inputs`, once per clip."""

    def with_unconditional(self, rows: Tensor) -> "Conditions":
        """These for one call, in which the rows [B] of the batch that are true are of the negative prompt."""
        return self


@dataclass(frozen=True)
class FrameSpan:
    """Latent frames `first` to `last` that the first `tokens` of a run of tokens lie in.

    before: tokens of frame `first` that come before the run. cells: tokens of a whole frame."""

    first: int
    last: int
    before: int
    tokens: int
    cells: int

    @classmethod
    def of_video(cls, grid: Grid) -> "FrameSpan":
        """All frames of a video."""
        return cls(0, grid[0], 0, prod(grid), prod(grid[1:]))

    @property
    def frames(self) -> slice:
        return slice(self.first, self.last)

    def split(self, hidden: Tensor) -> Tensor:
        """Tokens [B, L, C] by frame, [B, F, cells, C]; zeros where the first or last frame is not whole."""
        after = (self.last - self.first) * self.cells - self.before - self.tokens
        video = hidden[:, : self.tokens]
        if self.before or after:
            video = F.pad(video, (0, 0, self.before, after))
        return video.unflatten(1, (-1, self.cells))

    def add_(self, hidden: Tensor, change: Tensor, strength: float = 1.0) -> Tensor:
        """Adds strength * change, [B * F, cells, C] of the frames, to their tokens in `hidden`, in place."""
        change = rearrange(change, "(b t) n c -> b (t n) c", b=hidden.shape[0])
        own = change[:, self.before : self.before + self.tokens]
        hidden = changeable(hidden)
        hidden[:, : self.tokens].add_(own, alpha=strength)
        return hidden


@dataclass(frozen=True)
class Tokens:
    """A whole sequence, the video's tokens first.

    hidden: [B, L, C] float32. t: timesteps [B, S], one for each segment of tokens. rotary: positions [L, 1, D/2].
    grid: of the video. lengths: tokens of each segment; None where all are of one length and all are the video's."""

    hidden: Tensor
    t: Tensor
    rotary: RotaryTable
    grid: Grid
    lengths: Lengths = None


@dataclass(frozen=True)
class Run:
    """The tokens that one process takes through the blocks, with all that blocks need to know of them.

    time, modulation: [B, S, C] and [B, S, 6, C] of the segments in it. frames: of the video, that its tokens lie in."""

    hidden: Tensor
    time: Tensor
    modulation: Tensor
    rotary: RotaryTable
    lengths: Lengths
    frames: FrameSpan


class SequenceParallel(Protocol):
    """Sharing of a sequence by processes: the slot of a model for `distributed.sequence_parallel`."""

    def split(self, whole: Run) -> Run:
        """This process's part of a run of all tokens."""
        ...

    def over_all(self, attention: Attention, length: int) -> Attention:
        """`attention` over all `length` tokens, for processes that hold parts of them."""
        ...

    def gather(self, part: Tensor, length: int) -> Tensor:
        """The parts [B, L', C] of all processes -> [B, length, C]."""
        ...


def flatten_frames(x: Tensor) -> Tensor:
    """Frames [B, F, N, C] as rows of a batch [B * F, N, C], for attention within each of them."""
    return rearrange(x, "b t n c -> (b t) n c")
