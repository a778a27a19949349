"""PyTorch files, zipped and older, read without unpickling anything: code in a file never runs.

Which tensors there are is told by `pickled`; their values are mapped from where the file has them. Layouts are those
of torch.save: since 1.6 a zip archive, stored without compression, of data.pkl and a record data/<key> for each
storage; before, four pickles, the last of which lists the keys, and after it the storages in that order.
"""

import math
import zipfile
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import CheckpointError, broken
from ..packed.packing import Packing
from .pickled import MAX_BYTES, RefusedError, Storage, StoredTensor, run
from .stamp import MappedFile, fits

_ZIP, _OLD_TORCH = b"PK\3\4", b"\x80\x02\x8a\x0a"
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # the first two pickles of older files
# what trainers call the weights inside a larger file; the first that is there counts
_CONTAINERS = (
    "state_dict", "model_state_dict", "model", "module", "generator", "dit", "transformer", "network", "net", "weights",
    "params", "ema_state_dict", "model_ema", "ema_model", "generator_ema", "params_ema", "ema",
)  # fmt: skip
_Places = dict[str, tuple[int, int]]  # of storages by key: first byte, and bytes


class TorchFile:
    """One PyTorch file; its tensors are memory-mapped, or copied where they lie unaligned, as in older files."""

    format: ClassVar[str] = "pth"
    suffixes: ClassVar[tuple[str, ...]] = (".pth", ".pt", ".bin", ".ckpt")

    @staticmethod
    def recognises(head: bytes) -> bool:
        return head.startswith((_ZIP, _OLD_TORCH))

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: dict[str, str] = {}
        self._file = MappedFile(path)
        self.stamp = self._file.stamp
        try:
            with path.open("rb") as file:
                is_zip = file.read(4) == _ZIP
            data, self._places = (_read_zip if is_zip else _read_old)(path)
            self.tensors = self._unwrap(data)
            self._check_sizes()
        except RefusedError:
            raise CheckpointError(
                f"{path} holds more than weights, perhaps code, and was not opened: get a .safetensors version"
            ) from None
        except CheckpointError:
            raise
        except (ValueError, OSError, zipfile.BadZipFile, NotImplementedError, EOFError) as error:
            raise CheckpointError(
                f"{path} is {broken(self._file.size)} ({_first_line(error)}): download it again"
            ) from None

    @property
    def names(self) -> list[str]:
        return list(self.tensors)

    def _unwrap(self, data: Any) -> dict[str, StoredTensor]:
        # a checkpoint of training holds the weights beside other things
        holding = _mappings_of_tensors(data)
        seen: set[int] = set()
        while isinstance(data, Mapping) and id(data) not in seen:
            seen.add(id(data))  # what holds itself
            inner = {key: value for key, value in data.items() if id(value) in holding}
            container = next((name for name in _CONTAINERS if name in inner), None)
            if container is None and len(inner) > 1 and not _has_tensors(data):
                raise CheckpointError(
                    f"{self.path} holds several groups of weights ({_some(inner)}), none of which is called model or "
                    "state_dict: save the one that is meant as a file of its own"
                )
            if container is None and len(inner) != 1:
                break
            data = inner[container] if container is not None else next(iter(inner.values()))
        tensors = (
            {k: v for k, v in data.items() if isinstance(v, StoredTensor)}
            if isinstance(data, Mapping)
            else {}
        )
        if not tensors:
            raise CheckpointError(f"{self.path} holds no named tensors: it is no checkpoint of a model")
        return tensors

    def _check_sizes(self) -> None:
        """ValueError where a tensor claims more values than its storage has, and where all of them together claim far
        more than the file: some may share a storage, as tied weights do."""
        total = 0
        for name, tensor in self.tensors.items():
            _, stored = self._place(name)
            there = stored // tensor.dtype.itemsize
            last = tensor.offset + sum(
                (size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True)
            )
            is_empty = 0 in tensor.shape
            if not fits(tensor.shape, there) or not (is_empty or last < there):
                raise ValueError(f"{name[:200]} claims more values than are there")
            total += math.prod(tensor.shape) * tensor.dtype.itemsize
        if total > 2 * self._file.size + 2**20:
            raise ValueError(f"its tensors claim {total:,} bytes, and the file has {self._file.size:,}")

    def _place(self, name: str) -> tuple[int, int]:
        storage = self.tensors[name].storage
        start, there = self._places.get(storage.key, (0, 0))
        claimed = storage.count * storage.dtype.itemsize
        if claimed > there:
            raise ValueError(f"the values of {name[:200]} are not all there, {claimed:,} bytes of them")
        return start, claimed

    def header(self, name: str) -> tuple[tuple[int, ...], torch.dtype]:
        return self.tensors[name].shape, self.tensors[name].dtype

    def read(self, name: str) -> Tensor:
        tensor = self.tensors[name]
        start, stored = self._place(name)
        values = self._file.values(start, stored // tensor.dtype.itemsize, tensor.dtype)
        return values.as_strided(tensor.shape, tensor.strides, values.storage_offset() + tensor.offset)

    def packing(self, name: str) -> Packing | None:
        return None


def _read_zip(path: Path) -> tuple[Any, _Places]:
    """Result of data.pkl, and places of the storages. Raises ValueError where records are packed, or do not lie in
    the file one beside the other: then a small file could unfold to any size."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        records = archive.infolist()
        if not records:
            raise ValueError("it is an empty zip archive")
        root = records[0].filename.split("/")[0]
        by_name = {record.filename.removeprefix(f"{root}/"): record for record in records}
        if "constants.pkl" in by_name:
            raise RefusedError("TorchScript")
        if "data.pkl" not in by_name:
            raise ValueError("it is a zip archive without data.pkl")
        if any(record.compress_type != zipfile.ZIP_STORED or record.flag_bits & 1 for record in records):
            raise ValueError("it was packed once more: unpack it, or save it with torch.save")
        if sum(record.file_size for record in records) > size:
            raise ValueError("its records claim more than the file has")
        places = {
            name.removeprefix("data/"): (_start_of(file, record), record.file_size)
            for name, record in by_name.items()
            if name.startswith("data/") or name in ("data.pkl", "byteorder")
        }
        if any(start + length > size for start, length in places.values()):
            raise ValueError("a record of it ends behind the file")
        if "byteorder" in places and _content(file, places["byteorder"]) != b"little":
            raise ValueError("its numbers are of another byte order")
        return run(BytesIO(_content(file, places["data.pkl"]))), places


def _start_of(file: Any, record: zipfile.ZipInfo) -> int:
    """The first byte of a record's content, after its name and extra field, which are written before it once more."""
    file.seek(record.header_offset)
    header = file.read(30)
    if len(header) < 30 or not header.startswith(_ZIP):
        raise ValueError("a record of it is not where it should be")
    name, extra = (int.from_bytes(header[place : place + 2], "little") for place in (26, 28))
    if file.read(name) != record.orig_filename.encode("utf-8" if record.flag_bits & 0x800 else "cp437"):
        raise ValueError("a record of it lies in the place of another")
    return record.header_offset + 30 + name + extra


def _content(file: Any, place: tuple[int, int]) -> bytes:
    start, length = place
    if length > MAX_BYTES:
        raise ValueError(f"its list of tensors is {length:,} bytes long")
    file.seek(start)
    return file.read(length)


def _read_old(path: Path) -> tuple[Any, _Places]:
    """The same of a file of torch before 1.6."""
    size = path.stat().st_size
    with path.open("rb") as file:
        stream = BytesIO(file.read(MAX_BYTES))
        magic, protocol, system, data, keys = (run(stream) for _ in range(5))
        if (magic, protocol) != (_MAGIC, _PROTOCOL):
            raise ValueError("it does not begin as a PyTorch file")
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise ValueError("its numbers are of another byte order")
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise ValueError("its list of storages is broken")
        dtypes = {storage.key: storage.dtype for storage in _storages(data)}
        places, start = {}, stream.tell()
        for key in keys:
            file.seek(start)
            count, start = int.from_bytes(file.read(8), "little"), start + 8
            if key not in dtypes:
                raise ValueError(f"no tensor is of its storage {key[:80]!r}")
            places[key] = (start, count * dtypes[key].itemsize)
            start += places[key][1]
            if start > size:
                raise ValueError(f"{start - size:,} bytes are missing")
        return data, places


def _walk(data: Any) -> Iterator[Any]:
    """Everything in containers, each once: they may hold themselves, or the same thing any number of times."""
    seen: set[int] = set()
    waiting = [data]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield value
        if isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, (list, tuple)):
            waiting += value


def _storages(data: Any) -> Iterator[Storage]:
    for value in _walk(data):
        if isinstance(value, StoredTensor):
            yield value.storage
        elif isinstance(value, Storage):
            yield value


def _has_tensors(mapping: Mapping[str, Any]) -> bool:
    return any(isinstance(value, StoredTensor) for value in mapping.values())


def _mappings_of_tensors(data: Any) -> set[int]:
    """Ids of the mappings that hold tensors, themselves or in mappings in them."""
    mappings = {id(value): value for value in _walk(data) if isinstance(value, Mapping)}
    holders: dict[int, list[int]] = {}  # of each mapping, those that it is in
    for number, mapping in mappings.items():
        for value in mapping.values():
            if id(value) in mappings:
                holders.setdefault(id(value), []).append(number)
    ids: set[int] = set()
    waiting = [number for number, mapping in mappings.items() if _has_tensors(mapping)]
    while waiting:
        number = waiting.pop()
        if number not in ids:
            ids.add(number)
            waiting += holders.get(number, [])
    return ids


def _some(names: Mapping[str, Any]) -> str:
    shown = ", ".join(name[:80] for name in list(names)[:5])
    return shown + (" ..." if len(names) > 5 else "")


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).split("\n")[0][:300]
