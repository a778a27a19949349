"""Files as they were when they were opened, and their bytes, memory-mapped; an error once they have changed.

A mapping shows what is in a file now: bytes that are written into it later become the weights, and of one that is cut
short, reading what is gone ends the process. So a file is looked at before each read, and before each run with what was
read from it.
"""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ChangedFileError, CheckpointError


@dataclass(frozen=True)
class Stamp:
    """State of a file when it was opened: which (device and number), bytes, and time of the last change in ns."""

    path: Path
    which: tuple[int, int]
    size: int
    changed: int

    @classmethod
    def of(cls, path: Path) -> "Stamp":
        """Raises CheckpointError where there is no file to look at."""
        try:
            stat = path.stat()
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
        return cls(path, (stat.st_dev, stat.st_ino), stat.st_size, stat.st_mtime_ns)

    def check(self) -> None:
        """Raises CheckpointError unless the file is there as it was: for reading from it. (Its number is not asked for,
        which some network disks change at will.)"""
        now = Stamp.of(self.path)
        if (now.size, now.changed) != (self.size, self.changed):
            raise self._changed(now)

    def check_mapped(self) -> None:
        """Raises CheckpointError where the file itself was changed: for using what was mapped from it. One that was
        deleted, or replaced by another of its name, lives on in its mapping."""
        try:
            now = Stamp.of(self.path)
        except CheckpointError:
            return
        if now.which == self.which and now != self:
            raise self._changed(now)

    def _changed(self, now: "Stamp") -> ChangedFileError:
        sizes = f", it has {now.size:,} bytes instead of {self.size:,}" if now.size != self.size else ""
        return ChangedFileError(
            f"{self.path} was changed after it was opened{sizes}. Wait until it is whole, and load it anew"
        )


def check_mapped(stamps: Iterable[Stamp]) -> None:
    """`Stamp.check_mapped` of several files."""
    for stamp in stamps:
        stamp.check_mapped()


class MappedFile:
    """The bytes of one file, mapped when they are first asked for; `size` in bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stamp = Stamp.of(path)

    @property
    def size(self) -> int:
        return self.stamp.size

    @cached_property
    def _bytes(self) -> Tensor:
        return torch.from_file(os.fspath(self.path), shared=False, size=self.size, dtype=torch.uint8)

    def values(self, start: int, count: int, dtype: torch.dtype) -> Tensor:
        """`count` values from byte `start` on, [count]; copied only where they lie unaligned. Raises CheckpointError
        where they lie outside of the file, or it has changed."""
        end = start + count * dtype.itemsize
        if not 0 <= start <= end <= self.size:
            raise CheckpointError(f"{self.path} has no bytes {start:,} to {end:,}: download it again")
        self.stamp.check()
        if count == 0:  # of an empty file too, which cannot be mapped
            return torch.empty(0, dtype=dtype)
        raw = self._bytes[start:end]
        return (raw if start % dtype.itemsize == 0 else raw.clone()).view(dtype)


def fits(shape: Sequence[int], most: int) -> bool:
    """Whether a shape is one of at most `most` values, of at most 64 axes."""
    return len(shape) <= 64 and all(0 <= size < 2**63 for size in shape) and math.prod(shape) <= most
