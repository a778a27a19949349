"""Weights that are stored packed: what a layer needs to know to use them one forward at a time.

A `Packing` goes with the raw tensor of one weight. Layers that understand it keep the raw tensor and unpack it
when they run; everything else is unpacked while loading.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Packing(Protocol):
    """Storage of one weight: `name` of the format, `shape` of the weight itself, `nbytes` that it takes."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def nbytes(self) -> int: ...

    def unpack(self, raw: Tensor, dtype: torch.dtype, rows: Tensor | None = None) -> Tensor:
        """The raw tensor -> values of `dtype` on the same device. With `rows`, numbers of rows of the weight, `raw`
        holds only those, in that order."""
        ...


Shapes = Mapping[str, tuple[int, ...]]
Dtypes = Mapping[str, torch.dtype]
Read = Callable[[str], Tensor]


@dataclass(frozen=True)
class Scheme:
    """A way to store weights with other tensors beside them, in files whose own format knows nothing of it.

    find(shapes, dtypes, read) gives the packings of the weights that are stored so, by name. side_tensors: last parts
    of the names of what lies beside them. formats: what notes named comfy_quant call it. pack(weight, format) gives a
    weight [rows, columns] as it is stored, its own tensor as "weight" and what lies beside it, note included; raises
    ValueError where the format has no place for a weight of that size."""

    find: Callable[[Shapes, Dtypes, Read], Mapping[str, Packing]]
    side_tensors: tuple[str, ...]
    formats: tuple[str, ...]
    pack: Callable[[Tensor, str], Mapping[str, Tensor]] | None = None
