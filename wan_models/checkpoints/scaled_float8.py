"""Weights of 8-bit floats with a scale beside them, as ComfyUI's fp8_scaled files have them."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .packing import Dtypes, Read, Scheme, Shapes

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
# in older and in newer files
_SCALES = ("scale_weight", "weight_scale")


@dataclass(frozen=True)
class ScaledFloat8:
    """8-bit floats times one factor for the whole weight, or one per row."""

    shape: tuple[int, ...]
    scale: Tensor  # float32, [] or [rows]
    name: str = "fp8_scaled"

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape)

    def unpack(self, raw: Tensor, dtype: torch.dtype) -> Tensor:
        if self.scale.dim() == 0:  # as a number it multiplies in float32, whatever the dtype
            return raw.to(dtype).mul_(float(self.scale))
        if raw.shape[0] != self.shape[0]:
            raise ValueError("some rows of a weight with a factor per row cannot be unpacked alone")
        scale = self.scale.to(raw.device).view(-1, *[1] * (raw.dim() - 1))
        return (raw.float() * scale).to(dtype)


def _find(shapes: Shapes, dtypes: Dtypes, read: Read) -> dict[str, ScaledFloat8]:
    packings = {}
    for name in shapes:
        module, _, leaf = name.rpartition(".")
        weight = f"{module}.weight"
        if leaf not in _SCALES or dtypes.get(weight) not in FLOAT8:
            continue
        if math.prod(shapes[name]) in (1, *shapes[weight][:1]):
            scale = read(name).float()
            scale = scale.flatten() if scale.numel() > 1 else scale.reshape(())
            packings[weight] = ScaledFloat8(shapes[weight], scale)
    return packings


SCALED_FLOAT8 = Scheme(_find, _SCALES, ("float8_e4m3fn", "float8_e5m2"))
