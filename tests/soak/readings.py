"""What a server holds between prompts, and whether that grows."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import psutil

WARM_UP = 1 / 3
"""Part of the readings in which allocators and caches may still fill up."""
LEAST = 4
"""Readings after that from which a trend is told."""
LIMITS = {
    "memory": (0.05, 32 * 2**20),
    "descriptors": (0.0, 4),
    "threads": (0.0, 2),
    "processes": (0.0, 0),
    "mapped_files": (0.0, 2),
    "temporary_files": (0.0, 0),
    "other_files": (0.0, 0),
}
"""What may be there more at the last reading than after the warm-up: a part of the median, or a number."""


@dataclass(frozen=True)
class Reading:
    """Of a server at rest, after so many prompts and seconds: bytes of memory that are its own, open descriptors,
    threads, processes below it, model files that are mapped, files in the temporary folder, and files in its other
    folders."""

    prompts: int
    seconds: float
    memory: int
    descriptors: int
    threads: int
    processes: int
    mapped_files: int
    temporary_files: int
    other_files: int


def read(pid: int, base: Path, temporary: Path, prompts: int, seconds: float) -> Reading:
    """The state of a server (Linux): base is its folder, temporary the one for temporary files."""
    process = psutil.Process(pid)
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    maps = {line.split()[-1] for line in Path(f"/proc/{pid}/maps").read_text().splitlines()}
    return Reading(
        prompts=prompts, seconds=round(seconds, 1), memory=int(status["RssAnon"].split()[0]) * 1024,
        descriptors=process.num_fds(), threads=process.num_threads(),
        processes=len(process.children(recursive=True)),
        mapped_files=sum(path.startswith(str(base / "models")) for path in maps),
        temporary_files=sum(1 for _ in _files(temporary)),
        other_files=sum(1 for name in ("input", "output", "temp") for _ in _files(base / name)),
    )  # fmt: skip


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if not path.is_dir())


def rise(values: list[float]) -> float:
    """What a straight line through the values climbs from the first to the last: Theil and Sen's, the median of the
    slopes of all pairs, which single readings do not move."""
    slopes = [(b - a) / (j - i) for (i, a), (j, b) in combinations(enumerate(values), 2)]
    return statistics.median(slopes) * (len(values) - 1)


def grown(readings: list[Reading]) -> dict[str, tuple[float, float]]:
    """By what is read: how much it rose after the warm-up, and how much it may; empty where readings are too few."""
    after = readings[round(len(readings) * WARM_UP) :]
    if len(after) < LEAST:
        return {}
    found = {}
    for name, (part, number) in LIMITS.items():
        values = [getattr(reading, name) for reading in after]
        found[name] = (rise(values), max(part * statistics.median(values), number))
    return found
