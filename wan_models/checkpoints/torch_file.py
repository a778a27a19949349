"""PyTorch files, zipped and older. They are read with `weights_only=True`: code in a file never runs."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from .errors import CheckpointError, broken
from .packing import Packing

_ZIP, _OLD_TORCH = b"PK\3\4", b"\x80\x02\x8a\x0a"
# what torch says of a file that it would have to run code of
_REFUSED = ("unsupported global", "torchscript", "disallowed", "unsupported class")
# what trainers call the weights inside a larger file; the first that is there counts
_CONTAINERS = (
    "state_dict", "model_state_dict", "model", "module", "generator", "dit", "transformer", "network", "net", "weights",
    "params", "ema_state_dict", "model_ema", "ema_model", "generator_ema", "params_ema", "ema",
)  # fmt: skip


class TorchFile:
    """One PyTorch file, memory-mapped where its format allows; only tensors and plain containers are unpickled."""

    format: ClassVar[str] = "pth"
    suffixes: ClassVar[tuple[str, ...]] = (".pth", ".pt", ".bin", ".ckpt")

    @staticmethod
    def recognises(head: bytes) -> bool:
        return head.startswith((_ZIP, _OLD_TORCH))

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: dict[str, str] = {}
        size = path.stat().st_size
        try:
            with path.open("rb") as file:
                # files of torch before 1.6 are no zip files; and torch takes any path of .safetensors for such a file
                is_mapped = file.read(4) == _ZIP and path.suffix.lower() in self.suffixes
                file.seek(0)
                source: Any = path if is_mapped else file
                data = torch.load(source, map_location="cpu", weights_only=True, mmap=is_mapped)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError) as error:
            message = str(error).lower()
            if any(sign in message for sign in _REFUSED):
                raise CheckpointError(
                    f"{path} holds more than weights, perhaps code, and was not opened: get a .safetensors version"
                ) from None
            raise CheckpointError(
                f"{path} is {broken(size)} ({_first_line(error)}): download it again"
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


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0]
