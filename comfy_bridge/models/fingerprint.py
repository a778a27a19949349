"""Digests of whatever a graph can hold, the same in every process and different where a pixel may differ.

Tensors count by their values, objects by class and state, functions by code, defaults and closure. No address, `repr`
or id ever counts. What cannot be looked into is an error (`Unknown`), never passed over.
"""

import copyreg
import enum
import hashlib
import logging
import math
import re
import types
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, RLock
from typing import Any

import comfy.model_base
import comfy.model_patcher
import comfy.utils
import numpy as np
import torch
from torch import Tensor, nn

_PIECES, _PIECE = 16, 16 * 2**10
"""Large weights are looked at in `_PIECES` places of `_PIECE` bytes: another checkpoint differs in all of them."""

_CHUNK = 2**26
_NO_PIXEL = (
    torch.device, uuid.UUID, logging.Logger, type(Lock()), type(RLock()), comfy.utils.ProgressBar,
)  # fmt: skip
"""Places, names within this process, displays of progress."""
_NO_PIXEL_NAMES = {"server.PromptServer", "tqdm.std.tqdm", "tqdm.asyncio.tqdm_asyncio"}

# what the host writes while it samples or moves weights, by class; "" for all modules
_STATE = {
    "HookKeyframeGroup": {
        "_current_keyframe", "_current_used_steps", "_current_index", "_current_strength", "_curr_t", "curr_t",
    },
    "HookKeyframe": {"start_t"},
    "TransformerOptionsHook": {"_skip_adding"},
    "IndexListContextHandler": {"_step"},
    "WeightAdapterBase": {"loaded_keys"},
    "VAE": {"size", "memory_used_encode", "memory_used_decode"},
    "_MayBePacked": {"number"},
    "": {
        "training", "device", "weight_function", "bias_function", "comfy_cast_weights", "prev_comfy_cast_weights",
        "comfy_patched_weights", "comfy_force_cast_weights", "weight_lowvram_function", "bias_lowvram_function",
    },
}  # fmt: skip
_NO_BODY = {
    "__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__", "__static_attributes__", "_abc_impl",
}  # fmt: skip
_MODULE_PARTS = set(vars(nn.Module()))


class Unknown(ValueError):
    """Something of which nothing tells one run from another, where it was found, and what to do."""

    def __init__(self, value: Any, where: str) -> None:
        super().__init__(
            f"checkpoint_folder cannot be used here: {where} holds a {name_of(type(value))}, which cannot be compared "
            "with that of a later run, so finished clips might be taken for those of another one. Take the node out "
            "that made it, or leave checkpoint_folder empty"
        )


def name_of(kind: Any) -> str:
    """Module and name of a class or function; packs are imported under the path of their folder."""
    module = re.split(r"[/\\]", str(getattr(kind, "__module__", "")))[-1]
    name = getattr(kind, "__qualname__", None) or getattr(kind, "__name__", type(kind).__qualname__)
    return f"{module}.{name}"


def hash_of(*parts: bytes | str) -> bytes:
    """Digest of parts, kept apart."""
    hasher = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        hasher.update(len(data).to_bytes(8, "little"))
        hasher.update(data)
    return hasher.digest()


class Walk:
    """One walk through values; every part is digested once.

    module_names: modules that are named and not looked into, by id. of_patcher(patcher, walk, where): digest of a
    MODEL met on the way."""

    def __init__(
        self,
        module_names: Mapping[int, str] | None = None,
        of_patcher: Callable[[Any, "Walk", str], bytes] | None = None,
    ) -> None:
        self.module_names = dict(module_names or {})
        self._of_patcher = of_patcher
        self._whole: float = math.inf  # bytes up to which a tensor is looked at as a whole
        self._open: list[int] = []
        self._digests: dict[int, bytes] = {}
        self._alive: list[Any] = []  # so that no id is used twice

    @contextmanager
    def in_places(self, above: int) -> Iterator[None]:
        """Looks at tensors of more than `above` bytes in places only, which is enough for weights."""
        before, self._whole = self._whole, above
        try:
            yield
        finally:
            self._whole = before

    def of(self, value: Any, where: str) -> bytes:
        """Digest of a value, found under this name. Raises Unknown."""
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
            plain = value if isinstance(value, bytes) else repr(_bare(value))
            return hash_of(_plain_kind(value), plain)
        if isinstance(value, type) and "<locals>" not in value.__qualname__:
            return hash_of("class", name_of(value))
        key = id(value)
        if key in self.module_names:
            return hash_of("module", self.module_names[key])
        if key in self._digests:
            return self._digests[key]
        if key in self._open:
            return hash_of("again", str(len(self._open) - self._open.index(key)))
        self._open.append(key)
        try:
            digest = self._look(value, where)
        except RecursionError:
            raise Unknown(value, where) from None
        finally:
            self._open.pop()
        self._digests[key] = digest
        self._alive.append(value)
        return digest

    def keep(self, value: Any, names: Mapping[int, str]) -> None:
        """Adds names of modules, which live as long as `value`, to `module_names`."""
        self._alive.append(value)
        self.module_names = {**names, **self.module_names}

    def look_into(self, value: Any, where: str) -> bytes:
        """Digest of a module by what is in it, though it be among `module_names`."""
        return self._module(value, where) if isinstance(value, nn.Module) else self.of(value, where)

    def each(self, kind: str, values: Iterable[tuple[str, Any]]) -> bytes:
        """Digest of values in this order, each under a name for messages."""
        return hash_of(kind, *(self.of(value, where) for where, value in values))

    def _look(self, value: Any, where: str) -> bytes:
        if isinstance(value, Tensor):
            return self._tensor(value, where)
        if isinstance(value, nn.Module):
            return self._module(value, where)
        if isinstance(value, comfy.model_patcher.ModelPatcher) and self._of_patcher is not None:
            return self._of_patcher(value, self, where)
        if isinstance(value, (np.ndarray, np.generic)):
            if value.dtype.hasobject:
                return self.each("array", [(where, value.tolist())])
            return hash_of("array", value.dtype.str, repr(value.shape), np.ascontiguousarray(value).tobytes())
        if isinstance(value, _NO_PIXEL) or name_of(type(value)) in _NO_PIXEL_NAMES:
            return hash_of("no pixel")
        if isinstance(value, (torch.dtype, torch.layout, torch.memory_format)):
            return hash_of("torch", str(value))
        if isinstance(value, torch.Generator):
            return self.each("generator", [(where, value.get_state())])
        if isinstance(value, types.ModuleType):
            return hash_of("python module", value.__name__)
        if isinstance(value, Path):
            return hash_of("path", str(value))
        if isinstance(value, enum.Enum):
            return hash_of("enum", name_of(type(value)), value.name)
        if isinstance(value, weakref.ref):
            return self.each("weak", [(where, value())])
        if isinstance(value, (slice, range)):
            return self.each(type(value).__name__, [(where, [value.start, value.stop, value.step])])
        if isinstance(value, types.CodeType):
            return self._code(value, where)
        if type(value) in (list, tuple, torch.Size):
            return self.each("list", ((f"{where}[{i}]", item) for i, item in enumerate(value)))
        if type(value) in (set, frozenset):
            return hash_of("set", *sorted(self.of(item, where) for item in value))
        if type(value) in (dict, types.MappingProxyType):
            return self._mapping(value.items(), where)
        if isinstance(value, (types.BuiltinFunctionType, types.MethodWrapperType)):
            of = value.__self__
            return self.each(f"builtin {value.__name__}", [(where, of)])
        if isinstance(value, types.MethodType):
            return self.each("method", [(where, value.__func__), (f"{where}.__self__", value.__self__)])
        if isinstance(value, types.FunctionType):
            return self._function(value, where)
        if isinstance(value, type):
            return self._local_class(value, where)
        if isinstance(value, (staticmethod, classmethod)):
            return self.each("static", [(where, value.__func__)])
        if isinstance(value, property):
            return self.each("property", [(where, x) for x in (value.fget, value.fset, value.fdel)])
        return self._object(value, where)

    def _mapping(self, items: Iterable[tuple[Any, Any]], where: str) -> bytes:
        # in their order: wrappers are called in it
        return hash_of("dict", *(self.of(k, where) + self.of(v, f"{where}.{_shown(k)}") for k, v in items))

    def _tensor(self, value: Tensor, where: str) -> bytes:
        head = (str(value.dtype), repr(tuple(value.shape)))
        if hasattr(value, "__tensor_flatten__"):  # the host's quantised tensors: several behind one
            names, context = value.__tensor_flatten__()
            inner = [(where, getattr(value, name)) for name in names]
            return hash_of("tensor", *head, self.each("inner", [*inner, (where, context)]))
        if value.is_meta:
            return hash_of("meta", *head)
        if value.layout != torch.strided:
            return self.each("tensor", [(where, value.to_dense()), (where, value.layout)])
        # other packs' kinds (packed GGUF) change what shape and detach say: the values, as they lie in memory
        flat = value.detach().as_subclass(Tensor).resolve_conj().resolve_neg().contiguous().reshape(-1)
        if flat.dtype.is_complex:
            flat = torch.view_as_real(flat).reshape(-1)
        return hash_of("tensor", *head, _bytes(flat.view(torch.uint8), self._whole))

    def _module(self, value: nn.Module, where: str) -> bytes:
        if isinstance(original := getattr(value, "_orig_mod", None), nn.Module):  # torch.compile's
            return self.each("compiled", [(where, original)])
        tensors = [*value.named_parameters(), *value.named_buffers()]
        weights = self.each("weights", [(where, [name, tensor]) for name, tensor in tensors])
        parts = [weights]
        for name, module in value.named_modules():
            parts.append(hash_of(name, *(name_of(kind) for kind in type(module).__mro__)))
            if isinstance(value, comfy.model_base.BaseModel):
                continue
            skipped = _MODULE_PARTS | _state_of(module)
            rest = {key: vars(module)[key] for key in sorted(vars(module)) if key not in skipped}
            parts.append(self._mapping(rest.items(), f"{where}.{name}" if name else where))
        return hash_of("module", *parts)

    def _function(self, value: types.FunctionType, where: str) -> bytes:
        where = f"{where} ({name_of(value)})"
        original = getattr(value, "_torchdynamo_orig_callable", None)
        if original is not None and original is not value:
            return self.each("compiled", [(where, original)])
        cells = []
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                cells.append((f"{where}, its {name},", cell.cell_contents))
            except ValueError:  # not bound yet
                cells.append((where, ()))
        rest = [value.__defaults__, value.__kwdefaults__, value.__dict__ or None]
        return hash_of(
            name_of(value),
            self._code(value.__code__, where),
            self.each("", [*cells, *((where, x) for x in rest)]),
        )

    def _code(self, code: types.CodeType, where: str) -> bytes:
        names = repr(
            (code.co_names, code.co_freevars, code.co_argcount, code.co_kwonlyargcount, code.co_flags)
        )
        return hash_of("code", code.co_code, names, self.each("", [(where, x) for x in code.co_consts]))

    def _local_class(self, value: type, where: str) -> bytes:
        """A class that a function has made: its methods may close over values."""
        body = {k: v for k, v in vars(value).items() if k not in _NO_BODY and not _is_descriptor(v)}
        return hash_of(
            "class", name_of(value), self.each("", [(where, base) for base in value.__bases__]),
            self._mapping(body.items(), where),
        )  # fmt: skip

    def _object(self, value: Any, where: str) -> bytes:
        """Any other object, as `copy` and `pickle` would take it apart."""
        try:
            reducer = copyreg.dispatch_table.get(type(value))
            parts = reducer(value) if reducer else value.__reduce_ex__(2)
        except Exception:
            raise Unknown(value, where) from None
        if isinstance(parts, str):  # a global by its name; a cache around a function has that in it
            return self.each(f"global {parts}", [(where, getattr(value, "__wrapped__", None))])
        make, arguments, state, items, pairs = (*parts, None, None, None)[:5]
        if isinstance(state, tuple) and len(state) == 2:  # beside __slots__
            state = {**(state[0] or {}), **(state[1] or {})}
        if isinstance(state, dict):
            skipped = _state_of(value)
            state = [(key, state[key]) for key in sorted(state, key=str) if key not in skipped]
            state = ("state", self._mapping(state, where))
        contents = [make, arguments, state, list(items or ()), list(pairs or ())]
        return hash_of("object", name_of(type(value)), self.each("", [(where, part) for part in contents]))


def _bytes(flat: Tensor, whole: float) -> bytes:
    """A digest of bytes [n], or of those at evenly spaced places where there are more than `whole`."""
    hasher, size = hashlib.sha256(), flat.numel()
    if size > whole:
        step = (size - _PIECE) // (_PIECES - 1)
        parts = [flat[i * step : i * step + _PIECE] for i in range(_PIECES)]
    else:
        parts = list(flat.split(_CHUNK)) if size else []
    for part in parts:
        hasher.update(part.cpu().numpy().data)
    return hasher.digest()


def _bare(value: Any) -> Any:
    """A plain value without what a subclass adds to how it is written."""
    if isinstance(value, str):
        return str.__str__(value)
    kinds: tuple[type, ...] = (bool, int, float, complex)
    return next((kind(value) for kind in kinds if isinstance(value, kind)), value)


def _plain_kind(value: Any) -> str:
    kind = type(value)
    return (
        f"{kind.__name__} {value.name}" if isinstance(value, enum.Enum) else _bare(value).__class__.__name__
    )


def _state_of(value: Any) -> set[str]:
    names = {kind.__name__ for kind in type(value).__mro__} | (
        {""} if isinstance(value, nn.Module) else set()
    )
    return set().union(*(_STATE.get(name, ()) for name in names))


def _is_descriptor(value: Any) -> bool:
    return isinstance(value, (types.GetSetDescriptorType, types.MemberDescriptorType))


def _shown(key: Any) -> str:
    return key if isinstance(key, str) else repr(key) if isinstance(key, (int, tuple)) else type(key).__name__
