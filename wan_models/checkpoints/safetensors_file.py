"""Safetensors files: the header is read when a file is opened, tensors when they are asked for."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .errors import CheckpointError, broken
from .packing import Packing

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
        self.metadata: dict[str, str] = {}
        self.entries = self._read_header()

    @property
    def names(self) -> list[str]:
        return list(self.entries)

    def _read_header(self) -> dict[str, Any]:
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise CheckpointError(f"{self.path} is {broken(size)}: download it again")
            try:
                header = json.loads(file.read(length))
                metadata = header.pop("__metadata__", None)
                end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
            except (ValueError, KeyError, TypeError, AttributeError, IndexError):
                raise CheckpointError(
                    f"{self.path} has a broken header: it is no safetensors file, or damaged"
                ) from None
        if size < 8 + length + end:
            missing = 8 + length + end - size
            raise CheckpointError(
                f"{self.path} is cut short, {missing:,} bytes are missing: download it again"
            )
        if not header:
            raise CheckpointError(f"{self.path} holds no tensors")
        self.metadata = {k: str(v) for k, v in metadata.items()} if isinstance(metadata, dict) else {}
        return header

    def header(self, name: str) -> tuple[tuple[int, ...], torch.dtype]:
        entry = self.entries[name]
        if entry["dtype"] not in _DTYPES:
            raise CheckpointError(f"{self.path}: {name} is of unknown type {entry['dtype']}")
        return tuple(entry["shape"]), _DTYPES[entry["dtype"]]

    @cached_property
    def _file(self) -> Any:
        try:
            return safe_open(self.path, framework="pt")
        except SafetensorError as error:
            raise CheckpointError(f"{self.path} cannot be read ({error}): download it again") from error

    def read(self, name: str) -> Tensor:
        return self._file.get_tensor(name)

    def packing(self, name: str) -> Packing | None:
        return None
