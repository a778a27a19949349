"""One file of weights of each format, told by its first bytes: safetensors, PyTorch (zip and older), GGUF.

Headers are read when a file is opened, tensors when they are asked for. PyTorch files are read with
`weights_only=True`: code in a file never runs.
"""

import json
import pickle
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .gguf_file import GGUFFile
from .quantized import Packing

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
SAFETENSORS_SUFFIXES = (".safetensors", ".sft")
SUFFIXES = (*SAFETENSORS_SUFFIXES, ".gguf", *TORCH_SUFFIXES)

_ZIP, _OLD_TORCH, _GGUF = b"PK\3\4", b"\x80\x02\x8a\x0a", b"GGUF"
# header names of safetensors dtypes
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16,
}  # fmt: skip
# what trainers call the weights inside a larger file; the first that is there counts
_CONTAINERS = (
    "state_dict", "model_state_dict", "model", "module", "generator", "dit", "transformer", "network", "net", "weights",
    "params", "ema_state_dict", "model_ema", "ema_model", "generator_ema", "params_ema", "ema",
)  # fmt: skip


class CheckpointError(ValueError):
    """A checkpoint that cannot be used, with the file, what is wrong with it, and what to do."""


class WeightsFile(Protocol):
    """One opened file."""

    format: str

    @property
    def metadata(self) -> Mapping[str, str]:
        """Text that the file carries beside its tensors."""
        ...

    @property
    def names(self) -> list[str]: ...

    def header(self, name: str) -> tuple[tuple[int, ...], torch.dtype]: ...

    def read(self, name: str) -> Tensor: ...

    def packing(self, name: str) -> Packing | None: ...


def open_file(path: Path) -> WeightsFile:
    """Opens a file by what is in it, else by its ending. Raises CheckpointError where it is none of the formats,
    broken, or something else that was saved in the place of a model."""
    if path.suffix.lower() not in SUFFIXES:
        raise CheckpointError(f"{path} is no checkpoint: expected {', '.join(SUFFIXES)} or a folder")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    if problem := _no_model(head):
        raise CheckpointError(f"{path} is {problem}")
    if head.startswith(_GGUF):
        return _GGUF_file(path)
    if head.startswith((_ZIP, _OLD_TORCH)):
        return _TorchFile(path)
    if head[8:9] == b"{" or path.suffix.lower() in SAFETENSORS_SUFFIXES:
        return _SafetensorsFile(path)
    return _GGUF_file(path) if path.suffix.lower() == ".gguf" else _TorchFile(path)


def _no_model(head: bytes) -> str | None:
    """What a file is that holds no model at all, and what to do; None where it may be one."""
    if not head:
        return "empty: download it again"
    if head.startswith(b"version https://git-lfs"):
        return (
            "a Git LFS pointer, not the file that it stands for: run git lfs pull in its folder, or download the file "
            "from its page"
        )
    if head.startswith(b"\0\5\x16\7"):
        return "what macOS keeps beside a file (AppleDouble), not the file: copy the one without ._ before its name"
    if not any(head):
        return "only zeros at its beginning, as an interrupted download leaves: download it again"
    if head.lstrip()[:1] == b"<":
        return "a web page that was saved in the place of the model (a login or an expired link): download it again"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return f"text, not a model; it begins with {head[:40].decode()!r}: download it again"
    return None


def _GGUF_file(path: Path) -> GGUFFile:
    try:
        return GGUFFile(path)
    except ValueError as error:
        raise CheckpointError(str(error)) from None


class _SafetensorsFile:
    """One safetensors file; opened when the first tensor is asked for."""

    format = "safetensors"

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
                raise CheckpointError(f"{self.path} is {_broken(size)}: download it again")
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


class _TorchFile:
    """One PyTorch file, memory-mapped where its format allows; only tensors and plain containers are unpickled."""

    format = "pth"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: dict[str, str] = {}
        size = path.stat().st_size
        try:
            with path.open("rb") as file:
                # files of torch before 1.6 are no zip files; and torch takes any path of .safetensors for such a file
                is_mapped = file.read(4) == _ZIP and path.suffix.lower() in TORCH_SUFFIXES
                file.seek(0)
                source: Any = path if is_mapped else file
                data = torch.load(source, map_location="cpu", weights_only=True, mmap=is_mapped)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError) as error:
            said = str(error).lower()
            if (
                "unsupported global" in said
                or "torchscript" in said
                or "disallowed" in said
                or "unsupported class" in said
            ):
                raise CheckpointError(
                    f"{path} holds more than weights, perhaps code, and was not opened: get a .safetensors version"
                ) from None
            raise CheckpointError(
                f"{path} is {_broken(size)} ({_first_line(error)}): download it again"
            ) from None
        self.tensors = self._unwrap(data)

    @property
    def names(self) -> list[str]:
        return list(self.tensors)

    def _unwrap(self, data: Any) -> dict[str, Tensor]:
        # a checkpoint of training holds the weights beside other things
        while isinstance(data, Mapping):
            inner = {key: value for key, value in data.items() if _holds_tensors(value)}
            known = next((name for name in _CONTAINERS if name in inner), None)
            if known is None and len(inner) > 1 and not any(isinstance(v, Tensor) for v in data.values()):
                raise CheckpointError(
                    f"{self.path} holds several groups of weights ({', '.join(map(str, inner))}), none of which is "
                    "called model or state_dict: save the one that is meant as a file of its own"
                )
            if known is None and len(inner) != 1:
                break
            data = inner[known] if known is not None else next(iter(inner.values()))
        tensors = (
            {k: v for k, v in data.items() if isinstance(v, Tensor)} if isinstance(data, Mapping) else {}
        )
        if not tensors:
            raise CheckpointError(f"{self.path} holds no named tensors: it is no checkpoint of a model")
        return tensors

    def header(self, name: str) -> tuple[tuple[int, ...], torch.dtype]:
        return tuple(self.tensors[name].shape), self.tensors[name].dtype

    def read(self, name: str) -> Tensor:
        return self.tensors[name]

    def packing(self, name: str) -> Packing | None:
        return None


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(
        isinstance(inner, Tensor) or _holds_tensors(inner) for inner in value.values()
    )


def _broken(size: int) -> str:
    return "empty" if size == 0 else "damaged or cut short"


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0]
