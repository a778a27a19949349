"""Weights of 4-bit floats with an 8-bit float for each 16 values of a row, and a factor for all of them (nvfp4).

Source: NVIDIA's NVFP4, as ComfyUI's files and those of its Model Optimizer have it.
"""

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from .block_scales import checked, tiled, untiled
from .notes import NOTE, to_tensor
from .packing import Dtypes, Packing, Read, Scheme, Shapes
from .quantized_layers import Layer, packings_of

_BLOCK = 16
_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # of the codes 0 to 7; 8 to 15 are the same below zero
_LARGEST_SCALE = 448.0


@dataclass(frozen=True)
class BlockFloat4:
    """Two 4-bit floats in a byte, the first in its upper half, times the scale of their block and one of the weight.

    smoothing: factors of the columns, which were taken out of the weight into its layer's input."""

    shape: tuple[int, ...]
    scales: Tensor  # in tiles, float8_e4m3fn
    scale: Tensor  # float32, []
    smoothing: Tensor | None = None
    name: str = "nvfp4"

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) // 2 + self.scales.numel()

    def unpack(self, raw: Tensor, dtype: torch.dtype, rows: Tensor | None = None) -> Tensor:
        scales = untiled(self.scales.to(raw.device), self.shape[0], self.shape[1] // _BLOCK).float()
        scales = scales if rows is None else scales[rows]
        codes = torch.tensor([*_VALUES, *(-value for value in _VALUES)])
        pairs = torch.cartesian_prod(codes, codes).to(raw.device)[raw.int()]  # [rows, bytes, 2]
        values = rearrange(pairs, "r (k c) two -> r k (c two)", c=_BLOCK // 2)
        values = (values * (scales * self.scale.to(raw.device))[..., None]).flatten(1)
        if self.smoothing is not None:
            values = values * self.smoothing.to(raw.device)
        return values.to(dtype)


def _packing(layer: Layer) -> BlockFloat4:
    rows, half = layer.matrix(torch.uint8)
    scales = layer.read("weight_scale").view(torch.float8_e4m3fn)
    smoothing = layer.read("pre_quant_scale").float().flatten() if layer.has("pre_quant_scale") else None
    return BlockFloat4(
        (rows, 2 * half),
        checked(scales, rows, 2 * half // _BLOCK),
        layer.read("weight_scale_2").float().reshape(()),
        smoothing,
    )


def _find(shapes: Shapes, dtypes: Dtypes, read: Read) -> dict[str, Packing]:
    return packings_of("nvfp4", _packing, shapes, dtypes, read)


def _codes(values: Tensor) -> Tensor:
    """The nearest of `_VALUES`, of two the one with an even code."""
    table = torch.tensor(_VALUES)
    middles = (table[1:] + table[:-1]) / 2
    below = torch.bucketize(values.abs(), middles)
    is_tie = values.abs() == middles[below.clamp_max(len(middles) - 1)]
    return (below + (is_tie & (below % 2 == 1)) + 8 * values.signbit()).to(torch.uint8)


def _pack(weight: Tensor, kind: str) -> dict[str, Tensor]:
    if weight.shape[1] % _BLOCK or weight.shape[0] % _BLOCK:
        raise ValueError(f"{kind} has no place for {list(weight.shape)} values")
    blocks = rearrange(weight.float(), "r (k c) -> r k c", c=_BLOCK)
    scale = (blocks.abs().amax() / (_LARGEST_SCALE * _VALUES[-1])).clamp_min(1e-30)
    scales = (blocks.abs().amax(-1) / _VALUES[-1] / scale).clamp_max(_LARGEST_SCALE).to(torch.float8_e4m3fn)
    factors = (scales.float() * scale)[..., None]
    codes = _codes(torch.where(factors > 0, blocks / factors, 0).flatten(1))
    return {
        "weight": codes[:, ::2] << 4 | codes[:, 1::2],
        "weight_scale": tiled(scales.view(torch.uint8)).view(torch.float8_e4m3fn),
        "weight_scale_2": scale,
        NOTE: to_tensor({"format": kind}),
    }


BLOCK_FLOAT4 = Scheme(_find, ("weight_scale", "weight_scale_2", "pre_quant_scale"), ("nvfp4",), _pack)
