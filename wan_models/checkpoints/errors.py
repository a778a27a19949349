"""Errors of checkpoints. Messages say which file, what is wrong with it, and what to do."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .detect import ModelInfo

# kinds of `ModelInfo`, as a sentence names them
KIND_NAMES = {
    "dit": "a diffusion model",
    "vae": "a VAE",
    "t5": "a UMT5 text encoder",
    "clip_vision": "a CLIP image encoder",
    "wav2vec2": "a wav2vec2 audio encoder",
}


class CheckpointError(ValueError):
    """A checkpoint that cannot be used."""


class WrongModelError(CheckpointError):
    """A checkpoint of another kind of model than was expected. info: what it holds; expected: a kind of `ModelInfo`."""

    def __init__(self, path: Path, info: "ModelInfo", expected: str) -> None:
        super().__init__(f"{path} is {info.description}; {KIND_NAMES[expected]} was expected here.")
        self.path, self.info, self.expected = path, info, expected


class UnsupportedModelError(CheckpointError):
    """A Wan model of another family. info: what the file holds, with its `variant`."""

    def __init__(self, path: Path, info: "ModelInfo") -> None:
        super().__init__(
            f"{path} is {info.description}. It is none of the models that are run here (T2V, I2V, TI2V, S2V, Animate, "
            "Animate-2)."
        )
        self.path, self.info = path, info


class ChangedFileError(CheckpointError):
    """A file that was changed after it was opened."""


def broken(size: int) -> str:
    """Fault of a file of that size that cannot be opened."""
    return "empty" if size == 0 else "damaged or cut short"
