"""Whether a tensor still holds what another held, told by where it came from; looked at where nothing tells.

A sampler hands over what a clip has constant as new tensors at every step. Whoever makes them notes what they were
made of, so that nobody has to compare their content. Notes count on version counters: what was written to since, and
tensors of inference mode, which have no counter, are compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Origin = tuple[tuple[Tensor, int], ...]
"""The tensors that one was made of, each with its version at that time."""


def version_of(tensor: Tensor) -> int | None:
    """Count of writes to a tensor; None for one of inference mode."""
    return None if tensor.is_inference() else tensor._version


def tracked(tensor: Tensor) -> Tensor:
    """The tensor, or a copy of it that counts its versions where it is one of inference mode."""
    if not tensor.is_inference():
        return tensor
    with torch.inference_mode(False), torch.no_grad():
        return tensor.clone()


def note_origin(tensor: Tensor, sources: Sequence[Tensor]) -> None:
    """Notes that a tensor was made of `sources` alone, in the one way that gives one of its shape, dtype and device."""
    versions = [version_of(source) for source in sources]
    if version_of(tensor) is not None and None not in versions:
        tensor._made_of = (tuple(zip(sources, versions, strict=True)), tensor._version)  # type: ignore[attr-defined]


def origin_of(tensor: Tensor) -> Origin | None:
    """Origin of a tensor; None where that was not noted, or it has been written to since."""
    origin, version = getattr(tensor, "_made_of", (None, None))
    return origin if version == version_of(tensor) else None


@dataclass(frozen=True)
class Seen:
    """A tensor as it was at one time."""

    tensor: Tensor
    version: int | None
    origin: Origin | None

    @classmethod
    def of(cls, tensor: Tensor) -> "Seen":
        return cls(tensor, version_of(tensor), origin_of(tensor))

    def is_held_by(self, other: Tensor, look: bool = True) -> bool:
        """Whether `other` is of the same shape, dtype and device, and holds what was seen. False without a `look` at
        the content where nothing else tells."""
        seen = self.tensor
        if (seen.shape, seen.dtype, seen.device) != (other.shape, other.dtype, other.device):
            return False
        if self.origin is not None and _is_same(self.origin, origin_of(other)):
            return True
        if self.version != version_of(seen):  # what was seen is no longer there to be compared
            return False
        return seen is other or (look and torch.equal(seen, other))


def _is_same(a: Origin, b: Origin | None) -> bool:
    return (
        b is not None
        and len(a) == len(b)
        and all(x is y and v == w for (x, v), (y, w) in zip(a, b, strict=True))
    )
