"""Damages model files and opens each in a process of its own, with a bound on memory and time.

A case passes where the file loads, or is refused by a ValueError that names it (or its folder).
"""

import json
import os
import random
import resource
import select
import shutil
import signal
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .mutations import mutations_of
from .seeds import SEEDS, Seed, write_seeds
from .use import use

MEMORY = 2**30
"""Bytes that a case may take beside what its file has."""
SECONDS = 20
"""Of computing; a case that does nothing for ten times as long hangs too."""


@dataclass
class Result:
    """How many files loaded and were refused, by kind; and the failures, one line each, with the file that is kept."""

    loaded: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    longest: float = 0.0


def run(root: Path, cases: int, seed: int, kinds: str = "") -> Result:
    """Runs `cases` cases, of each kind in turn (those with `kinds` in their names), in a folder that is empty.

    The same seed makes the same files. Files of failures stay in `root`/failed."""
    (root / "seeds").mkdir(parents=True)
    write_seeds(root / "seeds")
    chosen = [kind for kind in SEEDS if kinds in kind.name]
    for kind in chosen:  # as they are, they load
        outcome, detail, _ = _opened(root / "seeds" / kind.name, kind)
        assert outcome == "loaded", (kind, outcome, detail)
    result = Result()
    for number in range(cases):
        kind = chosen[number % len(chosen)]
        folder = root / f"case {number}"
        _damage(root / "seeds" / kind.name, folder, kind, random.Random(f"{seed} {kind.name} {number}"))
        outcome, detail, seconds = _opened(folder, kind)
        result.longest = max(result.longest, seconds)
        if outcome in ("loaded", "refused"):
            getattr(result, outcome)[kind.name] += 1
            shutil.rmtree(folder)
            continue
        kept = root / "failed" / f"{kind.name} {seed} {number}"
        kept.parent.mkdir(exist_ok=True)
        folder.rename(kept)
        result.failures.append(f"{kept.name}: {outcome}: {detail}")
    return result


def _damage(source: Path, folder: Path, kind: Seed, chance: random.Random) -> None:
    shutil.copytree(source, folder, copy_function=os.link)
    file = folder / kind.changed
    raw = file.read_bytes()
    mutate = chance.choice(mutations_of(file, kind.name))
    file.unlink()  # a link to the seed's own
    file.write_bytes(mutate(raw, chance))


def _opened(folder: Path, kind: Seed) -> tuple[str, str, float]:
    """What comes of it in a process of its own, in a word and a line, and the seconds that it took."""
    begun = time.monotonic()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _work(folder, kind, write)
    os.close(write)
    try:
        ready, _, _ = select.select([read], [], [], 10 * SECONDS)
        answer = b"".join(_read_all(read)) if ready else b""
        if not ready:
            os.kill(child, signal.SIGKILL)
    finally:
        os.close(read)
    _, status = os.waitpid(child, 0)
    seconds = time.monotonic() - begun
    if not ready or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
        return "hangs", f"for {seconds:.0f} s", seconds
    if not answer:
        return "ends the process", f"status {status}", seconds
    outcome, detail = json.loads(answer)
    return outcome, detail, seconds


def _read_all(pipe: int) -> Iterator[bytes]:
    while part := os.read(pipe, 65536):
        yield part


def _work(folder: Path, kind: Seed, write: int) -> None:
    """In the process of the case: opens the file, says what came of it, and ends the process."""
    for stream in (1, 2):  # libraries print what they raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    size = sum(file.stat().st_size for file in folder.iterdir())
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 2 * size + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    path = folder / kind.opened
    try:
        use(kind.use, path)
        answer = ("loaded", "")
    except ValueError as error:
        is_named = str(folder) in str(error)
        answer = ("refused", str(error)) if is_named else ("does not name the file", repr(error)[:500])
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        answer = (type(error).__name__, f"{str(error)[:300]} ({Path(last.filename).name}:{last.lineno})")
    os.write(write, json.dumps(answer).encode()[:60000])
    os._exit(0)
