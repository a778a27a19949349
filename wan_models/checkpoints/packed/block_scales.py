"""Scales of blocks of a row's values, in the order in which the products of NVIDIA's cards take them.

They lie in tiles of 128 rows and 4 blocks, padded with zeros; in a tile, row 32 a + b is at place (b, a).
Source: the layout of block scaling factors in the documentation of cuBLAS.
"""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

_ROWS, _BLOCKS, _APART = 128, 4, 32


def tiled(scales: Tensor) -> Tensor:
    """Scales [rows, blocks] of one byte each -> in tiles [rows to 128, blocks to 4]."""
    rows, blocks = scales.shape
    padded = F.pad(scales, (0, -blocks % _BLOCKS, 0, -rows % _ROWS))
    tiles = rearrange(padded, "(i a b) (j c) -> i j b a c", b=_APART, a=_ROWS // _APART, c=_BLOCKS)
    return tiles.reshape(padded.shape)


def checked(scales: Tensor, rows: int, blocks: int) -> Tensor:
    """The same tiles. Raises ValueError where they are not those of so many rows and blocks."""
    expected = (rows + -rows % _ROWS) * (blocks + -blocks % _BLOCKS)
    if scales.numel() != expected:
        raise ValueError(
            f"{list(scales.shape)} scales are not those of {blocks} blocks in each of {rows} rows"
        )
    return scales


def untiled(scales: Tensor, rows: int, blocks: int) -> Tensor:
    """The inverse of `tiled`."""
    tiles = -(-rows // _ROWS)
    whole = rearrange(
        scales.flatten(),
        "(i j b a c) -> (i a b) (j c)",
        i=tiles, b=_APART, a=_ROWS // _APART, c=_BLOCKS,
    )  # fmt: skip
    return whole[:rows, :blocks]
