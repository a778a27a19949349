"""GGUF files: the header through the gguf package, tensors memory-mapped and packed as they are."""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .errors import CheckpointError
from .gguf_blocks import BLOCKS, dequantize, packed_width

_PLAIN = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
}  # fmt: skip
# tensors of more than four axes are stored flat by some converters, which note the real shape here
_SHAPE_NOTE = "comfy.gguf.orig_shape."


def _open(path: Path) -> Any:
    """The gguf package's reader, except that it takes arrays of numbers and of strings as a whole: element by
    element, the vocabulary of UMT5 takes it ten seconds."""
    from gguf import GGUFReader, GGUFValueType

    class Reader(GGUFReader):
        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            if raw_type != GGUFValueType.ARRAY or self.byte_order == "S":
                return super()._get_field_parts(orig_offs, raw_type)
            kind, count = self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)
            item, offset = GGUFValueType(kind[0]), orig_offs + 12
            parts = [kind, count]
            if item == GGUFValueType.STRING:
                raw = memoryview(self.data)  # type: ignore[arg-type]
                for _ in range(int(count[0])):
                    end = offset + 8 + int.from_bytes(raw[offset : offset + 8], "little")
                    parts.append(self.data[offset + 8 : end])
                    offset = end
            elif item in self.gguf_scalar_to_np:
                parts.append(self._get(offset, self.gguf_scalar_to_np[item], int(count[0])))
                offset += parts[-1].nbytes
            else:
                return super()._get_field_parts(orig_offs, raw_type)
            return offset - orig_offs, parts, list(range(2, len(parts))), [GGUFValueType.ARRAY, item]

    return Reader(path)


@dataclass(frozen=True)
class Blocks:
    """The packing of GGUF's block-quantised rows of bytes; name: their kind."""

    name: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape[:-1]) * packed_width(self.name, self.shape[-1])

    def unpack(self, raw: Tensor, dtype: torch.dtype) -> Tensor:
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
        try:
            self._reader = _open(path)
        except ImportError:
            raise CheckpointError(
                f"{path.name} is a GGUF file, which needs a package: pip install gguf"
            ) from None
        except Exception as error:  # a broken header ends the reader in many ways
            raise CheckpointError(
                f"{path} is damaged, cut short or no GGUF file ({error}): download it again"
            ) from None
        self.tensors: dict[str, Any] = {}
        for tensor in self._reader.tensors:
            kind = tensor.tensor_type.name
            if kind not in _PLAIN and kind not in BLOCKS:
                raise CheckpointError(
                    f"{path}: {tensor.name} is stored as {kind}, which cannot be read; get a file of type "
                    f"{', '.join(BLOCKS)}, F16 or BF16"
                )
            self.tensors[tensor.name] = tensor

    @property
    def names(self) -> list[str]:
        return list(self.tensors)

    @cached_property
    def metadata(self) -> dict[str, str]:
        """What the file calls itself."""
        fields = {
            key: self.field(f"general.{key}") for key in ("architecture", "name", "basename", "finetune")
        }
        return {key: value for key, value in fields.items() if isinstance(value, str)}

    @property
    def architecture(self) -> str:
        """What the file says it holds: "wan", "t5encoder", "flux" ...; empty where it does not say."""
        return self.field("general.architecture") or ""

    def field(self, key: str) -> Any:
        """A metadata field as plain Python values; None where there is none."""
        field = self._reader.get_field(key)
        return None if field is None else field.contents()

    def packing(self, name: str) -> Blocks | None:
        """How a tensor is packed; None where it is plain."""
        kind = self.tensors[name].tensor_type.name
        return None if kind in _PLAIN else Blocks(kind, self._shape(name))

    def header(self, name: str) -> tuple[tuple[int, ...], torch.dtype]:
        """Shape and dtype of a plain tensor; a packed one counts as bytes."""
        return self._shape(name), _PLAIN.get(self.tensors[name].tensor_type.name, torch.uint8)

    def _shape(self, name: str) -> tuple[int, ...]:
        noted = self.field(_SHAPE_NOTE + name)
        return tuple(noted or reversed(self.tensors[name].shape.tolist()))

    @cached_property
    def _bytes(self) -> Tensor:
        return torch.from_file(str(self.path), shared=False, size=self.path.stat().st_size, dtype=torch.uint8)

    def read(self, name: str) -> Tensor:
        """A plain tensor, or the packed one's rows of bytes [..., bytes per row]; memory-mapped."""
        tensor = self.tensors[name]
        start, kind = int(tensor.data_offset), tensor.tensor_type.name
        raw = self._bytes[start : start + int(tensor.n_bytes)]
        if kind in _PLAIN:
            return raw.view(_PLAIN[kind]).view(self._shape(name))
        return raw.view(*self._shape(name)[:-1], -1)
