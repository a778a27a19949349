"""The program in a PyTorch file, run over stand-ins: which tensors it names, and where their values are stored.

A pickle is a program: it may call anything, ask for any amount of memory, and build things that hold themselves. Here
nothing of it is called: its few operations are read by `pickletools` and done on plain dicts, lists and tuples, and
what would rebuild a tensor notes its storage, offset and shape. What a program may take is bounded.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import torch

MAX_BYTES = 64 * 2**20
"""Limit of a program; that of a model of a thousand tensors has 300 KB."""
_MAX_STEPS = 2_000_000


class RefusedError(ValueError):
    """A program that would have to be run: it names something other than tensors and plain containers."""


@dataclass(frozen=True)
class Storage:
    """Values in the file, named by `key`; `count` of them as the program says, of `dtype`."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True)
class StoredTensor:
    """A view of a storage: where it begins, shape and strides, in values of `dtype`."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


OTHER = object()
"""Anything that is no tensor, container, number or text."""


def run(program: BytesIO) -> Any:
    """Result of a program, from where the stream stands: dicts with texts for keys, lists, tuples, plain values,
    `StoredTensor`s, and `OTHER`.

    Raises RefusedError where code would have to run, and other kinds of ValueError where it is damaged."""
    machine = _Machine()
    try:
        for operation, argument, _ in pickletools.genops(program):
            machine.spend(1)
            if operation.name == "STOP":
                return machine.stack.pop()
            machine.do(operation.name, argument)
    except (LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"its list of tensors is broken: {type(error).__name__}") from None
    raise ValueError("its list of tensors has no end")


def _tensor(storage: Storage, offset: int, shape: Any, strides: Any, *_: Any) -> StoredTensor:
    return _tensor_of(storage, storage.dtype, offset, shape, strides)


def _tensor_v3(storage: Storage, offset: int, shape: Any, strides: Any, *more: Any) -> StoredTensor:
    _requires_grad, _hooks, dtype, *_ = more  # for dtypes that have no class of storages
    return _tensor_of(storage, dtype, offset, shape, strides)


def _tensor_of(storage: Storage, dtype: torch.dtype, offset: int, shape: Any, strides: Any) -> StoredTensor:
    if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype):
        raise TypeError("no storage")
    whole = [offset, *shape, *strides]
    if len(shape) != len(strides) or not all(type(number) is int and 0 <= number < 2**63 for number in whole):
        raise ValueError(f"a tensor of the storage {storage.key[:80]!r} has a broken shape")
    return StoredTensor(storage, dtype, offset, tuple(shape), tuple(strides))


def _typed(rebuild: Any, _kind: Any, arguments: Any, *_: Any) -> Any:
    return rebuild(*arguments) if rebuild in _REBUILD.values() else OTHER


def _mapping(items: Any = (), *_: Any) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in items.items() if isinstance(items, dict) else items:
        _put(out, key, value)
    return out


def _other(*_: Any) -> Any:
    return OTHER


_REBUILD: dict[str, Callable[..., Any]] = {
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_tensor_v3": _tensor_v3,
    "torch._utils _rebuild_parameter": lambda data, *_: data,
    "torch._utils _rebuild_parameter_with_state": lambda data, *_: data,
    "torch.nn.parameter Parameter": lambda data=OTHER, *_: data,
    "torch._tensor _rebuild_from_type_v2": _typed,
    "collections OrderedDict": _mapping,
    "collections defaultdict": lambda _default=None, *items: _mapping(*items),
    "collections Counter": _mapping,
    "torch Size": lambda sizes=(), *_: tuple(sizes),
}
# harmless, and of no use here
_OTHERS = {
    "_codecs encode", "torch device", "torch Tensor", "torch._tensor Tensor", "torch.nn.parameter Buffer",
    "torch.serialization _get_layout",
    *(f"{module} {name}" for module in ("builtins", "__builtin__")
      for name in ("set", "frozenset", "bytearray", "complex", "list", "dict")),
    *(f"torch._utils _rebuild_{name}" for name in (
        "qtensor", "sparse_tensor", "meta_tensor_no_storage", "nested_tensor", "wrapper_subclass",
        "device_tensor_from_numpy", "device_tensor_from_cpu_tensor")),
}  # fmt: skip
_DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
_STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64, "ComplexDoubleStorage": torch.complex128, "UntypedStorage": torch.uint8,
}  # fmt: skip


@dataclass(frozen=True)
class _StorageClass:
    dtype: torch.dtype


def _named(name: str) -> Any:
    """Stand-in for a global, "module name". Raises RefusedError on all that is not known."""
    module, _, leaf = name.partition(" ")
    if name in _REBUILD:
        return _REBUILD[name]
    if name in _OTHERS:
        return _other
    if module == "torch" and leaf in _DTYPES:
        return _DTYPES[leaf]
    if module in ("torch", "torch.cuda", "torch.storage") and leaf in _STORAGES:
        return _StorageClass(_STORAGES[leaf])
    if module in ("torch", "torch.cuda") and leaf.endswith("Storage"):
        return OTHER  # of quantised tensors, which are none here
    raise RefusedError(name)


def _put(mapping: Any, key: Any, value: Any) -> None:
    # Names are texts. Other keys could be made to take any time to compare.
    if type(key) in (str, int):
        mapping[str(key)] = value


_VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "EMPTY_SET": OTHER}
_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_MARK = object()


class _Machine:
    """The stack and the memory of a running program; `on_` methods are its operations."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}
        self.left = _MAX_STEPS

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise ValueError("its list of tensors is too long")

    def do(self, name: str, argument: Any) -> None:
        """One operation, by the name that `pickletools` gives it."""
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _BYTES:
            self.stack.append(OTHER)
        elif (operation := getattr(self, f"on_{name.lower()}", None)) is not None:
            operation(argument)
        else:
            raise RefusedError(name)

    def _items(self) -> list[Any]:
        """Pops all above the last mark, and the mark."""
        items = []
        while (top := self.stack.pop()) is not _MARK:
            items.append(top)
        return items[::-1]

    def on_proto(self, _version: int) -> None:
        pass

    def on_frame(self, _length: int) -> None:
        pass

    def on_mark(self, _: None) -> None:
        self.stack.append(_MARK)

    def on_pop(self, _: None) -> None:
        self.stack.pop()

    def on_pop_mark(self, _: None) -> None:
        self._items()

    def on_dup(self, _: None) -> None:
        self.stack.append(self.stack[-1])

    def on_binput(self, index: int) -> None:
        self.memory[index] = self.stack[-1]

    on_put = on_long_binput = on_binput

    def on_memoize(self, _: None) -> None:
        self.memory[len(self.memory)] = self.stack[-1]

    def on_binget(self, index: int) -> None:
        self.stack.append(self.memory[index])

    on_get = on_long_binget = on_binget

    def on_empty_list(self, _: None) -> None:
        self.stack.append([])

    def on_empty_dict(self, _: None) -> None:
        self.stack.append({})

    def on_list(self, _: None) -> None:
        self.stack.append(self._items())

    def on_tuple(self, _: None) -> None:
        self.stack.append((*self._items(),))

    def on_frozenset(self, _: None) -> None:
        self._items()
        self.stack.append(OTHER)

    def on_tuple1(self, _: None) -> None:
        self.stack[-1:] = [(self.stack[-1],)]

    def on_tuple2(self, _: None) -> None:
        self.stack[-2:] = [(self.stack[-2], self.stack[-1])]

    def on_tuple3(self, _: None) -> None:
        self.stack[-3:] = [(self.stack[-3], self.stack[-2], self.stack[-1])]

    def on_append(self, _: None) -> None:
        item = self.stack.pop()
        self.stack[-1].append(item)

    def on_appends(self, _: None) -> None:
        items = self._items()
        if self.stack[-1] is not OTHER:
            self.stack[-1].extend(items)

    def on_additems(self, _: None) -> None:
        self._items()

    def on_dict(self, _: None) -> None:
        items = self._items()
        self.stack.append({})
        self._set(items)

    def on_setitem(self, _: None) -> None:
        self._set([self.stack.pop(-2), self.stack.pop()])

    def on_setitems(self, _: None) -> None:
        self._set(self._items())

    def _set(self, items: "list[Any]") -> None:
        if self.stack[-1] is not OTHER:
            for key, value in zip(items[::2], items[1::2], strict=True):
                _put(self.stack[-1], key, value)

    def on_global(self, name: str) -> None:
        self.stack.append(_named(name))

    def on_stack_global(self, _: None) -> None:
        leaf, module = self.stack.pop(), self.stack.pop()
        self.spend(len(module) + len(leaf))
        self.stack.append(_named(f"{module} {leaf}"))

    def on_reduce(self, _: None) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        if not callable(called):
            raise RefusedError("a call of a value")
        # what is handed over may be large, and handed over again and again
        self.spend(
            sum(len(part) for part in (arguments, *arguments) if isinstance(part, (tuple, list, dict)))
        )
        self.stack.append(called(*arguments))

    on_newobj = on_reduce

    def on_build(self, _: None) -> None:
        self.stack.pop()  # attributes, such as the versions of modules in a state dict

    def on_binpersid(self, _: None) -> None:
        word, kind, key, _device, count, *view = self.stack.pop()
        if word != "storage" or any(part is not None for part in view):
            raise RefusedError("something other than a storage beside the program")
        if kind is OTHER:
            self.stack.append(OTHER)
            return
        if not (isinstance(kind, _StorageClass) and type(key) is str and type(count) is int and count >= 0):
            raise ValueError(f"its storage {str(key)[:80]!r} is broken")
        self.stack.append(Storage(key, kind.dtype, count))
