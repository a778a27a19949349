"""A packed weight as everyone but its layer sees it: shape, dtype and values of the weight itself."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ....wan_models.checkpoints.packed.packing import Packing

_DETACH = torch.ops.aten.detach.default
_EMPTY_LIKE = torch.ops.aten.empty_like.default
_TO = torch.ops.aten._to_copy.default
_COPY = torch.ops.aten.copy_.default


class Unpacked(torch.Tensor):
    """A tensor without memory of its own: it is unpacked, and changed by `changes`, whenever its values are read.

    So a state dict of a packed model takes no memory until a weight of it is used, and then that of one weight.
    Reading in another dtype (merging in float32) unpacks to that dtype, with no rounding in between. Writing to it
    raises RuntimeError."""

    raw: Tensor
    packing: Packing
    changes: tuple[Callable[[Tensor], Tensor], ...]
    _held: Tensor | None

    @staticmethod
    def __new__(
        cls: type, raw: Tensor, packing: Packing, dtype: torch.dtype, changes: tuple[Callable, ...] = ()
    ) -> "Unpacked":
        out: Any = torch.Tensor._make_wrapper_subclass(cls, packing.shape, dtype=dtype, device=raw.device)
        out.raw, out.packing, out.changes, out._held = raw, packing, changes, None
        return out

    def plain(self, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
        """The values as an ordinary tensor, unpacked on the device that they are wanted on."""
        dtype = dtype or self.dtype
        raw = self.raw.detach().to(device or self.device)
        # changes are made in float32, and bytes or whole numbers are made of that too
        direct = not self.changes and dtype.is_floating_point and dtype.itemsize > 1
        weight = self.packing.unpack(raw, dtype if direct else torch.float32).view(self.packing.shape)
        for change in self.changes:
            weight = change(weight)
        return weight.to(dtype)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable and isinstance(args[0], cls):
            raise RuntimeError("a packed weight cannot be written to: take a clone() of it")
        # in inference mode calls such as to() come whole, elsewhere as what they are made of
        if (out := func.decompose(*args, **kwargs)) is not NotImplemented:
            return out
        if func is _DETACH:
            return cls(args[0].raw, args[0].packing, args[0].dtype, args[0].changes)
        if func is _EMPTY_LIKE:
            options = {name: kwargs.get(name) or getattr(args[0], name) for name in ("dtype", "device")}
            return torch.empty(args[0].shape, **options)
        if func is _TO:
            return args[0].plain(kwargs.get("dtype"), kwargs.get("device"))
        if func is _COPY and args[1].shape == args[0].shape:
            return func(args[0], args[1].plain(args[0].dtype, args[0].device), *args[2:], **kwargs)
        return func(*tree_map(_plain, args), **tree_map(_plain, kwargs))

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Unpacked({self.packing.name}, shape={tuple(self.shape)}, dtype={self.dtype})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.plain().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict) -> Tensor:
        return self.plain()

    def numpy(self, **options: Any) -> Any:
        return self.plain().numpy(**options)

    def tolist(self) -> Any:
        return self.plain().tolist()

    def data_ptr(self) -> int:
        """Address of the values, which stay unpacked from then on: for writers of files, who keep all until the end."""
        if self._held is None:
            self._held = self.plain()
        return self._held.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        return torch.UntypedStorage(0)  # shared with nobody

    # hosts count memory as `nbytes`, older ones as nelement() * element_size(): that of the packed weight

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        return self.packing.nbytes

    def nelement(self) -> int:
        return -(-self.packing.nbytes // self.element_size())


def _plain(value: Any) -> Any:
    return value.plain() if isinstance(value, Unpacked) else value
