"""Rotation of a weight's columns by a Hadamard matrix, which spreads outliers before values are rounded.

Source: ConvRot (regular Hadamard matrices, in groups of columns), as ComfyUI's files have it.
"""

from functools import cache

import torch
from einops import rearrange
from torch import Tensor


@cache
def _hadamard(size: int) -> Tensor:
    """Symmetric and orthogonal [size, size], so its own inverse; size: a power of 4."""
    base = 1 - 2 * torch.eye(4).flip(0)
    out = base
    while len(out) < size:
        out = torch.kron(out, base)
    return out / size**0.5


def rotate(weight: Tensor, size: int) -> Tensor:
    """A float32 weight [rows, columns] with each group of `size` columns rotated; twice gives the weight again."""
    matrix = _hadamard(size).to(weight.device, weight.dtype)
    return (rearrange(weight, "r (g c) -> r g c", c=size) @ matrix).flatten(1)


def check_group(size: object, columns: int) -> int:
    """A size of groups that these columns can have. Raises ValueError on any other."""
    powers = [4**n for n in range(1, 9)]
    if size not in powers or columns % size:  # type: ignore[operator]
        raise ValueError(f"groups of {str(size)[:20]} columns are no rotation of {columns}")
    return size  # type: ignore[return-value]
