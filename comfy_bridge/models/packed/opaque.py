"""A weight with LoRAs on it as one operation, which torch.compile takes as it is and does not look into.

LoRAs are Python objects with a key and a strength, and a compiler that looks into them makes another graph for each.
"""

from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

_numbers = count()
_layers: WeakValueDictionary[int, Any] = WeakValueDictionary()


def number_of(layer: Any) -> Tensor:
    """A number that a layer is found by. As a tensor it is an input of a graph, which then serves other layers too."""
    number = next(_numbers)
    _layers[number] = layer
    return torch.tensor(number, device="cpu")  # layers are made on the meta device


@torch.library.custom_op("wan22::changed_weight", mutates_args=())
def changed_weight(number: Tensor, input: Tensor, shape: list[int]) -> Tensor:  # noqa: ARG001  shape: for compilers
    """The weight, of `shape`, that the layer of that number has for an `input`."""
    return _layers[int(number)].changed(input).contiguous()


@changed_weight.register_fake
def _(number: Tensor, input: Tensor, shape: list[int]) -> Tensor:  # noqa: ARG001
    return input.new_empty(shape)
