"""The header of a GGUF file: its metadata, and where its tensors are.

Layout: ggml/docs/gguf.md of ggml-org/ggml, versions 2 and 3, little-endian. Every count and length is compared with
what is left of the file before it is believed, so that reading takes no more time and memory than the header's size.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

MAX_BYTES = 32 * 2**20
"""Limit of a header; that of UMT5-XXL with its vocabulary has 7 MB."""
MAX_AXES = 8
_MAX_NESTING = 4  # of arrays in arrays, which nobody writes
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
# of single values by their number in the format
_NUMBERS = {
    0: np.uint8, 1: np.int8, 2: np.uint16, 3: np.int16, 4: np.uint32, 5: np.int32, 6: np.float32, 7: np.bool_,
    10: np.uint64, 11: np.int64, 12: np.float64,
}  # fmt: skip


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: its axes, slowest first; the number of its kind in ggml; and its first byte in the file."""

    shape: tuple[int, ...]
    kind: int
    start: int


@dataclass(frozen=True)
class GGUFHeader:
    """`fields`: names to texts, numbers, and lists of them. `tensors` by name, in the file's order."""

    fields: dict[str, Any]
    tensors: dict[str, TensorInfo]


def read_header(path: Path) -> GGUFHeader:
    """Raises ValueError where a file is none of this format, damaged or cut short; the text says in which field."""
    with path.open("rb") as file:
        cursor = _Cursor(file, path.stat().st_size)
        if cursor.take(4) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        version = cursor.number("I")
        if version not in _VERSIONS:
            is_swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS
            raise ValueError(
                "its numbers are of another byte order" if is_swapped else f"it is of version {version}"
            )
        tensors, fields = cursor.number("Q"), cursor.number("Q")
        cursor.expect(tensors, 24, "tensors")
        cursor.expect(fields, 13, "fields")
        metadata = _fields(cursor, fields)
        infos = _tensors(cursor, tensors)
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 0 < alignment <= 2**20 or alignment & (alignment - 1):
            raise ValueError(f"general.alignment is {str(alignment)[:40]}, and must be a power of two")
        data = -(-cursor.place // alignment) * alignment
        moved = {name: TensorInfo(info.shape, info.kind, data + info.start) for name, info in infos.items()}
        return GGUFHeader(metadata, moved)


def _fields(cursor: "_Cursor", count: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for _ in range(count):
        name = cursor.text("the name of a field")
        if name in metadata:
            raise ValueError(f"the field {name[:200]} is there twice")
        metadata[name] = cursor.value(cursor.number("I"), name[:200])
    return metadata


def _tensors(cursor: "_Cursor", count: int) -> dict[str, TensorInfo]:
    infos: dict[str, TensorInfo] = {}
    for _ in range(count):
        name = cursor.text("the name of a tensor")
        if name in infos:
            raise ValueError(f"the tensor {name[:200]} is there twice")
        axes = cursor.number("I")
        if axes > MAX_AXES:
            raise ValueError(f"{name[:200]} has {axes} axes")
        sizes = [cursor.number("Q") for _ in range(axes)]
        kind, start = cursor.number("I"), cursor.number("Q")
        if math.prod(sizes) >= 2**63 or max(sizes, default=0) >= 2**63:
            raise ValueError(f"{name[:200]} has {' x '.join(map(str, sizes))} values")
        infos[name] = TensorInfo(tuple(reversed(sizes)), kind, start)
    return infos


class _Cursor:
    """A place in the header; ValueError where something would end behind the file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.place = 0
        self._file = file
        self._left = min(size, MAX_BYTES)
        self._is_bounded = size > MAX_BYTES

    def take(self, count: int, what: str = "its header") -> bytes:
        self.expect(count, 1, what)
        raw = self._file.read(count)
        if len(raw) != count:
            raise ValueError("it was cut short while it was read")
        self.place += count
        self._left -= count
        return raw

    def expect(self, count: int, least: int, what: str) -> None:
        """ValueError unless as many things of at least `least` bytes may follow."""
        if count * least > self._left:
            limit = f"more than {MAX_BYTES:,} bytes" if self._is_bounded else "more than the file"
            raise ValueError(f"{what} would take {limit}")

    def number(self, code: str) -> int:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def text(self, what: str) -> str:
        raw = self.take(self.number("Q"), what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"{what} is no UTF-8 text") from None

    def value(self, kind: int, name: str, depth: int = 0) -> Any:
        """A field's value as plain Python objects."""
        if kind in _NUMBERS:
            return self._numbers(kind, 1, name)[0]
        if kind == _STRING:
            return self.text(name)
        if kind != _ARRAY or depth > _MAX_NESTING:
            raise ValueError(f"{name} is of an unknown type ({kind})")
        item, count = self.number("I"), self.number("Q")
        if item in _NUMBERS:
            return self._numbers(item, count, name)
        self.expect(count, 8, name)  # texts and arrays begin with their length
        return [self.value(item, name, depth + 1) for _ in range(count)]

    def _numbers(self, kind: int, count: int, name: str) -> list[Any]:
        dtype = np.dtype(_NUMBERS[kind]).newbyteorder("<")
        self.expect(count, dtype.itemsize, name)
        return np.frombuffer(self.take(count * dtype.itemsize, name), dtype).tolist()
