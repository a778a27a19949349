"""Finished clips on disk, so that a run that was cancelled goes on from there with the same result."""

import errno
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import folder_paths
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..models import identity
from .folder_lock import FolderLock

_NOTE = "run.json"
_FORMAT = 2
_OLDER = {"": "an older format"}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ClipStore:
    """A folder below the host's output folder that belongs to one run; a note in it, and each clip, hold the run's
    identity.

    parts: see `identity`. needed: bytes that the run will write, for the error of a full disk. Raises ValueError where
    the name leaves the output folder or cannot be a folder that is written to, the folder holds the clips of another
    run, with what differs, or another run is at work in it."""

    def __init__(self, name: str, parts: Mapping[str, str], needed: int = 0) -> None:
        self._name = name
        self.folder = _below_output(name)
        self._parts = dict(identity.settled(parts))
        self._waiting: dict[int, Tensor] = {}
        self._lock: FolderLock | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(self.folder)
            refusal = self._refusal() if any(self.folder.glob("clip_*.safetensors")) else None
            if refusal is None and self._note() != self._parts:
                self._write_note()
        except BlockingIOError as error:
            raise ValueError(
                f"checkpoint_folder {name!r} is in use by another run ({error.strerror}): wait until that has ended, "
                "or choose another name"
            ) from None
        except (OSError, ValueError) as error:
            self.close()
            room = f" (the run needs {_gigabytes(needed)} there)" if _is_full(error) and needed else ""
            raise ValueError(
                f"checkpoint_folder {name!r} cannot be used, {_reason(error)}{room}: give the name of a folder that "
                f"can be made in {folder_paths.get_output_directory()} and written to, such as talk_1"
            ) from None
        if refusal is not None:
            self.close()
            raise ValueError(
                f"checkpoint_folder {name!r} {refusal}, or choose another name, or delete that folder"
            )

    def close(self) -> None:
        """Leaves the folder to other runs."""
        if self._lock is not None:
            self._lock.close()

    def _file(self, index: int) -> Path:
        return self.folder / f"clip_{index:04}.safetensors"

    def _refusal(self) -> str | None:
        """Reason why the clips in the folder are not this run's, and what to do; None where they are."""
        known = self._note()
        if known is None:
            noted = (_noted(file) for file in sorted(self.folder.glob("clip_*.safetensors")))
            known = next((parts for parts in noted if parts is not None), None)
        if known is None:
            return f"holds clips and no {_NOTE} that says of which run they are: put that file back"
        if known == _OLDER:
            return (
                "holds the clips of an older version of these nodes, which did not note all that a run depends on: "
                "finish that run with the older version"
            )
        differ = [
            _change(name, known, self._parts)
            for name in {**known, **self._parts}
            if known.get(name) != self._parts.get(name)
        ]
        if not differ:
            return None
        return (
            f"holds the clips of a run with other inputs or settings, and what differs is {', '.join(differ)}: set "
            "that back"
        )

    def _note(self) -> dict[str, str] | None:
        """What the note says of the run whose folder this is; None where there is none that can be read."""
        try:
            return _parts_in((self.folder / _NOTE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _write_note(self) -> None:
        with tempfile.NamedTemporaryFile("w", dir=self.folder, delete=False, encoding="utf-8") as file:
            unfinished = Path(file.name)
            try:
                file.write(_text_of(self._parts))
                file.flush()
            except BaseException:
                unfinished.unlink(missing_ok=True)
                raise
        _put(unfinished, self.folder / _NOTE)

    def load(self) -> list[Tensor]:
        """Frames [T, H, W, 3] of the finished clips, from the first one up to the first that is missing, broken, or of
        another run."""
        clips: list[Tensor] = []
        while self._file(len(clips)).is_file():
            file = self._file(len(clips))
            try:
                frames = load_file(file)["frames"]
            except (SafetensorError, KeyError, OSError):
                break  # half written: this clip is made again
            if frames.ndim != 4 or frames.shape[-1] != 3 or _noted(file) not in (None, self._parts):
                break
            clips.append(frames)
        return clips

    def save(self, index: int, frames: Tensor) -> None:
        """Writes a clip whole or not at all. One that cannot be written (a full disk) is tried again with the next,
        and the run goes on: its frames are in memory."""
        self._waiting[index] = frames
        for waiting in list(self._waiting):
            unfinished = self._file(waiting).with_suffix(".part")
            content = self._waiting[waiting].detach().cpu().float().contiguous()
            try:
                save_file({"frames": content}, unfinished, metadata={_NOTE: _text_of(self._parts)})
                _put(unfinished, self._file(waiting))
                del self._waiting[waiting]
            except (OSError, SafetensorError) as error:
                reason = _reason(error) + _free(self.folder)
                logging.warning(
                    "[Wan2.2] clip %d, of %s, could not be kept in %s, %s. The run goes on; it is tried again after "
                    "the next", waiting + 1, _gigabytes(content.nbytes), self.folder, reason,
                )  # fmt: skip
                with suppress(OSError):
                    unfinished.unlink(missing_ok=True)
                return

    @property
    def unkept(self) -> int:
        """Number of finished clips that could not be written."""
        return len(self._waiting)


def _text_of(parts: Mapping[str, str]) -> str:
    return json.dumps({"format": _FORMAT, "parts": dict(parts)}, indent=1)


def _parts_in(text: str) -> dict[str, str]:
    """The inverse of `_text_of`. ValueError where it is none."""
    try:
        note = json.loads(text)
        if not isinstance(note, dict) or ("parts" not in note and "run" not in note):
            raise ValueError("it is not of these nodes")
        if note.get("format") != _FORMAT:
            return _OLDER
        return {name: str(value) for name, value in note["parts"].items()}
    except (RecursionError, AttributeError, LookupError) as error:
        raise ValueError(str(error)) from None


def _noted(file: Path) -> dict[str, str] | None:
    """What a clip says of its run; None where it says nothing, or cannot be read."""
    try:
        with safe_open(file, "pt") as clip:
            return _parts_in((clip.metadata() or {}).get(_NOTE, ""))
    except (OSError, SafetensorError, ValueError):
        return None


def _put(unfinished: Path, file: Path) -> None:
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


def _code(error: Exception) -> int:
    """Number of the system's error; safetensors has it in its text."""
    named = re.search(r"(?:os error|code:) (\d+)", str(error)) if isinstance(error, SafetensorError) else None
    return int(named[1]) if named else getattr(error, "errno", None) or 0


def _is_full(error: Exception) -> bool:
    return _code(error) in _FULL


def _free(folder: Path) -> str:
    """Room on a folder's disk, for the end of a sentence."""
    try:
        return f" ({_gigabytes(shutil.disk_usage(folder).free)} are free)"
    except OSError:
        return ""


def _reason(error: Exception) -> str:
    known = {
        errno.ENOSPC: "its disk is full",
        errno.EDQUOT: "its disk quota is used up",
        errno.EFBIG: "the system lets no file there become as large",
        errno.EEXIST: "there is a file of that name",
        errno.ENOTDIR: "a part of its path is a file",
        errno.ENAMETOOLONG: "its name is too long",
        errno.EACCES: "ComfyUI may not write there",
        errno.EPERM: "ComfyUI may not write there",
        errno.EROFS: "its disk is read-only",
    }
    return known.get(_code(error), f"the system says: {getattr(error, 'strerror', None) or error}")


def _change(name: str, before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """A part that differs, with its values where they are such as can be read."""
    values = [parts.get(name, "none") for parts in (before, now)]
    if any(re.fullmatch("[0-9a-f]{64}", value) for value in values):
        return name
    return f"{name} ({values[0]} then, {values[1]} now)"
