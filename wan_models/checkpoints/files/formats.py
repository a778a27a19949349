"""The file formats that weights come in. Another one is a file like `safetensors_file` and a line in `FORMATS`."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from ...registry import resolve
from ..errors import CheckpointError
from ..packed.packing import Packing
from .stamp import Stamp


class WeightsFile(Protocol):
    """One opened file. Raises CheckpointError where it is broken; reads tensors when they are asked for."""

    format: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    stamp: Stamp
    """The file as it was when it was opened. `read` raises CheckpointError once it has changed."""

    def __init__(self, path: Path) -> None: ...

    @staticmethod
    def recognises(head: bytes) -> bool:
        """Whether a file begins as files of this format do; head: its first 64 bytes."""
        ...

    @property
    def metadata(self) -> Mapping[str, str]:
        """Text that the file carries beside its tensors."""
        ...

    @property
    def names(self) -> list[str]: ...

    def header(self, name: str) -> tuple[tuple[int, ...], torch.dtype]:
        """Shape and dtype of a tensor as it is stored."""
        ...

    def read(self, name: str) -> Tensor: ...

    def packing(self, name: str) -> Packing | None:
        """Packing of a tensor; None where it reads as plain numbers."""
        ...


FORMATS: tuple[type[WeightsFile], ...] = (
    resolve("checkpoints.files.safetensors_file.SafetensorsFile"),
    resolve("checkpoints.files.gguf_file.GGUFFile"),
    resolve("checkpoints.files.torch_file.TorchFile"),
)
_MAX_TENSORS, _MAX_NAME = (
    20_000,
    300,
)  # models and LoRAs have some thousands, with names of up to 100 characters
SUFFIXES = tuple(suffix for kind in FORMATS for suffix in kind.suffixes)


def open_file(path: Path) -> WeightsFile:
    """Opens a file by what is in it, else by its ending. Raises CheckpointError where it is none of the formats,
    broken, or something else that was saved in the place of a model."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise CheckpointError(f"{path} is no checkpoint: expected {', '.join(SUFFIXES)} or a folder")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    if problem := _no_model(head):
        raise CheckpointError(f"{path} is {problem}")
    kinds = [kind for kind in FORMATS if kind.recognises(head)]
    kinds += [kind for kind in FORMATS if suffix in kind.suffixes]
    opened = kinds[0](path)
    names = opened.names
    if len(names) > _MAX_TENSORS or any(len(n) > _MAX_NAME or not n.isprintable() for n in names):
        raise CheckpointError(
            f"{path} is no model: it holds {len(names):,} tensors, or names of more than {_MAX_NAME} characters or "
            "with such as are never written"
        )
    return opened


def _no_model(head: bytes) -> str | None:
    """Describes a file that holds no model, and what to do; None where it may be one."""
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
