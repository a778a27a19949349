"""Normalized Attention Guidance (arXiv 2505.21148): a negative prompt inside the cross-attention to the text.

The tokens of a video look at the prompt and, with the same queries, at a negative text; what they see goes on from the
second past the first, and no further than `tau` times the first one's size. A second forward is not needed, so it works
at CFG scale 1. Layers know of it by the kernel that they are given for the text, a `TextKernel`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..attention import Attention
from .pieces import by_piece, in_pieces


@dataclass(frozen=True)
class NAG:
    """Guidance away from a negative text. The defaults are those published for Wan.

    text: its UMT5 rows [1, L, text_dim]. scale: how far what is seen goes from it; 1 is not at all. tau: the largest
    size of the result, as a multiple of what the prompt alone gives. alpha: the share of the result in what goes on, 0
    to 1. rows: bool [B], rows of a batch that are guided (those of the positive prompt); None for all. Raises
    ValueError on other numbers."""

    text: Tensor
    scale: float = 11.0
    tau: float = 2.5
    alpha: float = 0.25
    rows: Tensor | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.scale < math.inf:
            raise ValueError(f"scale of NAG must be a number from 0 up, not {self.scale:g}; 1 is off")
        if not 0 < self.tau < math.inf:
            raise ValueError(f"tau of NAG must be a number above 0, not {self.tau:g}; 2.5 is published")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha of NAG must lie in 0..1, not {self.alpha:g}; 0 is off")

    def guided(self, texts: Tensor, negative: Tensor) -> tuple[int, ...]:
        """The rows that it changes, of prompts [B, L, C] and the negative text [1, L, C]: none at scale 1 or alpha 0,
        and none whose prompt is the negative text."""
        if self.scale == 1.0 or self.alpha == 0.0:
            return ()
        chosen = range(len(texts)) if self.rows is None else self.rows.nonzero().flatten().tolist()
        return tuple(row for row in chosen if not torch.equal(texts[row], negative[0]))

    def combine(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Combines the attention to the prompt and to the negative text, [B, L, C] each; in inference in the
        memory of `positive`. Computed in float32."""

        def change(seen: Tensor, rows: slice, tokens: slice) -> Tensor:
            seen = seen.float()
            far = seen + (self.scale - 1.0) * (seen - negative[rows, tokens].float())
            size, limit = (x.norm(p=1, dim=-1, keepdim=True) for x in (far, seen))
            far = far * (self.tau * limit / size.clamp_min(torch.finfo(size.dtype).tiny)).clamp_max(1.0)
            return seen + self.alpha * (far - seen)

        return by_piece(change, positive, positive.dtype, out=positive)


@dataclass(frozen=True)
class TextKernel:
    """Attention to a prompt for one forward.

    kernel: that of the prompt; plain: that of all else. nag: guidance of the `rows` of the batch, away from `negative`,
    its text [1, L, C] as blocks are given it; there is none where rows are none."""

    kernel: Attention
    plain: Attention
    nag: NAG | None = None
    negative: Tensor | None = None
    rows: tuple[int, ...] = ()

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        return self.kernel(q, k, v, heads)

    def both(self, context: Tensor, layer: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor | None]:
        """Applies a layer to the prompts [B, L, C], and to the negative text where there is one."""
        return (layer(context), None) if self.negative is None else beside(context, self.negative, layer)

    def guide(self, seen: Tensor, q: Tensor, k: Tensor | None, v: Tensor | None, heads: int) -> Tensor:
        """Guides what the queries [B, L, C] have `seen` of the prompt away from a text of keys `k` and values `v`."""
        if self.nag is None or k is None or v is None:
            return seen
        parts = list(seen.split(1))
        for row in self.rows:
            other = self.plain(q[row : row + 1], k, v, heads)
            parts[row] = self.nag.combine(parts[row], other)
        return seen if in_pieces() else torch.cat(parts)


def beside(texts: Tensor, other: Tensor, layer: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Applies a layer to texts [B, L, C] and another one [1, L', C], in one call: its weight may have to be brought
    to the device or unpacked for each."""
    rows, length = texts.shape[:2]
    out = layer(torch.cat([texts.flatten(0, 1), other[0]]).unsqueeze(0))
    return out[0, : rows * length].unflatten(0, (rows, length)), out[:, rows * length :]


def plain(attention: Attention) -> Attention:
    """The kernel for tokens that are none of the prompt's."""
    return attention.plain if isinstance(attention, TextKernel) else attention
