"""Any checkpoint as one read-only mapping of names to tensors, memory-mapped and read when asked for.

Understands the formats of `files.formats`, sets of shards with an index or without, and folders with one file or set.
`open_checkpoint` gives the file as it is, `open_model` under the names of this package's models.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..files import visible_files
from . import keys
from .errors import CheckpointError
from .files.formats import SUFFIXES, WeightsFile, open_file
from .files.gguf_file import GGUFFile
from .files.safetensors_file import SafetensorsFile
from .files.stamp import Stamp
from .json_text import read_object
from .packed.notes import NOTE, Notes, of_older_file
from .packed.packing import Packing
from .packed.quantized import is_side_tensor, packings

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{1,9})-of-(?P<count>[0-9]{1,9})(?P<suffix>\.[^.]+)")

_NEWER = {"scale_weight": "weight_scale", "scale_input": "input_scale"}


@dataclass(frozen=True)
class _Entry:
    """One tensor: the file that reads it, its name there, and how it is packed."""

    file: WeightsFile | Notes
    name: str
    packing: Packing | None = None


class Checkpoint(Mapping[str, Tensor]):
    """Names to tensors, over one or several files. `shapes` and `dtypes` come from headers alone.

    A packed tensor (see `packed.packing`) reads as it is stored; its shape is that of the weight itself. `fault`: why
    the weights cannot be used although their names can be read. `scheme`: whose names the file itself has, of
    `keys.SCHEMES`; "" for official ones."""

    def __init__(
        self,
        path: Path,
        entries: dict[str, _Entry],
        kind: str,
        fault: str = "",
        scheme: str = "",
        beside: Mapping[str, Mapping[str, _Entry]] | None = None,
    ) -> None:
        self.path = path
        self.scheme = scheme
        self.format = kind
        self.fault = fault
        self._entries = entries
        self._beside = beside or {}

    @classmethod
    def of_file(cls, path: Path, file: WeightsFile, names: Any, kind: str) -> "Checkpoint":
        return cls(path, {name: _Entry(file, name) for name in names}, kind)

    def __getitem__(self, name: str) -> Tensor:
        entry = self._entries[name]
        return entry.file.read(entry.name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def packing(self, name: str) -> Packing | None:
        """Packing of a tensor; None where it reads as plain numbers."""
        return self._entries[name].packing

    def unpacked(self, name: str) -> Tensor:
        """A tensor as plain numbers; packed ones are unpacked to float32."""
        tensor, packing = self[name], self.packing(name)
        return tensor if packing is None else packing.unpack(tensor, torch.float32).view(packing.shape)

    def beside(self, name: str) -> dict[str, Tensor]:
        """Tensors beside a packed weight, note included, under the names that ComfyUI's newer files have."""
        tensors = {leaf: entry.file.read(entry.name) for leaf, entry in self._beside.get(name, {}).items()}
        if "scale_input" in tensors and float(tensors["scale_input"].float().max()) == 1:
            del tensors["scale_input"]  # older files have one everywhere
        return {_NEWER.get(leaf, leaf): tensor for leaf, tensor in tensors.items()}

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
        """The config.json of a model folder, or of a file's folder (it may be another model's); {} without one."""
        own = self.path.is_dir()
        file = (self.path if own else self.path.parent) / "config.json"
        try:
            return read_object(file) if file.is_file() else {}
        except CheckpointError:
            if own:
                raise
            return {}  # of something else, beside the file

    @cached_property
    def stamps(self) -> tuple[Stamp, ...]:
        """The files that the tensors are in, as they were when they were opened."""
        return tuple({entry.file.stamp: None for entry in self._entries.values()})

    @cached_property
    def metadata(self) -> dict[str, str]:
        """Text that the files carry beside their tensors."""
        files = {id(entry.file): entry.file for entry in self._entries.values()}
        merged: dict[str, str] = {}
        for file in files.values():
            merged |= file.metadata
        return merged

    @cached_property
    def gguf(self) -> GGUFFile | None:
        """The file's metadata where it is a GGUF file."""
        file = next((entry.file for entry in self._entries.values()), None)
        return file if isinstance(file, GGUFFile) else None

    def for_model(self) -> "Checkpoint":
        """The same under official names: the prefix and other parts of repackaged files dropped, foreign names
        translated, and the scales of fp8 weights taken in. Unknown quantised formats become its `fault`; raises
        CheckpointError where several models lie side by side."""
        entries = {_unwrapped(name): entry for name, entry in self._entries.items()}
        fault = ""
        try:
            files = {id(e.file): e.file for e in entries.values() if not isinstance(e.file, Notes)}
            for file in files.values():
                if (notes := Notes.of_metadata(file)) is not None:
                    entries |= _noted(notes, entries)
        except ValueError:
            fault = f"{self.path}: its metadata on quantised weights cannot be read. Download it again"
        try:
            prefix = keys.prefix_of(entries)
        except ValueError as error:
            raise CheckpointError(f"{self.path} {error}") from None
        if prefix:
            entries = {k.removeprefix(prefix): v for k, v in entries.items() if k.startswith(prefix)}
        names = tuple(entries)
        official = keys.to_official(names)
        if official is not None:
            entries = {official[name]: entry for name, entry in entries.items() if name in official}
        plain = Checkpoint(self.path, entries, self.format)
        if older := of_older_file(plain.shapes, plain.dtypes):
            entries |= _noted(Notes(self.stamps[0], older), entries)
            plain = Checkpoint(self.path, entries, self.format)
        packed = {}
        try:
            packed = packings(plain.shapes, plain.dtypes, plain.__getitem__)
        except ValueError as error:
            fault = fault or f"{self.path}: {error}"
        beside: dict[str, dict[str, _Entry]] = {name: {} for name in packed}
        for name, entry in entries.items():
            layer, _, leaf = name.rpartition(".")
            if is_side_tensor(name) and (weight := f"{layer}.weight") in beside:
                beside[weight][leaf] = entry
        entries = {
            name: replace(entry, packing=packed.get(name, entry.packing))
            for name, entry in entries.items()
            if not is_side_tensor(name)
        }
        return Checkpoint(self.path, entries, self.format, fault, keys.scheme_of(names), beside)


def _noted(notes: Notes, entries: Mapping[str, _Entry]) -> dict[str, _Entry]:
    """The notes on weights that are there."""
    candidates = {_unwrapped(name): _Entry(notes, name) for name in notes.names}
    return {name: note for name, note in candidates.items() if f"{name.removesuffix(NOTE)}weight" in entries}


def _unwrapped(name: str) -> str:
    for wrapper in keys.WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def open_model(path: str | Path) -> Checkpoint:
    """`open_checkpoint`, under the names of this package's models (see `Checkpoint.for_model`)."""
    return open_checkpoint(path).for_model()


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Opens a file or folder, and of a set of shards any one for all; reads headers only. Links are followed.

    Raises CheckpointError where it is absent, broken or unsafe."""
    path = Path(path)
    if "\0" in str(path):
        raise CheckpointError(f"{str(path)!r} is no name of a file")
    try:
        path.lstat()
        return _open(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except OSError as error:  # a name that is too long, a folder that may not be looked into, a failing disk
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None


def _open(path: Path) -> Checkpoint:
    if path.is_dir():
        return _open_folder(path)
    if path.is_symlink() and not path.exists():
        raise CheckpointError(f"{path} is a link to {path.readlink()}, where there is nothing")
    if not path.is_file():
        raise CheckpointError(f"{path} is neither a file nor a folder")
    if shard := shard_of(path.name):
        index = next((i for i in _indices(path.parent) if path.name in read_weight_map(i).values()), None)
        entries = _indexed(index) if index else _joined(path.parent, _set_of(shard))
        return Checkpoint(path, entries, "sharded " + next(iter(entries.values())).file.format)
    file = open_file(path)
    return Checkpoint(path, _entries(file), file.format)


def shard_of(name: str) -> re.Match[str] | None:
    """Stem, number, count and suffix of a file name such as model-00001-of-00002.safetensors; None of others."""
    match = _SHARD.fullmatch(name)
    return match if match and int(match["count"]) > 1 and match["suffix"].lower() in SUFFIXES else None


def _set_of(shard: re.Match[str]) -> tuple[str, str, str]:
    return shard["stem"], shard["count"], shard["suffix"]


def _entries(file: WeightsFile) -> dict[str, _Entry]:
    return {name: _Entry(file, name, file.packing(name)) for name in file.names}


def _indices(folder: Path) -> list[Path]:
    """The index files of a folder, those of safetensors alone where there are any."""
    indices = [file for file in visible_files(folder) if file.name.lower().endswith(".index.json")]
    return [file for file in indices if file.name.lower().endswith(".safetensors.index.json")] or indices


def _open_folder(folder: Path) -> Checkpoint:
    indices = _indices(folder)
    if len(indices) > 1:
        raise CheckpointError(
            f"{folder} holds several models ({', '.join(i.name for i in indices)}): keep one of them"
        )
    if indices:
        entries = _indexed(indices[0])
        return Checkpoint(folder, entries, "sharded " + next(iter(entries.values())).file.format)
    files = [file for file in visible_files(folder) if file.suffix.lower() in SUFFIXES]
    files = [file for file in files if file.suffix.lower() in SafetensorsFile.suffixes] or files
    if not files:
        raise CheckpointError(f"{folder} holds no .safetensors file: the download is not complete")
    sets = {_set_of(shard) if (shard := shard_of(f.name)) else f.name for f in files}
    if len(sets) > 1:
        raise CheckpointError(
            f"{folder} holds {len(files)} files of weights and no index file (*.safetensors.index.json) that says "
            "how they belong together: download the index too, or keep one file"
        )
    if isinstance(which := sets.pop(), tuple):
        entries = _joined(folder, which)
        return Checkpoint(folder, entries, "sharded " + next(iter(entries.values())).file.format)
    file = open_file(files[0])
    return Checkpoint(folder, _entries(file), file.format)


def _joined(folder: Path, which: tuple[str, str, str]) -> dict[str, _Entry]:
    """The tensors of a set of shards without an index: `which` is their stem, count and suffix."""
    shards = {
        int(shard["number"]): file
        for file in visible_files(folder)
        if (shard := shard_of(file.name)) and _set_of(shard) == which
    }
    stem, count, suffix = which
    total = int(count)
    if len(shards) < total or not all(1 <= number <= total for number in shards):
        absent = total - sum(1 <= number <= total for number in shards)
        lacking = (number for number in range(1, total + 1) if number not in shards)
        missing = [f"{stem}-{number:0{len(count)}}-of-{count}{suffix}" for number in islice(lacking, 9)]
        raise CheckpointError(
            f"{folder} holds {total - absent} of the {total} files of {stem}; missing: {', '.join(missing)}"
            f"{' ...' if absent > 9 else ''}. Download the rest into it"
        )
    return {
        name: entry
        for number in sorted(shards)
        for name, entry in _entries(open_file(shards[number])).items()
    }


def read_weight_map(index: Path) -> dict[str, str]:
    """Names of tensors to those of their shards, files in the index's own folder."""
    names = read_object(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise CheckpointError(f"{index} has no weight_map: download it again")
    for name, shard in names.items():
        if not isinstance(shard, str):
            raise CheckpointError(
                f"{index} places {name[:200]} in something that is no file's name: download it again"
            )
    for shard in set(names.values()):
        if not _is_file_name(shard):
            raise CheckpointError(
                f"{index} names {shard[:200]!r}, which is not a file of its own folder: not opened"
            )
    return names


def _is_file_name(text: str) -> bool:
    """Whether a text is a plain name of a file, on any system, and not a path to somewhere else."""
    is_plain = text not in ("", ".", "..") and not any(sign in text for sign in "/\\:\0")
    return is_plain and len(text.encode("utf-8")) <= 255


def _indexed(index: Path) -> dict[str, _Entry]:
    """The tensors of a set of shards with an index file."""
    names = read_weight_map(index)
    shards: dict[str, dict[str, _Entry]] = {}
    for shard in sorted(set(names.values())):
        if not (index.parent / shard).is_file():
            raise CheckpointError(f"{index} names {shard}, which is missing: download it into {index.parent}")
        shards[shard] = _entries(open_file(index.parent / shard))
    for name, shard in names.items():
        if name not in shards[shard]:
            raise CheckpointError(
                f"{index} places {name[:200]} in {shard}, which does not have it: download both again"
            )
    return {name: shards[shard][name] for name, shard in names.items()}
