"""Finished clips on disk, so that a run that was cancelled goes on from there with the same result."""

import errno
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import folder_paths
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..models import identity

_NOTE = "run.json"
_FORMAT = 2


class ClipStore:
    """A folder below the host's output folder that belongs to one run; a note in it holds the run's identity.

    parts: see `identity`. Raises ValueError where the name leaves the output folder or cannot be a folder that is
    written to, or the folder holds the clips of another run, with what differs."""

    def __init__(self, name: str, parts: Mapping[str, str]) -> None:
        self._name = name
        self.folder = _below_output(name)
        self._waiting: dict[int, Tensor] = {}
        parts = identity.settled(parts)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            refusal = self._refusal(parts) if any(self.folder.glob("clip_*.safetensors")) else None
            if refusal is None:
                self._write_note(parts)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"checkpoint_folder {name!r} cannot be used, {_reason(error)}: give the name of a folder that can be "
                f"made in {folder_paths.get_output_directory()} and written to, such as talk_1"
            ) from None
        if refusal is not None:
            raise ValueError(
                f"checkpoint_folder {name!r} {refusal}, or choose another name, or delete that folder"
            )

    def _file(self, index: int) -> Path:
        return self.folder / f"clip_{index:04}.safetensors"

    def _refusal(self, parts: Mapping[str, str]) -> str | None:
        """Reason why the clips in the folder are not this run's, and what to do; None where they are."""
        try:
            note = json.loads((self.folder / _NOTE).read_text(encoding="utf-8"))
            known = note["parts"] if note.get("format") == _FORMAT else None
        except (OSError, ValueError, KeyError, AttributeError):
            return f"holds clips and no {_NOTE} that says of which run they are: put that file back"
        if known is None:
            return (
                "holds the clips of an older version of these nodes, which did not note all that a run depends on: "
                "finish that run with the older version"
            )
        differ = [
            _change(name, known, parts) for name in {**known, **parts} if known.get(name) != parts.get(name)
        ]
        if not differ:
            return None
        return (
            f"holds the clips of a run with other inputs or settings, and what differs is {', '.join(differ)}: set "
            "that back"
        )

    def _write_note(self, parts: Mapping[str, str]) -> None:
        text = json.dumps({"format": _FORMAT, "parts": dict(parts)}, indent=1)
        with tempfile.NamedTemporaryFile("w", dir=self.folder, delete=False, encoding="utf-8") as file:
            file.write(text)
        Path(file.name).replace(self.folder / _NOTE)

    def load(self) -> list[Tensor]:
        """Frames [T, H, W, 3] of the finished clips, from the first one up to the first that is missing or broken."""
        clips: list[Tensor] = []
        while self._file(len(clips)).is_file():
            try:
                clips.append(load_file(self._file(len(clips)))["frames"])
            except (SafetensorError, KeyError, OSError):
                break  # half written: this clip is made again
        return clips

    def save(self, index: int, frames: Tensor) -> None:
        """Writes a clip whole or not at all. One that cannot be written (a full disk) is tried again with the next,
        and the run goes on: its frames are in memory."""
        self._waiting[index] = frames
        for waiting in list(self._waiting):
            unfinished = self._file(waiting).with_suffix(".part")
            try:
                save_file({"frames": self._waiting[waiting].detach().cpu().float().contiguous()}, unfinished)
                unfinished.replace(self._file(waiting))
                del self._waiting[waiting]
            except (OSError, SafetensorError) as error:
                logging.warning(
                    "[Wan2.2] clip %d could not be kept in %s, %s. The run goes on; it is tried again after the next",
                    waiting + 1, self.folder, _reason(error),
                )  # fmt: skip
                unfinished.unlink(missing_ok=True)
                return

    @property
    def unkept(self) -> int:
        """Number of finished clips that could not be written."""
        return len(self._waiting)


def _below_output(name: str) -> Path:
    # as the host does it for its own files: by the name, so that a linked folder may lie elsewhere
    root = os.path.abspath(folder_paths.get_output_directory())
    folder = os.path.abspath(os.path.join(root, name))
    if not Path(folder).is_relative_to(root) or folder == root:
        raise ValueError(
            f"checkpoint_folder {name!r} lies outside the output folder: give a name, such as talk_1"
        )
    return Path(folder)


def check_room(folder: str | Path, needed: int, what: str) -> None:
    """Raises ValueError where a folder cannot be written to, or its disk has not that many bytes free for `what`."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"written and deleted before a long run")
            file.flush()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be written to, {_reason(error)}: {what} would be lost at the end of the run. Let ComfyUI "
            "write there, or start it with another --output-directory"
        ) from None
    if free < needed:
        raise ValueError(
            f"{what} need about {_gigabytes(needed)} in {folder}, and its disk has {_gigabytes(free)} free: make room, "
            "or make the video smaller or shorter"
        )


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**27 else f"{count / 2**20:.1f} MiB"


def _reason(error: Exception) -> str:
    code = getattr(error, "errno", None)
    known = {
        errno.ENOSPC: "its disk is full",
        errno.EDQUOT: "its disk quota is used up",
        errno.EEXIST: "there is a file of that name",
        errno.ENOTDIR: "a part of its path is a file",
        errno.ENAMETOOLONG: "its name is too long",
        errno.EACCES: "ComfyUI may not write there",
        errno.EPERM: "ComfyUI may not write there",
        errno.EROFS: "its disk is read-only",
    }
    return known.get(code or 0, f"the system says: {getattr(error, 'strerror', None) or error}")


def _change(name: str, before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """A part that differs, with its values where they are such as can be read."""
    values = [parts.get(name, "none") for parts in (before, now)]
    if any(re.fullmatch("[0-9a-f]{64}", value) for value in values):
        return name
    return f"{name} ({values[0]} then, {values[1]} now)"
