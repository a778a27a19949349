"""Time of the products of a computation alone: the same matrix products, convolutions and attention calls, and
nothing in between. What is left beside them is all that could be won without another way to compute them."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from bench.counting import flops_of


class _Recorder(TorchDispatchMode):
    """Keeps which products are computed inside a `with` block, of tensors of which shape."""

    def __init__(self):
        super().__init__()
        self.calls, self.flops = [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::").lstrip("_")
        if count := flops_of(name, args, out):
            self.calls.append((func, tree_map_only(torch.Tensor, _like, (args, kwargs or {}))))
            self.flops += count
        return out


def _like(tensor):
    """A tensor without values of the same shape and layout."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def products(run):
    """(what computes the products of `run` alone, their FLOPs); to be used in inference mode."""
    with _Recorder() as seen:
        run()
    tensors = {}

    def values(like):
        key = like.shape, like.stride(), like.dtype
        if key not in tensors:
            tensors[key] = torch.empty_like(like, device="cpu").uniform_(-1, 1)
        return tensors[key]

    calls = [(func, tree_map_only(torch.Tensor, values, arguments)) for func, arguments in seen.calls]

    def alone():
        for func, (args, kwargs) in calls:
            func(*args, **kwargs)

    return alone, seen.flops


def rates(flops, alone, ours):
    """A line on the seconds of products alone, and of ours with all that is in between."""
    fast, slow = (flops / seconds / 1e9 for seconds in (alone, ours))
    return f"ours computes {slow:.0f} GFLOP/s; its products alone {fast:.0f}, {alone * 1e3:.0f} ms"
