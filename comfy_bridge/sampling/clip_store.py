"""Finished clips on disk, so that a run that was cancelled goes on from there with the same result.

The first clip decides whose folder it is. A later one counts as long as it, and those before it, were made of what this
run would make them of; from the first that was not, clips are made again.
"""

import errno
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import folder_paths
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..models import identity
from .clip_files import NOTE, OLDER, FinishedClips, length_of, noted, parts_in, put, text_of
from .folder_lock import FolderLock

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ClipStore:
    """A folder below the host's output folder that belongs to one run; a note in it, and each clip, hold the run's
    identity.

    parts: see `identity`. needed: bytes that the run will write, for the error of a full disk. of_clip: the parts that
    are a clip's own, by its number. Raises ValueError where the name leaves the output folder or cannot be a folder
    that is written to, the folder holds the clips of another run, with what differs, or another run is in it."""

    def __init__(
        self,
        name: str,
        parts: Mapping[str, str],
        needed: int = 0,
        of_clip: Callable[[int], Mapping[str, str]] = lambda index: {},
    ) -> None:
        self._name = name
        self.folder = _below_output(name)
        self._run = identity.settled(parts)
        self._of_clip = of_clip
        self._waiting: dict[int, dict[str, Tensor]] = {}
        self._lock: FolderLock | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(self.folder)
            refusal = self._refusal() if any(self.folder.glob("clip_*.safetensors")) else None
            if refusal is None and self._note() != self._parts(0):
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

    def _parts(self, index: int) -> dict[str, str]:
        """Identity of a clip's frames."""
        return {**self._run, **self._of_clip(index)}

    def _refusal(self) -> str | None:
        """Reason why the clips in the folder are not this run's, and what to do; None where they are."""
        note = self._note()
        if note is None:
            notes = (noted(file) for file in sorted(self.folder.glob("clip_*.safetensors")))
            note = next((parts for parts in notes if parts is not None), None)
        if note is None:
            return f"holds clips and no {NOTE} that says of which run they are: put that file back"
        if note == OLDER:
            return (
                "holds the clips of an older version of these nodes, which did not note all that a run depends on: "
                "finish that run with the older version"
            )
        mine = self._parts(0)
        differ = [_change(name, note, mine) for name in {**note, **mine} if note.get(name) != mine.get(name)]
        if not differ:
            return None
        return (
            f"holds the clips of a run with other inputs or settings, and what differs is {', '.join(differ)}: set "
            "that back"
        )

    def _note(self) -> dict[str, str] | None:
        """Parts in the note of the run whose folder this is; None where there is none that can be read."""
        try:
            return parts_in((self.folder / NOTE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _write_note(self) -> None:
        with tempfile.NamedTemporaryFile("w", dir=self.folder, delete=False, encoding="utf-8") as file:
            unfinished = Path(file.name)
            try:
                file.write(text_of(self._parts(0)))
                file.flush()
            except BaseException:
                unfinished.unlink(missing_ok=True)
                raise
        put(unfinished, self.folder / NOTE)

    def load(self) -> FinishedClips:
        """The finished clips, from the first one up to the first that is missing, broken, or made of something else."""
        files: list[Path] = []
        while (file := self._file(len(files))).is_file():
            if not length_of(file) or noted(file) not in (None, self._parts(len(files))):
                break
            files.append(file)
        return FinishedClips(files)

    def save(self, index: int, frames: Tensor, beside: Mapping[str, Tensor] | None = None) -> None:
        """Writes a clip whole or not at all, with what is kept beside its frames. One that cannot be written (a full
        disk) is tried again with the next, and the run goes on: its frames are in memory."""
        self._waiting[index] = {"frames": frames, **(beside or {})}
        for waiting in list(self._waiting):
            unfinished = self._file(waiting).with_suffix(".part")
            content = {
                name: tensor.detach().cpu().float().contiguous()
                for name, tensor in self._waiting[waiting].items()
            }
            try:
                save_file(content, unfinished, metadata={NOTE: text_of(self._parts(waiting))})
                put(unfinished, self._file(waiting))
                del self._waiting[waiting]
            except (OSError, SafetensorError) as error:
                reason = _reason(error) + _free(self.folder)
                size = _gigabytes(sum(tensor.nbytes for tensor in content.values()))
                logging.warning(
                    "[Wan2.2] clip %d, of %s, could not be kept in %s, %s. The run goes on; it is tried again with the "
                    "next clip, if there is one", waiting + 1, size, self.folder, reason,
                )  # fmt: skip
                with suppress(OSError):
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
    reasons = {
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
    return reasons.get(_code(error), f"the system says: {getattr(error, 'strerror', None) or error}")


def _change(name: str, before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """A part that differs, with its values where they are such as can be read."""
    values = [parts.get(name, "none") for parts in (before, now)]
    if any(re.fullmatch("[0-9a-f]{64}", value) for value in values):
        return name
    return f"{name} ({values[0]} then, {values[1]} now)"
