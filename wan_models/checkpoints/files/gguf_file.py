"""GGUF files: tensors memory-mapped and packed as they are."""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..packed.gguf_blocks import BLOCKS, dequantize, packed_width
from .gguf_header import read_header
from .stamp import MappedFile

_PLAIN = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
}  # fmt: skip
# ggml's numbers of these kinds and of those in `gguf_blocks` (enum ggml_type)
_KINDS = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K",
    13: "Q5_K", 14: "Q6_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S",
    22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 30: "BF16",
    34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4",
}  # fmt: skip
# tensors of more than four axes are stored flat by some converters, which note the real shape here
_SHAPE_NOTE = "comfy.gguf.orig_shape."


@dataclass(frozen=True)
class Blocks:
    """The packing of GGUF's block-quantised rows of bytes; name: their kind."""

    name: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape[:-1]) * packed_width(self.name, self.shape[-1])

    def unpack(self, raw: Tensor, dtype: torch.dtype, rows: Tensor | None = None) -> Tensor:
        return dequantize(raw, self.name, dtype)


class GGUFFile:
    """One GGUF file. Raises CheckpointError where it is none, or cut short, or holds an unknown kind of blocks."""

    format: ClassVar[str] = "GGUF"
    suffixes: ClassVar[tuple[str, ...]] = (".gguf",)

    @staticmethod
    def recognises(head: bytes) -> bool:
        return head.startswith(b"GGUF")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = MappedFile(path)
        self.stamp = self._file.stamp
        try:
            header = read_header(path)
        except (ValueError, OSError) as error:
            raise CheckpointError(
                f"{path} is damaged, cut short or no GGUF file ({error}): download it again"
            ) from None
        self._fields, self.tensors = header.fields, header.tensors
        if not self.tensors:
            raise CheckpointError(f"{path} holds no tensors")
        self._check_sizes()

    def _check_sizes(self) -> None:
        """CheckpointError where a tensor cannot be read, ends behind the file, or lies on another."""
        ends = 0
        for name, info in sorted(self.tensors.items(), key=lambda item: item[1].start):
            kind, shape = self._kind(name), self._shape(name)
            if kind not in _PLAIN and kind not in BLOCKS:
                raise CheckpointError(
                    f"{self.path}: {name} is stored as {kind}, which cannot be read; get a file of type "
                    f"{', '.join(BLOCKS)}, F16 or BF16"
                )
            if math.prod(shape) != math.prod(info.shape):
                raise CheckpointError(
                    f"{self.path}: {name} has the shape {list(info.shape)}, and {_SHAPE_NOTE}{name} says {list(shape)}"
                )
            try:
                size = self._nbytes(name)
            except ValueError as error:
                raise CheckpointError(
                    f"{self.path}: {name} is damaged ({error}): download it again"
                ) from None
            if info.start + size > self._file.size:
                missing = info.start + size - self._file.size
                raise CheckpointError(
                    f"{self.path} is cut short, {missing:,} bytes of {name} are missing: download it again"
                )
            if size and info.start < ends:
                raise CheckpointError(f"{self.path}: {name} lies on another tensor: download it again")
            ends = max(ends, info.start + size)

    @property
    def names(self) -> list[str]:
        return list(self.tensors)

    @cached_property
    def metadata(self) -> dict[str, str]:
        """Names from the `general` fields."""
        fields = {
            key: self.field(f"general.{key}") for key in ("architecture", "name", "basename", "finetune")
        }
        return {key: value for key, value in fields.items() if isinstance(value, str)}

    @property
    def architecture(self) -> str:
        """Architecture that the file states: "wan", "t5encoder", "flux" ...; empty where none."""
        return self.metadata.get("architecture", "")

    def field(self, key: str) -> Any:
        """A metadata field as plain Python values; None where there is none."""
        return self._fields.get(key)

    def packing(self, name: str) -> Blocks | None:
        """Packing of a tensor; None where it is plain."""
        kind = self._kind(name)
        return None if kind in _PLAIN else Blocks(kind, self._shape(name))

    def header(self, name: str) -> tuple[tuple[int, ...], torch.dtype]:
        """Shape and dtype of a plain tensor; a packed one counts as bytes."""
        return self._shape(name), _PLAIN.get(self._kind(name), torch.uint8)

    def _kind(self, name: str) -> str:
        number = self.tensors[name].kind
        return _KINDS.get(number, f"kind {number} of ggml's")

    def _shape(self, name: str) -> tuple[int, ...]:
        noted = self.field(_SHAPE_NOTE + name)
        if noted is None:
            return self.tensors[name].shape
        if not isinstance(noted, list) or not all(type(size) is int and size >= 0 for size in noted):
            raise CheckpointError(f"{self.path}: {_SHAPE_NOTE}{name} is no list of sizes")
        return tuple(noted)

    def _nbytes(self, name: str) -> int:
        kind, shape = self._kind(name), self._shape(name)
        if kind in _PLAIN:
            return math.prod(shape) * _PLAIN[kind].itemsize
        if not shape:
            raise ValueError("a single value is no block")
        return Blocks(kind, shape).nbytes

    def read(self, name: str) -> Tensor:
        """A plain tensor, or the packed one's rows of bytes [..., bytes per row]; memory-mapped."""
        kind, shape = self._kind(name), self._shape(name)
        dtype = _PLAIN.get(kind, torch.uint8)
        raw = self._file.values(self.tensors[name].start, self._nbytes(name) // dtype.itemsize, dtype)
        return raw.view(shape) if kind in _PLAIN else raw.view(*shape[:-1], packed_width(kind, shape[-1]))
