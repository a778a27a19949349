"""Tensors that many steps have in common (text, images): sent to all processes once, and kept there under a name."""

from torch import Tensor

from ..content import Seen
from .jobs import Jobs

_KEPT = 2
"""Tensors of each input that are kept: with and without guidance."""


class KeptTensors:
    """Record of the tensors that every process keeps: what was sent to them, even where a Cancel ended the wait
    for it."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self.entries: dict[str, list[tuple[Seen, str]]] = {}
        """By the input: tensors as they came last, each with the name that the processes keep it under."""
        self.sent = 0
        """Number sent so far."""

    def keep(self, name: str, tensor: Tensor) -> str:
        """Name under which all processes have a tensor of this content, for the input `name`; sent where they do
        not."""
        entries = self.entries.setdefault(name, [])
        for look in (False, True):  # content is compared where none is known to be the one
            for i, (seen, key) in enumerate(entries):
                if seen.is_held_by(tensor, look):
                    entries[i] = (Seen.of(tensor), key)  # as it will come at the next step
                    return key
        self.sent += 1
        key, seen = f"{name} {self.sent}", Seen.of(tensor)
        self._jobs.send("keep", key, self._jobs.put(tensor))
        entries.insert(0, (seen, key))
        self._jobs.receive("keep")
        while len(entries) > _KEPT:
            self._jobs.send("forget", [entries[-1][1]])
            entries.pop()
            self._jobs.receive("forget")
        return key
