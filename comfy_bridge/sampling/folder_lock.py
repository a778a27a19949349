"""A lock on a folder: one run at a time has it, of all processes that see the disk.

The system holds the lock, and lets go of it when its process ends in whatever way; a file that is left behind locks
nothing.
"""

import errno
import gc
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import IO

_FILE = "run.lock"
# of disks that know no locks, such as some in a network: there the folder is used without
_UNKNOWN = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


class FolderLock:
    """Holds the lock of a folder until it is closed. Raises BlockingIOError, with who has it, where it is taken, and
    OSError where the folder cannot be written to."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        self._file: IO[str] | None = None
        try:
            self._file = _take(self._path)
        except BlockingIOError:
            gc.collect()  # a run of this process that failed may be waiting to be cleared away
            self._file = _take(self._path)

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # Windows removes no open file: it stays
                self._path.unlink()
            file.close()


def _take(path: Path) -> IO[str]:
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            _lock(file)
            if _is_at(path, file):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}")
                file.flush()
                return file
        except BlockingIOError:
            file.seek(0)
            owner = file.read(200) if os.name == "posix" else ""  # what is locked cannot be read on Windows
            file.close()
            raise BlockingIOError(errno.EAGAIN, owner or "another process") from None
        except BaseException:
            file.close()
            raise
        file.close()  # its owner has just removed it


def _is_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(file: IO[str]) -> None:
    try:
        if os.name == "posix":
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            raise BlockingIOError(errno.EAGAIN, "taken") from None
        if error.errno not in _UNKNOWN:
            raise
