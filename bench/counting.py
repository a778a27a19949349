"""Counts what tensor operations cost without running them, on tensors of the meta device: these have no values.

One call to torch is taken for one kernel, as attention, norms and products are on a GPU: it reads its inputs once and
writes its outputs once. So is a function that a compiler makes one kernel of, `Counter.as_one`. Views cost nothing. In
inference mode, torch hands its calls over before it takes them apart.
"""

import math
import weakref
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

_ATTENTION = ("scaled_dot_product_attention",)
_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "convolution", "mkldnn_convolution")
_PRODUCTS = ("linear", "matmul", "mm", "bmm")


def empty(*shape, dtype=torch.bfloat16):
    """A tensor without values."""
    return torch.empty(shape, dtype=dtype, device="meta")


@dataclass
class Cost:
    """flops: of products, convolutions and attention. moved: bytes read and written. peak: most bytes alive at a time
    of tensors that were made while counting; weights and inputs are not among them."""

    flops: int = 0
    moved: int = 0
    peak: int = 0


class Counter(TorchDispatchMode):
    """Counts the operations inside a `with` block into `cost`."""

    def __init__(self):
        super().__init__()
        self.cost, self.live, self.known = Cost(), 0, set()
        self._results: dict[tuple, tuple] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::").lstrip("_")
        read = _tensors((args, kwargs))
        before = {_storage_id(t) for t in read}
        out = self._call(func, name, args, kwargs, before)
        results = _tensors(out)
        fresh = [t for t in results if _storage_id(t) not in before]
        for tensor in fresh:
            self._track(tensor)
        if func._schema.is_mutable:
            self.cost.moved += sum(map(_bytes, [*read, *_written(func, args, kwargs)]))
        elif fresh and "empty" not in func.name():
            self.cost.moved += sum(map(_bytes, [*read, *fresh]))
        if name in _CONVOLUTIONS and not _as_convolutions_take(args[0]):
            self.cost.moved += 2 * _bytes(args[0])  # copied first
            self.cost.peak = max(self.cost.peak, self.live + _bytes(args[0]))
        self.cost.flops += flops_of(name, args, out)
        return out

    def as_one(self, function):
        """`function` as one kernel: what it is given it reads once, and what it gives it writes once."""

        def run(*args):
            read = _tensors(args)
            read += [p for module in args if isinstance(module, nn.Module) for p in module.parameters()]
            with _disable_current_modes():
                out = function(*args)
            self._track(out)
            self.cost.moved += sum(map(_bytes, [*read, out]))
            return out

        return run

    def as_before(self, layer):
        """`layer` of a tensor and a cache, not run again once two calls in a row came at the same cost: the pieces of a
        video are alike as soon as there are frames before them."""
        calls = [None, None]

        def run(x, cache):
            given, start, whole = (_described(x), len(cache)), self.live, self.cost
            is_known = calls[0] is not None and calls[0] == calls[1] and calls[0][0] == given
            if is_known:
                _, cost, (shape, stride, dtype) = calls[0]
                out = torch.empty_strided(shape, stride, dtype=dtype, device="meta")
            else:
                self.cost = cost = Cost(peak=start)
                out = layer(x, cache)
                cost.peak -= start
                calls[:] = calls[1], (given, cost, (out.shape, out.stride(), out.dtype))
                if self.live - start != out.nbytes:  # it keeps more for the next call than it was left
                    calls[1] = None
            peak = max(whole.peak, self.cost.peak, start + cost.peak)
            self.cost = Cost(whole.flops + cost.flops, whole.moved + cost.moved, peak)
            return out

        return run

    def _call(self, func, name, args, kwargs, before):
        """Result of an operation. Operations come again and again, and torch takes long to find the shapes of what
        they give: results that are new tensors are made from those of the first time."""
        if name in _ATTENTION:  # whose kernels give their result in the layout of the queries
            return torch.empty_like(args[0])
        key = (func, _described(args), _described(tuple(kwargs.items())))
        if key in self._results:
            shape, stride, dtype = self._results[key]
            return torch.empty_strided(shape, stride, dtype=dtype, device="meta")
        out = func(*args, **kwargs)
        is_new = isinstance(out, Tensor) and out.is_meta and _storage_id(out) not in before
        if (
            is_new and out.untyped_storage().nbytes() == out.numel() * out.element_size()
        ):  # no part of a larger one
            self._results[key] = out.shape, out.stride(), out.dtype
        return out

    def _track(self, tensor):
        storage, size = tensor.untyped_storage(), tensor.untyped_storage().nbytes()
        if _storage_id(tensor) in self.known:
            return
        self.known.add(_storage_id(tensor))
        self.live += size
        self.cost.peak = max(self.cost.peak, self.live)
        weakref.finalize(storage, self._free, _storage_id(tensor), size)

    def _free(self, key, size):
        self.known.discard(key)
        self.live -= size


def _tensors(tree):
    """The tensors among arguments or results, and in lists of them."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, (list, tuple)):
        return []
    return [tensor for branch in tree for tensor in _tensors(branch)]


def _described(value):
    """All of arguments that the shape of a result may depend on, to look it up by."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device
    if isinstance(value, (list, tuple)):
        return tuple(map(_described, value))
    return type(value), value


def _written(func, args, kwargs):
    """The tensors among the arguments that the operation changes."""
    positional = zip(func._schema.arguments, args, strict=False)
    named = {a.name: a for a in func._schema.arguments}
    pairs = [*positional, *((named[name], value) for name, value in kwargs.items())]
    return [t for a, t in pairs if a.alias_info and a.alias_info.is_write and isinstance(t, Tensor)]


def _storage_id(tensor):
    return tensor.untyped_storage()._cdata


def _bytes(tensor):
    """Bytes of a tensor's values, those that are repeated by a stride of zero counted once."""
    sizes = (n for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return math.prod(sizes) * tensor.element_size() if tensor.numel() else 0


def _as_convolutions_take(x):
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim(), torch.contiguous_format)
    return x.is_contiguous() or x.is_contiguous(memory_format=last)


def flops_of(name, args, out):
    """FLOPs of the operation of that name, without "aten::", if it is a product, a convolution or attention; else 0."""
    if name in _ATTENTION:
        q, k, v = args[:3]
        return 2 * math.prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1])
    if name in _CONVOLUTIONS:
        return 2 * out.numel() * math.prod(args[1].shape[1:])
    if name in _PRODUCTS:
        return 2 * out.numel() * args[0].shape[-1]
    if name in ("addmm", "baddbmm"):
        return 2 * out.numel() * args[1].shape[-1]
    return 0
