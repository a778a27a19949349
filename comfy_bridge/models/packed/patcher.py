"""Patchers for our packed layers: LoRAs of packed weights are left to the layer, and readers get them unpacked.

Where the host has dynamic VRAM, packed weights are paged as others are, in the bytes that they are stored in."""

from collections.abc import Callable
from typing import Any

import comfy.lora
import comfy.model_patcher
from torch import Tensor

from ... import compat
from .low_rank import in_one_pass

_Host: Any = object


class _Packed(_Host):
    """Mixed into a patcher of the host's."""

    def add_patches(self, patches: dict, *args: Any, **kwargs: Any) -> Any:
        return super().add_patches(in_one_pass(patches, self.model), *args, **kwargs)

    def patch_weight_to_device(
        self, key: str, device_to: Any = None, *args: Any, return_weight: bool = False, **kwargs: Any
    ) -> Any:
        layer = self._packed_layer(key)
        if layer is None:
            if return_weight:  # which older hosts do not know
                kwargs["return_weight"] = True
            return super().patch_weight_to_device(key, device_to, *args, **kwargs)
        if return_weight:
            return layer.unpacked(*self._lora(key)).plain(device=device_to)
        layer.patch = next(iter(self._lora(key)), None)
        if kwargs.get("force_cast"):  # of small weights, which dynamic VRAM has on the device all the time
            patches = self.patches.pop(key, None)
            try:
                super().patch_weight_to_device(key, device_to, *args, **kwargs)
            finally:
                if patches is not None:
                    self.patches[key] = patches
        return None

    def unpatch_model(self, device_to: Any = None, unpatch_weights: bool = True) -> None:
        super().unpatch_model(device_to, unpatch_weights)
        if unpatch_weights:
            for layer in self.model.modules():
                if getattr(layer, "patch", None) is not None:
                    layer.patch = None

    # LoRAs of single prompts

    def patch_hooks(self, hooks: Any) -> None:
        self.cached_hook_patches.clear()  # which is of merged weights, and packed ones are not merged
        super().patch_hooks(hooks)

    def patch_hook_weight_to_device(
        self, hooks: Any, combined_patches: dict, key: str, original_weights: dict, memory_counter: Any
    ) -> None:
        layer = self._packed_layer(key)
        if layer is None or key not in combined_patches:
            super().patch_hook_weight_to_device(
                hooks, combined_patches, key, original_weights, memory_counter
            )
            return
        patches, original = combined_patches[key], {key: original_weights[key]}

        def hook(weight: Tensor) -> Tensor:
            return comfy.lora.calculate_weight(patches, weight, key, weight.dtype, original)

        layer.hook = hook

    def unpatch_hooks(self, whitelist_keys_set: set[str] | None = None) -> None:
        super().unpatch_hooks(whitelist_keys_set)
        for name, layer in self.model.named_modules():
            if getattr(layer, "hook", None) is not None and (
                not whitelist_keys_set or f"{name}.weight" in whitelist_keys_set
            ):
                layer.hook = None

    # readers

    def get_key_patches(self, filter_prefix: str | None = None) -> dict[str, list]:
        by_key = super().get_key_patches(filter_prefix)
        for key, patches in by_key.items():
            if (layer := self._packed_layer(key)) is not None:
                patches[0] = (layer.unpacked(), *patches[0][1:])
        return by_key

    def get_model_object(self, name: str) -> Any:
        layer = self._packed_layer(name)
        return (
            super().get_model_object(name) if layer is None or name in self.object_patches else layer.loaded()
        )

    def model_state_dict_for_saving(self, model: Any = None, prefix: str = "") -> dict[str, Any]:
        """Called by newer hosts, which merge while they save."""
        state = super().model_state_dict_for_saving(model, prefix)
        for name in state:
            if (layer := self._packed_layer(prefix + name)) is not None:
                state[name] = layer.unpacked(*self._lora(prefix + name))
        return state

    def _lora(self, key: str) -> list[Callable[[Tensor], Tensor]]:
        return [comfy.model_patcher.LowVramPatch(key, self.patches)] if key in self.patches else []

    def _packed_layer(self, key: str) -> Any:
        path, _, leaf = key.rpartition(".")
        if leaf != "weight":
            return None
        try:
            layer = self.model.get_submodule(path)
        except AttributeError:
            return None
        return layer if getattr(layer, "packing", None) is not None else None


class PackedPatcher(_Packed, comfy.model_patcher.ModelPatcher):
    """The host's patcher of whole layers, on the device or off it."""


_Paging: Any = getattr(comfy.model_patcher, "ModelPatcherDynamic", None)

if _Paging is not None:

    class PagedPackedPatcher(_Packed, _Paging):
        """The host's patcher of dynamic VRAM, which is of cards only: for a CPU the other one is made."""

        def __new__(
            cls, model: Any = None, load_device: Any = None, *args: Any, **options: Any
        ) -> "PagedPackedPatcher | PackedPatcher":
            if load_device is not None and load_device.type == "cpu":
                return PackedPatcher(model, load_device, *args, **options)
            return super().__new__(cls, model, load_device, *args, **options)

        def clone(self, disable_dynamic: bool = False, **options: Any) -> Any:
            out = super().clone(disable_dynamic=disable_dynamic, **options)
            if disable_dynamic:  # which the host makes one of its own class
                out.__class__ = PackedPatcher
            return out

        def partially_unload(self, *args: Any, **options: Any) -> Any:
            freed = super().partially_unload(*args, **options)
            for layer in self.model.modules():
                if (loras := getattr(layer, "weight_lowvram_function", None)) is not None:
                    loras.clear_prepared()
            return freed


def packed_kind(kind: type | None) -> type:
    """The patcher of packed weights that is like a `kind` of the host's, or like the host's own."""
    return PagedPackedPatcher if (kind or compat.patcher_class()) is _Paging else PackedPatcher


def packed_patcher(patcher: Any) -> PackedPatcher:
    """A patcher for packed layers in the place of one that the host has just made."""
    out = PackedPatcher(patcher.model, patcher.load_device, patcher.offload_device)
    for name in ("model_options", "object_patches", "hook_mode", "is_clip", "force_cast_weights"):
        setattr(out, name, getattr(patcher, name))
    return out
