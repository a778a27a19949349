"""Weights of 8-bit floats with a scale beside them, as ComfyUI's fp8_scaled files have them."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .notes import NOTE, noted, to_tensor
from .packing import Dtypes, Read, Scheme, Shapes

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
# in older and in newer files
_SCALES = ("scale_weight", "weight_scale")
_FORMATS = ("float8_e4m3fn", "float8_e5m2")


@dataclass(frozen=True)
class ScaledFloat8:
    """8-bit floats times one factor for the whole weight, or one per row."""

    shape: tuple[int, ...]
    scale: Tensor  # float32, [] or [rows]
    name: str = "fp8_scaled"

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape)

    def unpack(self, raw: Tensor, dtype: torch.dtype, rows: Tensor | None = None) -> Tensor:
        if self.scale.dim() == 0:  # as a number it multiplies in float32, whatever the dtype
            return raw.to(dtype).mul_(float(self.scale))
        scale = self.scale.to(raw.device) if rows is None else self.scale[rows.cpu()].to(raw.device)
        return (raw.float() * scale.view(-1, *[1] * (raw.dim() - 1))).to(dtype)


def _find(shapes: Shapes, dtypes: Dtypes, read: Read) -> dict[str, ScaledFloat8]:
    packings = {}
    notes = noted(shapes, dtypes, read)
    for name in shapes:
        module, _, leaf = name.rpartition(".")
        weight = f"{module}.weight"
        is_other = module in notes and notes[module]["format"] not in _FORMATS
        if leaf not in _SCALES or is_other or dtypes.get(weight) not in FLOAT8:
            continue
        if math.prod(shapes[name]) in (1, *shapes[weight][:1]):
            scale = read(name).float()
            scale = scale.flatten() if scale.numel() > 1 else scale.reshape(())
            packings[weight] = ScaledFloat8(shapes[weight], scale)
    return packings


def _pack(weight: Tensor, kind: str) -> dict[str, Tensor]:
    dtype = getattr(torch, kind)
    scale = (weight.float().abs().amax() / torch.finfo(dtype).max).clamp_min(1e-30)
    return {
        "weight": (weight.float() / scale).to(dtype),
        "weight_scale": scale,
        NOTE: to_tensor({"format": kind}),
    }


SCALED_FLOAT8 = Scheme(_find, _SCALES, _FORMATS, _pack)
