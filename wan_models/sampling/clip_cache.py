"""Cache of a clip's conditions (see `WanModel.prepare`), kept beside the model over the steps of the clip.

A sampler hands over a clip's inputs anew at every step; whether they are those of the step before is told by where they
came from, and by their content where nothing else tells (see `content`).
"""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from torch import Tensor

from ..content import Seen
from ..dit.tokens import Conditions, Inputs


class ClipCache:
    """The conditions of the last clips that a model was given, so many of them."""

    def __init__(self, clips: int) -> None:
        self._clips = clips
        self._entries: list[tuple[tuple, Conditions | None]] = []

    def conditions(
        self, inputs: Inputs, size: tuple[int, ...], prepare: Callable[[], Conditions | None]
    ) -> Conditions | None:
        """prepare(), or what that gave before for inputs and a size equal to these."""
        key = (size, *(getattr(inputs, field.name) for field in fields(inputs)))
        hit = self._find(key)
        if hit is None:
            del self._entries[self._clips - 1 :]  # what goes makes room first
        conditions = prepare() if hit is None else hit[1]
        others = [entry for entry in self._entries if entry is not hit]
        # as they are now, in the place of how they were found
        seen = tuple(Seen.of(value) if isinstance(value, Tensor) else value for value in key)
        self._entries = [(seen, conditions), *others][: self._clips]
        return conditions

    def _find(self, key: tuple) -> tuple[tuple, Conditions | None] | None:
        for look in (False, True):  # content is compared where none is known to be the one
            for entry in self._entries:
                if all(_same(seen, value, look) for seen, value in zip(entry[0], key, strict=True)):
                    return entry
        return None

    def clear(self) -> None:
        self._entries = []


def _same(seen: Any, value: Any, look: bool) -> bool:
    if isinstance(seen, Seen):
        return isinstance(value, Tensor) and seen.is_held_by(value, look)
    return seen is value or (type(seen) is type(value) and seen == value)
