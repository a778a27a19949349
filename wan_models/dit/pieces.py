"""Work on a few tokens at a time: what is computed for each token alone then needs little memory of its own.

A piece gives the same numbers as the whole, to the bit. Linear layers are always given all tokens, since a weight may
have to be unpacked or brought to the device for each call.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Lengths = tuple[int, ...] | None
"""Tokens in each segment; None where all segments are of one length."""

PIECE_BYTES = 64 << 20
_CPU_PIECE_BYTES = 1 << 20  # for each thread: what its cache holds


def in_pieces() -> bool:
    """Whether tokens are worked on in pieces: not in training, nor where a compiler fuses the whole."""
    return not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def piece_tokens(x: Tensor) -> int:
    """Tokens of x [B, L, C] that are worked on at a time."""
    size = _CPU_PIECE_BYTES * torch.get_num_threads() if x.device.type == "cpu" else PIECE_BYTES
    return max(1, size // (4 * x.shape[2]))


def pieces(x: Tensor, segments: int = 1, lengths: Lengths = None) -> Iterator[tuple[slice, slice, slice]]:
    """Rows, tokens and segments of x [B, L, C]: some segments of equal length as a whole, or a part of one segment."""
    size = piece_tokens(x)
    together = 1
    if lengths is None:
        lengths = (x.shape[1] // segments,) * segments
        together = max(1, size // max(1, lengths[0]))
    for row in range(x.shape[0]):
        start = 0
        for first in range(0, len(lengths), together):
            last = min(first + together, len(lengths))
            stop = start + sum(lengths[first:last])
            step = size if last - first == 1 else max(1, stop - start)
            for token in range(start, stop, step):
                yield slice(row, row + 1), slice(token, min(token + step, stop)), slice(first, last)
            start = stop


def by_piece(
    change: Callable[[Tensor, slice, slice], Tensor], x: Tensor, dtype: torch.dtype, out: Tensor | None = None
) -> Tensor:
    """change(part of x, rows, tokens) for all of x [B, L, C], cast to `dtype`: whole, or in pieces that are put into
    the memory of `out`, which may be x's own."""
    if not in_pieces():
        return change(x, slice(None), slice(None)).to(dtype)
    if out is None:
        out = torch.empty_like(x, dtype=dtype)
    for rows, tokens, _ in pieces(x):
        out[rows, tokens].copy_(change(x[rows, tokens], rows, tokens))
    return out
