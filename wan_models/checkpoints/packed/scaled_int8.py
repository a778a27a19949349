"""Weights of 8-bit whole numbers with a scale for all or one for each row, rotated or not (int8_tensorwise)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .notes import NOTE, option, to_tensor
from .packing import Dtypes, Packing, Read, Scheme, Shapes
from .quantized_layers import Layer, packings_of
from .rotation import check_group, rotate

_GROUP = 256  # columns that are rotated together, where a note says nothing else


@dataclass(frozen=True)
class ScaledInt8:
    """Whole numbers of -128 to 127 times a scale, then rotated in groups of so many columns, 0 of none."""

    shape: tuple[int, ...]
    scale: Tensor  # float32, [1, 1] or [rows, 1]
    group: int = 0
    name: str = "int8_tensorwise"

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape)

    def unpack(self, raw: Tensor, dtype: torch.dtype, rows: Tensor | None = None) -> Tensor:
        each = rows is not None and len(self.scale) > 1
        values = raw.float() * (self.scale[rows.cpu()] if each else self.scale).to(raw.device)  # type: ignore[union-attr]
        return (rotate(values, self.group) if self.group else values).to(dtype)


def _packing(layer: Layer) -> ScaledInt8:
    rows, columns = layer.matrix(torch.int8)
    scale = layer.read("weight_scale").float().reshape(-1, 1)
    if len(scale) not in (1, rows):
        raise ValueError(f"{len(scale)} scales are not those of {rows} rows")
    is_rotated = option(layer.note, "convrot", False)
    group = check_group(option(layer.note, "convrot_groupsize", _GROUP), columns) if is_rotated else 0
    return ScaledInt8((rows, columns), scale, group)


def _find(shapes: Shapes, dtypes: Dtypes, read: Read) -> dict[str, Packing]:
    return packings_of("int8_tensorwise", _packing, shapes, dtypes, read)


def _pack(weight: Tensor, kind: str) -> dict[str, Tensor]:
    """Packs with a scale for each row, rotated where the columns allow it."""
    values, note = weight.float(), {"format": kind}
    if weight.shape[1] % _GROUP == 0:
        values = rotate(values, _GROUP)
        note |= {"convrot": True, "convrot_groupsize": _GROUP}  # type: ignore[dict-item]
    scale = (values.abs().amax(1, keepdim=True) / 127).clamp_min(1e-30)
    return {
        "weight": (values / scale).round().clamp(-128, 127).to(torch.int8),
        "weight_scale": scale,
        NOTE: to_tensor(note),
    }


SCALED_INT8 = Scheme(_find, ("weight_scale",), ("int8_tensorwise",), _pack)
