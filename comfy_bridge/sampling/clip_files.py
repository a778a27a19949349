"""Finished clips as files: frames, what is kept beside them, and a note of what they were made of."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

NOTE = "run.json"
"""Name of a run's note, and of the entry with a clip's own note."""
OLDER = {"": "an older format"}
"""Stands for a note of an older version of these nodes."""
_FORMAT = 2


class FinishedClips(Sequence[Tensor]):
    """Frames [T, H, W, 3] of clips on disk, each read when it is asked for."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return FinishedClips(self._files[index])
        return _read(self._files[index], "frames")

    @property
    def lengths(self) -> list[int]:
        """Number of frames of each."""
        return [length_of(file) or 0 for file in self._files]

    def beside(self, name: str) -> Tensor | None:
        """Tensor kept under that name with the last clip; None where there is none."""
        return _read(self._files[-1], name) if self._files else None


def length_of(file: Path) -> int | None:
    """Number of frames of a clip; None where the file is half written, or no clip."""
    try:
        with safe_open(file, "pt") as clip:
            shape = clip.get_slice("frames").get_shape()
    except (SafetensorError, OSError):
        return None
    return shape[0] if len(shape) == 4 and shape[-1] == 3 else None


def _read(file: Path, name: str) -> Tensor | None:
    with safe_open(file, "pt") as clip:
        return clip.get_tensor(name) if name in clip.keys() else None  # noqa: SIM118, it is no mapping


def text_of(parts: Mapping[str, str]) -> str:
    """A note of these parts."""
    return json.dumps({"format": _FORMAT, "parts": dict(parts)}, indent=1)


def parts_in(text: str) -> dict[str, str]:
    """The inverse of `text_of`. ValueError where it is none."""
    try:
        note = json.loads(text)
        if not isinstance(note, dict) or ("parts" not in note and "run" not in note):
            raise ValueError("it is not of these nodes")
        if note.get("format") != _FORMAT:
            return OLDER
        return {name: str(value) for name, value in note["parts"].items()}
    except (RecursionError, AttributeError, LookupError) as error:
        raise ValueError(str(error)) from None


def noted(file: Path) -> dict[str, str] | None:
    """Parts in a clip's note of its run; None where it has none, or cannot be read."""
    try:
        with safe_open(file, "pt") as clip:
            return parts_in((clip.metadata() or {}).get(NOTE, ""))
    except (OSError, SafetensorError, ValueError):
        return None


def put(unfinished: Path, file: Path) -> None:
    """Gives a file its name when its content is on the disk, so that under it there is never a part of one."""
    with unfinished.open("rb+") as content:
        os.fsync(content.fileno())
    unfinished.replace(file)
    with suppress(OSError):  # not on Windows
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
