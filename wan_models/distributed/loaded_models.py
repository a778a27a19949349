"""Models that all processes of a group have loaded: books of them, and the room that the next one needs."""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ..checkpoints.patches import Patches
from .jobs import Jobs
from .weights import Recipe


@dataclass(frozen=True)
class Loaded:
    """A model that the processes hold: its checkpoint, the version of its patches, and what `Worker.load` reported."""

    path: str
    version: object
    reports: list[dict[str, Any]]

    @property
    def bytes(self) -> int:
        """Bytes that it takes in the first process."""
        return self.reports[0].get("bytes", 0)


class LoadedModels:
    """Record of the models that every process holds: what was sent to the processes, even where a Cancel ended the wait
    for it. Methods are called while no job is in flight."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self.by_key: dict[str, Loaded] = {}

    def load(self, recipe: Recipe, patches: Callable[[], Patches], version: object, needed: float) -> str:
        """As `Group.load`."""
        key, jobs = str(recipe), self._jobs
        before = self.by_key.get(key)
        if before is not None and before.version == version:
            return key
        if before is None:
            self._make_room(recipe, needed)
        plain = {name: [tuple(patch) for patch in several] for name, several in patches().items()}
        jobs.send("load", key, asdict(recipe), jobs.put(plain))
        # noted before it is waited for: after a Cancel it is there all the same, with patches that nobody knows
        self.by_key[key] = Loaded(recipe.path, object(), before.reports if before else [{}])
        try:
            reports = jobs.receive("load")
        except ValueError:
            if before is None:  # no process has it
                self.by_key.pop(key, None)
            raise
        self.by_key[key] = Loaded(recipe.path, version, reports)
        seconds, read = max(report["seconds"] for report in reports), reports[0]["read"]
        logging.info("[Wan2.2] workers: %d tensors of %s read in %.1f s", read, recipe.path, seconds)
        return key

    def drop(self, key: str) -> None:
        """Has the processes let go of a model, if they hold it."""
        if key in self.by_key:
            self._jobs.send("drop", key)
            self.by_key.pop(key, None)
            self._jobs.receive("drop", can_cancel=False)

    def _make_room(self, recipe: Recipe, needed: float) -> None:
        for key in [key for key, loaded in self.by_key.items() if loaded.path == recipe.path]:
            self.drop(key)
        for key in list(self.by_key):
            if min(process["free"] for process in self._jobs.ask("stats")) > needed:
                break
            self.drop(key)
