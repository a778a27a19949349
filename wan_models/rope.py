"""Three-dimensional rotary position embedding of the Wan transformers (RoFormer, arXiv 2104.09864, per axis).

A head's channels are split between time, height and width; every pair of neighbouring channels is rotated by
position * theta^(-2i/d) of its axis. Tables are built in float64, as the official code computes, and kept in
float32: one build per latent grid, shared by all layers and steps, until `clear` at the end of a run.
"""

from functools import lru_cache

import torch
from torch import Tensor

THETA = 10000.0

Positions = tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]
"""Positions of a grid's cells in time, height and width."""
RotaryTable = Tensor
"""Unit complex numbers [L, 1, D/2] in complex64: one per token and channel pair."""


def axis_split(head_dim: int) -> tuple[int, int, int]:
    """Channels of a head that turn with time, height and width; time takes what does not divide by three."""
    third = 2 * (head_dim // 6)
    return head_dim - 2 * third, third, third


def rotary_table(grid: tuple[int, int, int], head_dim: int, device: torch.device) -> RotaryTable:
    """Table of a patch grid (frames, height, width), flattened in that order to L tokens."""
    frames, rows, columns = (tuple(map(float, range(cells))) for cells in grid)
    return rotary_at((frames, rows, columns), head_dim, device)


@lru_cache(maxsize=16)
def rotary_at(
    positions: Positions,
    head_dim: int,
    device: torch.device,
) -> RotaryTable:
    """Table of a grid whose cells stand at any `positions` (of frames, rows, columns)."""
    # a table made while the host runs in inference mode must also serve later calls outside it
    with torch.inference_mode(False):
        angles, grid = [], [len(axis) for axis in positions]
        for axis, channels in enumerate(axis_split(head_dim)):
            frequency = THETA ** -(torch.arange(0, channels, 2, dtype=torch.float64) / channels)
            view = [1, 1, 1, -1]
            view[axis] = grid[axis]
            angle = torch.outer(torch.tensor(positions[axis], dtype=torch.float64), frequency)
            angles.append(angle.view(view).expand(*grid, -1))
        angle = torch.cat(angles, dim=-1).flatten(0, 2).unsqueeze(1)
        return torch.polar(torch.ones_like(angle), angle).to(torch.complex64).to(device)


def clear() -> None:
    """Lets go of all tables that are kept: with them, memory of the devices that they are on."""
    rotary_at.cache_clear()


def apply_rotary_(x: Tensor, table: RotaryTable) -> Tensor:
    """Rotates x [B, L, H, D], contiguous and float32, by its tokens' positions, in x's own memory."""
    torch.view_as_complex(x.unflatten(-1, (-1, 2))).mul_(table)
    return x


def rotary_part(table: RotaryTable, rows: slice, tokens: slice) -> RotaryTable:
    """The part of a table, with rows of a batch [B, L, 1, D/2] or without, that belongs to these rows and tokens."""
    if table.dim() == 4 and table.shape[0] > 1:
        table = table[rows]
    return table[..., tokens, :, :]
