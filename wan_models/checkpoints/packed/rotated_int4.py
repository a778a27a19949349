"""Rotated weights of 4 bits, two in a byte: whole numbers with a scale per row (convrot_w4a4), or places in a table
of 16 values with a scale per group and row (asym_w4a8_int8)."""

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from .notes import NOTE, option, to_tensor
from .packing import Dtypes, Packing, Read, Scheme, Shapes
from .quantized_layers import Layer, packings_of
from .rotation import check_group, rotate

_ROTATED = 256  # columns that are rotated together, where a note says nothing else
_GROUP = 16  # columns with a scale of their own, likewise
# the 16 values that approximate best what is distributed normally, as a part of the greatest of each group: the table
# that is in ComfyUI's files
_NORMAL = (
    -0.980602, -0.794529, -0.638165, -0.500986, -0.377321, -0.263187, -0.155210, -0.050720,
    0.052541, 0.156985, 0.265284, 0.379533, 0.502636, 0.638953, 0.794876, 0.980671,
)  # fmt: skip


@dataclass(frozen=True)
class RotatedInt4:
    """Whole numbers of -8 to 7 times the scale of their row, then rotated."""

    shape: tuple[int, ...]
    scale: Tensor  # float32, [rows, 1]
    rotated: int
    name: str = "convrot_w4a4"

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) // 2

    def unpack(self, raw: Tensor, dtype: torch.dtype, rows: Tensor | None = None) -> Tensor:
        scale = self.scale if rows is None else self.scale[rows.cpu()]
        whole = torch.tensor([*range(8), *range(-8, 0)], dtype=torch.float32)
        return rotate(_looked_up(raw, whole) * scale.to(raw.device), self.rotated).to(dtype)


@dataclass(frozen=True)
class TableInt4:
    """Places in a table times the scale of their group, as whole numbers times the scale of their row, then rotated."""

    shape: tuple[int, ...]
    table: Tensor  # float32, [16]
    scales: Tensor  # float8_e4m3fn or float32, [rows, groups]
    scale: Tensor  # float32, [rows, 1]
    rotated: int
    name: str = "asym_w4a8_int8"

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) // 2 + self.scales.nbytes

    def unpack(self, raw: Tensor, dtype: torch.dtype, rows: Tensor | None = None) -> Tensor:
        scales, scale = (
            (part if rows is None else part[rows.cpu()]).to(raw.device) for part in (self.scales, self.scale)
        )
        values = _looked_up(raw, self.table).unflatten(1, (scales.shape[1], -1)) * scales.float()[..., None]
        return rotate(values.flatten(1).round().clamp(-127, 127) * scale, self.rotated).to(dtype)


def _looked_up(raw: Tensor, table: Tensor) -> Tensor:
    """Bytes [rows, bytes] -> values of a table [rows, 2 x bytes], that of the lower half first."""
    pairs = torch.cartesian_prod(table, table).flip(1).to(raw.device)
    return pairs[raw.view(torch.uint8).int()].flatten(1)


def _plain(layer: Layer) -> RotatedInt4:
    rows, half = layer.matrix(torch.int8)
    rotated = check_group(option(layer.note, "convrot_groupsize", _ROTATED), 2 * half)
    return RotatedInt4((rows, 2 * half), layer.read("weight_scale").float().reshape(rows, 1), rotated)


def _table(layer: Layer) -> TableInt4:
    rows, half = layer.matrix(torch.int8)
    rotated = check_group(option(layer.note, "convrot_groupsize", _ROTATED), 2 * half)
    scales = layer.read("weight_s_rel")
    scales = scales.view(torch.float8_e4m3fn) if scales.dtype == torch.uint8 else scales
    table = torch.arange(-8.0, 8.0)
    if layer.has("weight_codebook"):
        table = layer.read("weight_codebook").float().reshape(16)
    if scales.dim() != 2 or len(scales) != rows or 2 * half % scales.shape[1]:
        raise ValueError(f"{list(scales.shape)} scales are not those of {[rows, 2 * half]} values")
    scale = layer.read("weight_s_channel").float().reshape(rows, 1)
    return TableInt4((rows, 2 * half), table, scales, scale, rotated)


def _find(shapes: Shapes, dtypes: Dtypes, read: Read) -> dict[str, Packing]:
    plain = packings_of("convrot_w4a4", _plain, shapes, dtypes, read)
    return plain | packings_of("asym_w4a8_int8", _table, shapes, dtypes, read)


def _halves(codes: Tensor) -> Tensor:
    codes = codes.to(torch.uint8) & 15
    return (codes[:, ::2] | codes[:, 1::2] << 4).view(torch.int8)


def _pack(weight: Tensor, kind: str) -> dict[str, Tensor]:
    if weight.shape[1] % _ROTATED:
        raise ValueError(f"{kind} has no place for {list(weight.shape)} values")
    values, note = rotate(weight.float(), _ROTATED), {"format": kind, "convrot_groupsize": _ROTATED}
    if kind == "convrot_w4a4":
        scale = (values.abs().amax(1, keepdim=True) / 7).clamp_min(1e-30)
        codes = (values / scale).round().clamp(-7, 7).to(torch.int8)
        return {"weight": _halves(codes), "weight_scale": scale.flatten(), NOTE: to_tensor(note)}
    groups = rearrange(values, "r (g c) -> r g c", c=_GROUP)
    scales = groups.abs().amax(-1).clamp_min(1e-30)
    scale = scales.amax(1, keepdim=True) / 127
    scales = (scales / scale).to(torch.float8_e4m3fn)
    table = torch.tensor(_NORMAL)
    parts = groups / (scale * scales.float().clamp_min(1e-30))[..., None]
    codes = torch.bucketize(parts, (table[1:] + table[:-1]) / 2).flatten(1)
    return {
        "weight": _halves(codes),
        "weight_s_rel": scales,
        "weight_s_channel": scale.flatten(),
        "weight_codebook": table,
        NOTE: to_tensor(note | {"group_size": _GROUP}),
    }


ROTATED_INT4 = Scheme(
    _find,
    ("weight_scale", "weight_s_rel", "weight_s_channel", "weight_codebook"),
    ("convrot_w4a4", "asym_w4a8_int8"),
    _pack,
)
