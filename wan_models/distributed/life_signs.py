"""Which processes of a group hold up the others: those that do not answer, or did least while all stand still."""

import time
from typing import Any


class LifeSigns:
    """Watches how much each process has done, and how long ago that changed."""

    def __init__(self, ray: Any, actors: list[Any], timeout: float) -> None:
        self.ray, self.actors, self.timeout = ray, actors, timeout
        self.asked: dict[int, Any] = {}
        self.beats = dict.fromkeys(range(len(actors)), -1)
        self.changed = dict.fromkeys(range(len(actors)), time.monotonic())
        self.answered = dict.fromkeys(range(len(actors)), time.monotonic())
        self.next = time.monotonic() + 0.5

    def stalled(self, working: set[int]) -> dict[int, str]:
        """Those of the `working` processes that hold up the others, with the reason."""
        now = time.monotonic()
        if now < self.next:
            return {}
        self.next = now + min(1.0, self.timeout / 4)
        for rank in working:
            ref = self.asked.get(rank)
            if ref is not None and self.ray.wait([ref], timeout=0)[0]:
                self.asked.pop(rank)
                self.answered[rank] = now
                try:
                    beats = self.ray.get(ref)
                except self.ray.exceptions.RayError:
                    continue  # dead: its job tells
                if beats != self.beats[rank]:
                    self.beats[rank], self.changed[rank] = beats, now
            if rank not in self.asked:
                self.asked[rank] = self.actors[rank].ask.remote("beats")
        silent = [rank for rank in working if now - self.answered[rank] > self.timeout]
        if silent:
            return {
                rank: f"no answer for {self.timeout:g} s; the process hangs or is stopped" for rank in silent
            }
        if not working or any(now - self.changed[rank] <= self.timeout for rank in working):
            return {}
        # all stand still: the one that has done least keeps the others waiting
        least = min(self.beats[rank] for rank in working)
        why = f"no progress for {self.timeout:g} s"
        return {rank: why for rank in working if self.beats[rank] == least}
