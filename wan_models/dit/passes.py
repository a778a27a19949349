"""Passes over single tokens around a block's products and attention: a slot for three functions.

The plain ones are as many kernels as they have steps, and go over all tokens a few times. `compiled` has them made into
one kernel each, which reads what it is given once and writes its result once. Whoever has kernels of their own hands
them to `WanModel.use` as another `Passes`; numbers then differ by rounding alone.
"""

from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor, nn

from ..rope import RotaryTable, apply_rotary_, rotary_part
from .pieces import Lengths, by_piece, in_pieces, pieces


class ModulatedNorm(Protocol):
    """norm(x) * (1 + scale) + shift."""

    def __call__(
        self, x: Tensor, norm: nn.Module, shift: Tensor, scale: Tensor, lengths: Lengths, dtype: torch.dtype
    ) -> Tensor:
        """x [B, L, C] in float32, shift and scale [B, S, 1, C] of its segments -> [B, L, C] in `dtype`."""


class NormRope(Protocol):
    """norm(x) in float32, each head of it rotated by its token's position."""

    def __call__(
        self,
        x: Tensor,
        norm: nn.Module,
        heads: int,
        rotary: RotaryTable | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """x [B, L, C] of any dtype -> the same, rotated where there are positions. Where no gradients are computed, the
        memory of x, or that of `out`, may be taken for the result."""


class AddGated(Protocol):
    """x + y * gate."""

    def __call__(self, x: Tensor, y: Tensor, gate: Tensor, lengths: Lengths = None) -> Tensor:
        """x [B, L, C] in float32, y [B, L, C] of any dtype, gate [B, S, 1, C] of its segments -> [B, L, C], where no
        gradients are computed in x's own memory."""


@dataclass(frozen=True)
class Passes:
    modulated_norm: ModulatedNorm
    norm_rope: NormRope
    add_gated: AddGated


def per_segment(x: Tensor, segments: int) -> Tensor:
    """[B, L, C] -> [B, S, L/S, C], so that one modulation per segment broadcasts over its tokens."""
    return x.unflatten(1, (segments, -1))


def changeable(x: Tensor) -> Tensor:
    """x itself where its memory may be changed; a copy in training, where gradients are computed from x as it was."""
    return x.clone() if x.requires_grad and torch.is_grad_enabled() else x


def modulated_norm(
    x: Tensor, norm: nn.Module, shift: Tensor, scale: Tensor, lengths: Lengths, dtype: torch.dtype
) -> Tensor:
    """As of `ModulatedNorm`."""
    if in_pieces():
        out = torch.empty_like(x, dtype=dtype)
        for rows, tokens, segments in pieces(x, shift.shape[1], lengths):
            of_segment = rows, segments
            count = segments.stop - segments.start
            normed, place = (per_segment(t, count) for t in (norm(x[rows, tokens]), out[rows, tokens]))
            torch.addcmul(shift[of_segment], normed, 1 + scale[of_segment], out=place)
        return out
    if lengths is None:
        normed = per_segment(norm(x), shift.shape[1])
        return torch.addcmul(shift, normed, 1 + scale).flatten(1, 2).to(dtype)
    parts = norm(x).split(lengths, dim=1)
    changed = [torch.addcmul(shift[:, i], part, 1 + scale[:, i]) for i, part in enumerate(parts)]
    return torch.cat(changed, 1).to(dtype)


def norm_rope(
    x: Tensor, norm: nn.Module, heads: int, rotary: RotaryTable | None = None, out: Tensor | None = None
) -> Tensor:
    """As of `NormRope`."""
    if torch.compiler.is_compiling():
        return _traced_norm_rope(x, norm, heads, None if rotary is None else torch.view_as_real(rotary), out)

    def change(x: Tensor, rows: slice, tokens: slice) -> Tensor:
        x = norm(x.float())
        if rotary is not None:
            apply_rotary_(x.unflatten(-1, (heads, -1)), rotary_part(rotary, rows, tokens))
        return x

    return by_piece(change, x, x.dtype, x if out is None else out)


def _traced_norm_rope(
    x: Tensor, norm: nn.Module, heads: int, table: Tensor | None, out: Tensor | None
) -> Tensor:
    """`norm_rope` in operations that a compiler makes one kernel of; table: cosines and sines [L, 1, D/2, 2]."""
    result = norm(x.float())
    if table is not None:
        result = rotated(result.unflatten(-1, (heads, -1)), table).flatten(-2)
    result = result.to(x.dtype)
    # not into x itself, of which other threads of a kernel read the neighbour of what one writes
    return result if out is None or torch.is_grad_enabled() else out.copy_(result)


def rotated(x: Tensor, table: Tensor) -> Tensor:
    """`apply_rotary_` of x [B, L, H, D] without complex numbers; table: cosines and sines [L, 1, D/2, 2]."""
    pairs = x.unflatten(-1, (-1, 2))
    cos, sin = table.split(1, dim=-1)
    sign = torch.arange(-1, 2, 2, device=x.device, dtype=x.dtype)
    return (pairs * cos + pairs.flip(-1) * (sin * sign)).flatten(-2)


def add_gated(x: Tensor, y: Tensor, gate: Tensor, lengths: Lengths = None) -> Tensor:
    """As of `AddGated`."""
    x = changeable(x)
    if lengths is None:
        segments = gate.shape[1]
        per_segment(x, segments).addcmul_(per_segment(y, segments), gate)
        return x
    start = 0
    for i, change in enumerate(y.split(lengths, 1)):
        x.narrow(1, start, lengths[i]).addcmul_(change, gate[:, i])
        start += lengths[i]
    return x


PLAIN = Passes(modulated_norm, norm_rope, add_gated)


@cache
def compiled() -> Passes:
    """The plain ones through torch.compile, which takes seconds at their first use and needs a C++ compiler on a CPU,
    Triton on a GPU."""
    traced = torch.compile(_traced_norm_rope)

    def norm_rope(
        x: Tensor, norm: nn.Module, heads: int, rotary: RotaryTable | None = None, out: Tensor | None = None
    ) -> Tensor:
        return traced(x, norm, heads, None if rotary is None else torch.view_as_real(rotary), out)

    return Passes(torch.compile(modulated_norm), norm_rope, torch.compile(add_gated))
