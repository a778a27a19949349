"""Watchdog over the processes of a group: finds those that hold up the others."""

import time
from typing import Any


class Watchdog:
    """Record of how much work each process has done, and of when that last changed.

    ray: the package. actors: of the processes, by rank. timeout: seconds without an answer, or without progress of any
    process, after which one counts as stalled."""

    def __init__(self, ray: Any, actors: list[Any], timeout: float) -> None:
        self._ray, self._actors, self._timeout = ray, actors, timeout
        now = time.monotonic()
        self._asked: dict[int, Any] = {}
        self._done = dict.fromkeys(range(len(actors)), -1)
        self._progressed = dict.fromkeys(range(len(actors)), now)
        self._answered = dict.fromkeys(range(len(actors)), now)
        self._next = now + 0.5

    def stalled(self, working: set[int]) -> dict[int, str]:
        """Ranks of the `working` that hold up the others, with the reason; may be asked as often as one likes."""
        now = time.monotonic()
        if now < self._next:
            return {}
        self._next = now + min(1.0, self._timeout / 4)
        for rank in working:
            self._listen(rank, now)
        silent = [rank for rank in working if now - self._answered[rank] > self._timeout]
        if silent:
            return dict.fromkeys(
                silent, f"no answer for {self._timeout:g} s; the process hangs or is stopped"
            )
        if not working or any(now - self._progressed[rank] <= self._timeout for rank in working):
            return {}
        # all stand still: the one that has done least keeps the others waiting
        least = min(self._done[rank] for rank in working)
        behind = [rank for rank in working if self._done[rank] == least]
        return dict.fromkeys(behind, f"no progress for {self._timeout:g} s")

    def _listen(self, rank: int, now: float) -> None:
        """Notes the answer of a process, if there is one, and asks it again."""
        ref = self._asked.get(rank)
        if ref is not None and self._ray.wait([ref], timeout=0)[0]:
            self._asked.pop(rank)
            self._answered[rank] = now
            try:
                done = self._ray.get(ref)
            except self._ray.exceptions.RayError:
                return  # dead: its job tells
            if done != self._done[rank]:
                self._done[rank], self._progressed[rank] = done, now
        if rank not in self._asked:
            self._asked[rank] = self._actors[rank].ask.remote("done")
