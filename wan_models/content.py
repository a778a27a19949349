"""Whether two tensors have the same content: by their origin where it is known, by comparing values where it is not.

A sampler passes the constant inputs of a clip as new tensors at every step. The code that makes them notes what they
were made of, so that their values need not be compared. Notes rely on torch's version counters: values are compared
where a tensor was written to since, and for tensors of inference mode, which have no counter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Origin = tuple[tuple[Tensor, int], ...]
"""The tensors that another was made of, each with its version at that time."""


def version_of(tensor: Tensor) -> int | None:
    """torch's count of in-place writes to a tensor; None for one of inference mode."""
    return None if tensor.is_inference() else tensor._version


def tracked(tensor: Tensor) -> Tensor:
    """The tensor itself; for one of inference mode, a copy that has a version counter."""
    if not tensor.is_inference():
        return tensor
    with torch.inference_mode(False), torch.no_grad():
        return tensor.clone()


def note_origin(tensor: Tensor, sources: Sequence[Tensor]) -> None:
    """Notes that a tensor's values follow from those of `sources` and from its own shape, dtype and device alone."""
    versions = [version_of(source) for source in sources]
    if version_of(tensor) is not None and None not in versions:
        tensor._made_of = (tuple(zip(sources, versions, strict=True)), tensor._version)  # type: ignore[attr-defined]


def origin_of(tensor: Tensor) -> Origin | None:
    """Origin of a tensor; None where it was not noted, or the tensor was written to since."""
    origin, version = getattr(tensor, "_made_of", (None, None))
    return origin if version == version_of(tensor) else None


@dataclass(frozen=True)
class Seen:
    """A tensor, and its version and origin at the time it was seen."""

    tensor: Tensor
    version: int | None
    origin: Origin | None

    @classmethod
    def of(cls, tensor: Tensor) -> "Seen":
        return cls(tensor, version_of(tensor), origin_of(tensor))

    def is_held_by(self, other: Tensor, look: bool = True) -> bool:
        """Whether `other` has the shape, dtype, device and values that the tensor had when it was seen.

        look: whether values are compared where neither origin nor identity decides; otherwise that counts as False,
        as does a tensor that was written to after it was seen."""
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
