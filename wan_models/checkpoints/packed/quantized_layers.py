"""Layers of a file whose notes say that their weights are stored in a certain format."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .notes import noted
from .packing import Dtypes, Packing, Read, Shapes


@dataclass(frozen=True)
class Layer:
    """One such layer, its note, and the tensors of the file."""

    name: str
    note: Mapping[str, Any]
    shapes: Shapes
    dtypes: Dtypes
    read_any: Read

    @property
    def weight(self) -> str:
        return f"{self.name}.weight"

    def has(self, leaf: str) -> bool:
        """Whether a tensor lies beside the weight."""
        return f"{self.name}.{leaf}" in self.shapes

    def read(self, leaf: str) -> Tensor:
        """A tensor beside the weight. Raises ValueError where there is none."""
        if not self.has(leaf):
            raise ValueError(f"{leaf} is missing")
        return self.read_any(f"{self.name}.{leaf}")

    def matrix(self, dtype: torch.dtype) -> tuple[int, int]:
        """Shape of the stored weight. Raises ValueError where it is no matrix of this dtype."""
        if not self.has("weight"):
            raise ValueError("it is missing")
        shape, stored = self.shapes[self.weight], self.dtypes[self.weight]
        if len(shape) != 2 or stored != dtype:
            raise ValueError(f"it has {list(shape)} values of {str(stored).removeprefix('torch.')}")
        return shape[0], shape[1]


def packings_of(
    kind: str, make: Callable[[Layer], Packing], shapes: Shapes, dtypes: Dtypes, read: Read
) -> dict[str, Packing]:
    """Packings, made by `make`, of the weights whose notes name the format `kind`.

    Raises ValueError, with the name of the weight, where `make` does or finds tensors of other sizes."""
    packings = {}
    for name, note in noted(shapes, dtypes, read).items():
        if note["format"] != kind:
            continue
        layer = Layer(name, note, shapes, dtypes, read)
        try:
            packings[layer.weight] = make(layer)
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{layer.weight} cannot be read as {kind}: {error}. Download it again") from None
    return packings
