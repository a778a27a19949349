"""Patches of a MODEL for models that the workers run: weight patches as plain data, and all others carried over."""

from collections.abc import Mapping
from typing import Any

import comfy.weight_adapter
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...wan_models.checkpoints.patches import Patch, Patches
from ..models.lora import DoRA
from ..models.packed.low_rank import LowRank

_PREFIX = "diffusion_model."
# what a clone of the host's patcher takes over, as far as this host has it
_CARRIED = (
    "patches", "patches_uuid", "object_patches", "model_options", "attachments", "callbacks",
    "wrappers", "injections", "hook_patches", "forced_hooks", "hook_mode",
)  # fmt: skip
# the host's adapters: kind of `Patch`, and the names of its parts in the order of the adapter's weights. Some more
# weights of it change what the others mean, which workers do not know of: these must be None
_LOW_RANK = "lora", ("up", "down", "alpha", "mid"), ("dora_scale", "reshape")
_ADAPTERS: dict[type, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    comfy.weight_adapter.LoRAAdapter: _LOW_RANK,
    LowRank: _LOW_RANK,
    DoRA: ("lora", ("up", "down", "alpha", "mid", "dora_scale"), ("reshape",)),
    comfy.weight_adapter.LoHaAdapter: ("loha", ("w1_a", "w1_b", "alpha", "w2_a", "w2_b", "t1", "t2"), ("dora_scale",)),
    comfy.weight_adapter.LoKrAdapter: (
        "lokr", ("w1", "w2", "alpha", "w1_a", "w1_b", "w2_a", "w2_b", "t2"), ("dora_scale",),
    ),
}  # fmt: skip


def carry_over(source: ModelPatcher, target: ModelPatcher) -> None:
    """Puts what was put on one MODEL on another of the same weights. ValueError where that cannot be done."""
    if getattr(source, "weight_wrapper_patches", None):
        raise ValueError(
            "this model's weights are wrapped by another node, which does not work on several GPUs"
        )
    copy = source.clone()
    for name in _CARRIED:
        if hasattr(copy, name):
            setattr(target, name, getattr(copy, name))


def version_of(patcher: ModelPatcher) -> object:
    """A value that is another one where `patches_of` would be."""
    return patcher.patches_uuid, tuple(map(id, _parameters(patcher).values()))


def patches_of(patcher: ModelPatcher) -> Patches:
    """The host's weight patches of a MODEL in the form that workers merge. ValueError on kinds they do not know."""
    if getattr(patcher, "current_hooks", None):
        raise ValueError("LoRA hooks on prompts do not work on several GPUs: use a LoRA loader on the model")
    out: dict[str, list[Patch]] = {}
    for key, patches in patcher.patches.items():
        out[key.removeprefix(_PREFIX)] = [_plain(key, *patch) for patch in patches if patch[0] != 0]
    for name, value in _parameters(patcher).items():
        out[name] = [Patch("set", 1.0, 1.0, {"diff": value.detach()})]
    return {name: patches for name, patches in out.items() if patches}


def _parameters(patcher: ModelPatcher) -> dict[str, Tensor]:
    """Bare parameters that were replaced, by official name."""
    return {
        name.removeprefix(_PREFIX): value
        for name, value in patcher.object_patches.items()
        if name.startswith(_PREFIX) and isinstance(value, Tensor)
    }


def _plain(key: str, strength: float, change: Any, keep: float, offset: Any, function: Any) -> Patch:
    """One patch of the host, as its patcher holds them, in the workers' form."""
    if offset is not None or function is not None:
        raise ValueError(f"the change of {key} is to a part of the weight, which several GPUs do not support")
    found = _of_adapter(change) or _of_tensor(change)
    if found is None:
        raise ValueError(
            f"the change of {key} is of a kind ({type(change).__name__}) that several GPUs do not support: load the "
            "file with WanLoRA, or run on one GPU"
        )
    kind, parts = found
    parts = {name: part for name, part in parts.items() if part is not None}
    return Patch(kind, float(strength), float(keep), parts)


def _of_adapter(change: Any) -> tuple[str, Mapping[str, Any]] | None:
    if type(change) not in _ADAPTERS:
        return None
    kind, names, others = _ADAPTERS[type(change)]
    parts = dict(zip((*names, *others), change.weights, strict=True))
    return None if any(parts.pop(name) is not None for name in others) else (kind, parts)


def _of_tensor(change: Any) -> tuple[str, Mapping[str, Any]] | None:
    if not isinstance(change, tuple):
        return None
    kind, tensors = ("diff", change) if len(change) == 1 else change
    return (kind, {"diff": tensors[0]}) if kind in ("diff", "set") else None
