"""Weights that are stored packed: what a layer needs to know to use them one forward at a time.

A `Packing` goes with the raw tensor of one weight. Layers that understand it keep the raw tensor and unpack it
when they run; everything else is unpacked while loading.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .gguf_blocks import dequantize, packed_width

# beside a weight of scaled fp8 files, in the host's older and newer naming
_SCALES = ("scale_weight", "weight_scale")
# of the activations, for fp8 arithmetic; and what the host notes for its own layers
_NOT_NEEDED = ("scale_input", "input_scale", "comfy_quant")
MARKERS = ("scaled_fp8", "spiece_model")
"""Tensors of repackaged files that are no weights: the sign of scaled fp8, and a whole tokenizer."""

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
_FLOAT8_FORMATS = ("float8_e4m3fn", "float8_e5m2")


class Packing(Protocol):
    """How one weight is stored: `name` of the format, `shape` of the weight itself, `nbytes` that it takes."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def nbytes(self) -> int: ...

    def unpack(self, raw: Tensor, dtype: torch.dtype) -> Tensor:
        """The raw tensor, or some of its rows, -> values of `dtype` on the same device."""
        ...


@dataclass(frozen=True)
class Blocks:
    """GGUF's block-quantised rows of bytes."""

    name: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape[:-1]) * packed_width(self.name, self.shape[-1])

    def unpack(self, raw: Tensor, dtype: torch.dtype) -> Tensor:
        return dequantize(raw, self.name, dtype)


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


def scaled_float8(
    tensors: Mapping[str, Any], read: Any, dtypes: Mapping[str, Any]
) -> dict[str, ScaledFloat8]:
    """Packings of the fp8 weights that have a scale beside them; `tensors` maps names to shapes.

    Raises ValueError on quantised formats that are not plain scaled 8-bit floats."""
    packings = {}
    for name in tensors:
        module, _, leaf = name.rpartition(".")
        if leaf == "comfy_quant":
            _check_format(name, bytes(read(name).tolist()))
        weight = f"{module}.weight"
        if leaf not in _SCALES or weight not in tensors:
            continue
        scale, shape = read(name).float(), tensors[weight]
        if dtypes[weight] not in FLOAT8 or scale.numel() not in (1, shape[0]):
            raise ValueError(
                f"{weight} is stored as {str(dtypes[weight]).removeprefix('torch.')} with a scale of "
                f"{list(scale.shape)}: of this kind only 8-bit floats with one scale per weight or row can be read. "
                "Get the fp8_scaled, bf16 or GGUF version of the model"
            )
        scale = scale.flatten() if scale.numel() > 1 else scale.reshape(())
        packings[weight] = ScaledFloat8(shape, scale)
    return packings


def _check_format(name: str, described: bytes) -> None:
    try:
        found = json.loads(described)["format"]
    except (ValueError, KeyError, TypeError):
        found = "unreadable"
    if found not in _FLOAT8_FORMATS:
        raise ValueError(
            f"{name} says that the weight's format is {found!r}; of the host's quantised formats "
            f"{' and '.join(_FLOAT8_FORMATS)} can be read. Get another version of the model"
        )


def is_side_tensor(name: str) -> bool:
    """Whether a tensor only describes how another is stored."""
    leaf = name.rpartition(".")[2]
    return leaf in _SCALES or leaf in _NOT_NEEDED or name in MARKERS
