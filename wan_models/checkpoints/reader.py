"""Any checkpoint as one read-only mapping of names to tensors, memory-mapped and read when asked for.

Understands a safetensors file, a folder of safetensors shards with their index, a folder with one safetensors
file, GGUF files, and PyTorch files (.pth, .pt, .bin), which are read with `weights_only=True`: code in a file
never runs. `open_checkpoint` gives the file as it is, `open_model` under the names of this package's models.
"""

import json
import math
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from . import keys
from .gguf_file import GGUFFile
from .quantized import Packing, is_side_tensor, scaled_float8

PREFIXES = ("model.diffusion_model.", "diffusion_model.")
"""What repackaged files put before every name."""

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
# header names of safetensors dtypes
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


class CheckpointError(ValueError):
    """A checkpoint that cannot be used, with the file, what is wrong with it, and what to do."""


@dataclass(frozen=True)
class _Entry:
    """One tensor: the file that reads it, its name there, and how it is packed."""

    file: Any
    name: str
    packing: Packing | None = None


class Checkpoint(Mapping[str, Tensor]):
    """Names to tensors, over one or several files. `shapes` and `dtypes` come from headers alone.

    A packed tensor (see `packing`) reads as it is stored; its shape is that of the weight itself."""

    def __init__(self, path: Path, entries: dict[str, _Entry], kind: str) -> None:
        self.path = path
        self.format = kind
        self._entries = entries

    @classmethod
    def of_file(cls, path: Path, file: Any, names: Any, kind: str) -> "Checkpoint":
        return cls(path, {name: _Entry(file, name) for name in names}, kind)

    def __getitem__(self, name: str) -> Tensor:
        entry = self._entries[name]
        return entry.file.read(entry.name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def packing(self, name: str) -> Packing | None:
        """How a tensor is packed; None where it reads as plain numbers."""
        return self._entries[name].packing

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {
            name: entry.packing.shape if entry.packing else entry.file.header(entry.name)[0]
            for name, entry in self._entries.items()
        }

    @cached_property
    def dtypes(self) -> dict[str, torch.dtype]:
        return {name: entry.file.header(entry.name)[1] for name, entry in self._entries.items()}

    @cached_property
    def stored_bytes(self) -> int:
        """Bytes of all tensors as they are stored."""
        return sum(
            packing.nbytes
            if (packing := self.packing(name))
            else math.prod(shape) * self.dtypes[name].itemsize
            for name, shape in self.shapes.items()
        )

    @cached_property
    def config(self) -> dict[str, Any]:
        """The config.json of a model folder, or {}."""
        folder = self.path if self.path.is_dir() else self.path.parent
        file = folder / "config.json"
        return _read_json(file) if file.is_file() else {}

    @cached_property
    def gguf(self) -> GGUFFile | None:
        """The file's metadata where it is a GGUF file."""
        file = next((entry.file for entry in self._entries.values()), None)
        return file if isinstance(file, GGUFFile) else None

    def for_model(self) -> "Checkpoint":
        """The same under official names: the prefix and other parts of repackaged files dropped, foreign names
        translated, and the scales of fp8 weights taken in. Raises CheckpointError on unknown quantised formats."""
        entries = self._entries
        for prefix in PREFIXES:
            if any(name.startswith(prefix) for name in entries):
                entries = {k.removeprefix(prefix): v for k, v in entries.items() if k.startswith(prefix)}
                break
        official = keys.to_official(entries)
        if official is not None:
            entries = {official[name]: entry for name, entry in entries.items() if name in official}
        plain = Checkpoint(self.path, entries, self.format)
        try:
            scaled = scaled_float8(plain.shapes, plain.__getitem__, plain.dtypes)
        except ValueError as error:
            raise CheckpointError(f"{self.path}: {error}") from None
        entries = {
            name: replace(entry, packing=scaled.get(name, entry.packing))
            for name, entry in entries.items()
            if not is_side_tensor(name)
        }
        return Checkpoint(self.path, entries, self.format)


def open_model(path: str | Path) -> Checkpoint:
    """`open_checkpoint`, under the names of this package's models (see `Checkpoint.for_model`)."""
    return open_checkpoint(path).for_model()


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Opens a file or folder; reads headers only. Raises CheckpointError where it is absent, broken or unsafe."""
    path = Path(path)
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist")
    if path.suffix in TORCH_SUFFIXES:
        file = _TorchFile(path)
        return Checkpoint.of_file(path, file, file.tensors, "pth")
    if path.suffix in (".safetensors", ".sft"):
        shard = _SafetensorsFile(path)
        return Checkpoint.of_file(path, shard, shard.entries, "safetensors")
    if path.suffix == ".gguf":
        return _open_gguf(path)
    raise CheckpointError(
        f"{path} is no checkpoint: expected .safetensors, .gguf, {', '.join(TORCH_SUFFIXES)} or a folder"
    )


def _open_gguf(path: Path) -> Checkpoint:
    try:
        file = GGUFFile(path)
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    return Checkpoint(path, {name: _Entry(file, name, file.packing(name)) for name in file.tensors}, "GGUF")


def _open_folder(folder: Path) -> Checkpoint:
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if len(indices) > 1:
        raise CheckpointError(
            f"{folder} holds several models ({', '.join(i.name for i in indices)}): keep one of them"
        )
    if indices:
        return _open_index(indices[0])
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{folder} holds no .safetensors file: the download is not complete")
    if len(files) > 1:
        raise CheckpointError(
            f"{folder} holds {len(files)} .safetensors files and no index file (*.safetensors.index.json) that says "
            "how they belong together: download the index too, or keep one file"
        )
    shard = _SafetensorsFile(files[0])
    return Checkpoint.of_file(folder, shard, shard.entries, "safetensors")


def _open_index(index: Path) -> Checkpoint:
    names = _read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise CheckpointError(f"{index} has no weight_map: download it again")
    shards: dict[str, _SafetensorsFile] = {}
    for shard in sorted(set(names.values())):
        if Path(shard).name != shard:
            raise CheckpointError(
                f"{index} names {shard!r}, which is not a file of its own folder: not opened"
            )
        if not (index.parent / shard).is_file():
            raise CheckpointError(f"{index} names {shard}, which is missing: download it into {index.parent}")
        shards[shard] = _SafetensorsFile(index.parent / shard)
    for name, shard in names.items():
        if name not in shards[shard].entries:
            raise CheckpointError(
                f"{index} places {name} in {shard}, which does not have it: download both again"
            )
    return Checkpoint(
        index.parent,
        {name: _Entry(shards[shard], name) for name, shard in names.items()},
        "sharded safetensors",
    )


class _SafetensorsFile:
    """One safetensors file; opened when the first tensor is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries = self._read_header()

    def _read_header(self) -> dict[str, Any]:
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise CheckpointError(f"{self.path} is {_broken(size)}: download it again")
            try:
                header = json.loads(file.read(length))
                header.pop("__metadata__", None)
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


class _TorchFile:
    """One PyTorch file, memory-mapped; nothing but tensors and plain containers is ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path
        size = path.stat().st_size
        try:
            data = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError as error:
            if size and "weights_only" in str(error).lower().replace(" ", "_"):
                raise CheckpointError(
                    f"{path} holds more than weights, perhaps code, and was not opened: get a .safetensors version"
                ) from None
            raise CheckpointError(f"{path} is {_broken(size)}: download it again") from None
        except (RuntimeError, EOFError, OSError, ValueError) as error:
            raise CheckpointError(
                f"{path} is {_broken(size)} ({_first_line(error)}): download it again"
            ) from None
        self.tensors = self._unwrap(data)

    def _unwrap(self, data: Any) -> dict[str, Tensor]:
        # a checkpoint of training holds the weights beside other things
        if isinstance(data, dict) and isinstance(data.get("state_dict"), dict):
            data = data["state_dict"]
        while isinstance(data, dict) and len(inner := [v for v in data.values() if isinstance(v, dict)]) == 1:
            data = inner[0]
        tensors = {k: v for k, v in data.items() if isinstance(v, Tensor)} if isinstance(data, dict) else {}
        if not tensors:
            raise CheckpointError(f"{self.path} holds no named tensors: it is no checkpoint of a model")
        return tensors

    def header(self, name: str) -> tuple[tuple[int, ...], torch.dtype]:
        return tuple(self.tensors[name].shape), self.tensors[name].dtype

    def read(self, name: str) -> Tensor:
        return self.tensors[name]


def _broken(size: int) -> str:
    return "empty" if size == 0 else "damaged or cut short"


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0]


def _read_json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{file} cannot be read as JSON ({error}): download it again") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{file} is not a JSON object: download it again")
    return data
