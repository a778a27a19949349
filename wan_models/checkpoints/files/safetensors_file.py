"""Safetensors files: the header is read when a file is opened, tensors when they are asked for."""

import math
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import CheckpointError, broken
from ..json_text import parse
from ..packed.packing import Packing
from .stamp import Stamp, fits

_MAX_HEADER = 100_000_000  # bytes, by the format's own rule
# dtypes by their names in the header
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16,
}  # fmt: skip


class SafetensorsFile:
    """One safetensors file; opened when the first tensor is asked for."""

    format: ClassVar[str] = "safetensors"
    suffixes: ClassVar[tuple[str, ...]] = (".safetensors", ".sft")

    @staticmethod
    def recognises(head: bytes) -> bool:
        length = int.from_bytes(head[:8], "little")  # of the header, which is JSON
        return length <= _MAX_HEADER and head[8:9] == b"{"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stamp = Stamp.of(path)
        self.metadata: dict[str, str] = {}
        self.entries = self._read_header()

    @property
    def names(self) -> list[str]:
        return list(self.entries)

    def _read_header(self) -> dict[str, Any]:
        size = self.stamp.size
        with self.path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise CheckpointError(f"{self.path} is {broken(size)}: download it again")
            if length > _MAX_HEADER:
                raise CheckpointError(f"{self.path} has a broken header: it claims {length:,} bytes for it")
            try:
                header = parse(file.read(length))
                if not isinstance(header, dict):
                    raise ValueError("it is no object")
                metadata = header.pop("__metadata__", None)
                end = max((_checked(name, entry) for name, entry in header.items()), default=0)
            except ValueError as error:
                raise CheckpointError(
                    f"{self.path} has a broken header ({error}): it is no safetensors file, or damaged"
                ) from None
        if size < 8 + length + end:
            missing = 8 + length + end - size
            raise CheckpointError(
                f"{self.path} is cut short, {missing:,} bytes are missing: download it again"
            )
        if not header:
            raise CheckpointError(f"{self.path} holds no tensors")
        if problem := _misplaced(header, size - 8 - length):
            raise CheckpointError(f"{self.path} is damaged, {problem}: download it again")
        if isinstance(metadata, dict):  # of texts, by the format's own rule
            self.metadata = {key: text for key, text in metadata.items() if isinstance(text, str)}
        return header

    def header(self, name: str) -> tuple[tuple[int, ...], torch.dtype]:
        entry = self.entries[name]
        if entry["dtype"] not in _DTYPES:
            raise CheckpointError(f"{self.path}: {name} is of unknown type {entry['dtype'][:80]}")
        return tuple(entry["shape"]), _DTYPES[entry["dtype"]]

    @cached_property
    def _file(self) -> Any:
        self.stamp.check()
        try:
            return safe_open(self.path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.path} cannot be read ({error}): download it again") from error

    def read(self, name: str) -> Tensor:
        self.header(name)
        file = self._file
        self.stamp.check()
        try:
            return file.get_tensor(name)
        except (SafetensorError, AttributeError) as error:  # a dtype that this version does not know
            raise CheckpointError(f"{self.path}: {name} cannot be read ({error})") from error

    def packing(self, name: str) -> Packing | None:
        return None


def _checked(name: str, entry: Any) -> int:
    """End of a tensor. Raises ValueError on what is no description of one, and on sizes that do not go together."""
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        raise ValueError(f"the dtype of {name[:200]} is missing")
    for field in ("shape", "data_offsets"):
        numbers = entry.get(field)
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
            raise ValueError(f"the {field} of {name[:200]} are no list of sizes")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"the data_offsets of {name[:200]} are no beginning and end")
    if not fits(shape, 2**63):
        raise ValueError(f"the shape of {name[:200]} is too large")
    size = _DTYPES[entry["dtype"]].itemsize if entry["dtype"] in _DTYPES else None
    if size is not None and math.prod(shape) * size != offsets[1] - offsets[0]:
        raise ValueError(f"{name[:200]} has {offsets[1] - offsets[0]:,} bytes for the shape {shape}")
    return offsets[1]


def _misplaced(header: dict[str, Any], size: int) -> str | None:
    """Why tensors do not lie one after another in `size` bytes, as the format has them; None where they do."""
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, stop = entry["data_offsets"]
        if start != end:
            return f"{name[:200]} {'lies on another tensor' if start < end else 'does not follow another tensor'}"
        end = stop
    return f"{size - end:,} bytes follow its tensors" if end < size else None
