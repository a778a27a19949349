"""Three-dimensional rotary position embedding of the Wan transformers (RoFormer, arXiv 2104.09864, per axis).

A head's channels are split between time, height and width; every pair of neighbouring channels is rotated by
position * theta^(-2i/d) of its axis. Tables are built in float64, as the official code computes, and kept in
float32: one build per latent grid, shared by all layers and steps.
"""

from functools import lru_cache

import torch
from torch import Tensor

THETA = 10000.0

RotaryTable = Tensor
"""Unit complex numbers [L, 1, D/2] in complex64: one per token and channel pair."""


def axis_split(head_dim: int) -> tuple[int, int, int]:
    """Channels of a head that turn with time, height and width; time takes what does not divide by three."""
    third = 2 * (head_dim // 6)
    return head_dim - 2 * third, third, third


@lru_cache(maxsize=8)
def rotary_table(
    grid: tuple[int, int, int],
    head_dim: int,
    device: torch.device,
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0),
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> RotaryTable:
    """The table of a patch grid (frames, height, width), flattened in that order to L tokens.

    Position i of an axis with n cells stands at `shift + i * scale`."""
    # a table made while the host runs in inference mode must also serve later calls outside it
    with torch.inference_mode(False):
        angles = []
        for axis, (cells, channels) in enumerate(zip(grid, axis_split(head_dim), strict=True)):
            frequency = THETA ** -(torch.arange(0, channels, 2, dtype=torch.float64) / channels)
            position = shift[axis] + torch.arange(cells, dtype=torch.float64) * scale[axis]
            view = [1, 1, 1, -1]
            view[axis] = cells
            angles.append(torch.outer(position, frequency).view(view).expand(*grid, -1))
        angle = torch.cat(angles, dim=-1).flatten(0, 2).unsqueeze(1)
        return torch.polar(torch.ones_like(angle), angle).to(torch.complex64).to(device)


def apply_rotary_(x: Tensor, table: RotaryTable) -> Tensor:
    """Rotates x [B, L, H, D], contiguous and float32, by its tokens' positions, in x's own memory."""
    torch.view_as_complex(x.unflatten(-1, (-1, 2))).mul_(table)
    return x
