"""Weights of 8-bit floats with a power of two for each 32 values of a row (mxfp8).

Source: the microscaling formats of the Open Compute Project, as ComfyUI's files have them.
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

_BLOCK, _LARGEST = 32, 448.0


@dataclass(frozen=True)
class BlockFloat8:
    """8-bit floats times a power of two for each block of a row."""

    shape: tuple[int, ...]
    exponents: Tensor  # in tiles, uint8: the power of two and 127; 0 is zero
    name: str = "mxfp8"

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) + self.exponents.numel()

    def unpack(self, raw: Tensor, dtype: torch.dtype, rows: Tensor | None = None) -> Tensor:
        exponents = untiled(self.exponents.to(raw.device), self.shape[0], self.shape[1] // _BLOCK)
        exponents = exponents if rows is None else exponents[rows]
        values = rearrange(raw.float(), "r (k c) -> r k c", c=_BLOCK) * _powers(exponents)[..., None]
        return values.flatten(1).to(dtype)


def _powers(exponents: Tensor) -> Tensor:
    """Exponents as those of a float32 number lie in it, whose other bits are zero."""
    return (exponents.int() << 23).view(torch.float32)


def _packing(layer: Layer) -> BlockFloat8:
    rows, columns = layer.matrix(torch.float8_e4m3fn)
    exponents = layer.read("weight_scale").view(torch.uint8)
    return BlockFloat8((rows, columns), checked(exponents, rows, columns // _BLOCK))


def _find(shapes: Shapes, dtypes: Dtypes, read: Read) -> dict[str, Packing]:
    return packings_of("mxfp8", _packing, shapes, dtypes, read)


def _pack(weight: Tensor, kind: str) -> dict[str, Tensor]:
    if weight.shape[1] % _BLOCK or weight.shape[0] % _BLOCK:
        raise ValueError(f"{kind} has no place for {list(weight.shape)} values")
    blocks = rearrange(weight.float(), "r (k c) -> r k c", c=_BLOCK)
    greatest = blocks.abs().amax(-1)
    # up, so that the greatest fits
    exponents = (greatest / _LARGEST).clamp_min(2.0**-126).log2().ceil().clamp(-126, 127).add(127)
    exponents = torch.where(greatest > 0, exponents, 0).to(torch.uint8)
    values = blocks / _powers(exponents)[..., None].clamp_min(2.0**-126)
    return {
        "weight": values.flatten(1).to(torch.float8_e4m3fn),
        "weight_scale": tiled(exponents).view(torch.float8_e8m0fnu),
        NOTE: to_tensor({"format": kind}),
    }


BLOCK_FLOAT8 = Scheme(_find, ("weight_scale",), ("mxfp8",), _pack)
