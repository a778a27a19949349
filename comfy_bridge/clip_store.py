"""Finished clips on disk, so that a run that was cancelled goes on from there with the same result."""

import hashlib
import json
from pathlib import Path
from typing import Any

import folder_paths
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

_NOTE = "run.json"


class ClipStore:
    """A folder below the host's output folder that belongs to one run: its inputs and settings are noted in it.

    Raises ValueError where the name leaves that folder, or the folder holds the clips of another run."""

    def __init__(self, name: str, inputs: Any, settings: Any) -> None:
        root = Path(folder_paths.get_output_directory()).resolve()
        self.folder = (root / name).resolve()
        if root not in self.folder.parents:
            raise ValueError(
                f"checkpoint_folder {name!r} lies outside the output folder: give a name, such as talk_1"
            )
        digest = hashlib.sha256(repr(settings).encode())
        _feed(digest, inputs)
        run = digest.hexdigest()
        note = self.folder / _NOTE
        if note.is_file() and json.loads(note.read_text(encoding="utf-8")).get("run") != run:
            raise ValueError(
                f"checkpoint_folder {name!r} holds the clips of a run with other inputs or settings: choose another "
                "name, or delete that folder"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps({"run": run, "settings": repr(settings)}, indent=1), encoding="utf-8")

    def _file(self, index: int) -> Path:
        return self.folder / f"clip_{index:04}.safetensors"

    def load(self) -> list[Tensor]:
        """Frames [T, H, W, 3] of the clips from the first one on that are there."""
        clips: list[Tensor] = []
        while self._file(len(clips)).is_file():
            try:
                clips.append(load_file(self._file(len(clips)))["frames"])
            except (SafetensorError, KeyError):
                break  # half written: this clip is made again
        return clips

    def save(self, index: int, frames: Tensor) -> None:
        """Writes a clip whole or not at all."""
        unfinished = self._file(index).with_suffix(".part")
        save_file({"frames": frames.detach().cpu().float().contiguous()}, unfinished)
        unfinished.replace(self._file(index))


def _feed(digest: Any, value: Any) -> None:
    """Adds tensors, and whatever holds them, to a digest."""
    if isinstance(value, Tensor):
        digest.update(repr(tuple(value.shape)).encode())
        digest.update(value.detach().cpu().float().contiguous().view(torch.uint8).numpy().tobytes())
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            digest.update(str(key).encode())
            _feed(digest, value[key])
    elif isinstance(value, (list, tuple)):
        for item in value:
            _feed(digest, item)
    elif isinstance(value, (str, int, float, bool, type(None))):
        digest.update(repr(value).encode())
