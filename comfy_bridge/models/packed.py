"""Layers and a patcher for weights that stay packed (GGUF, and quantised ones that the host has no layers for, see
`quantized`): unpacked for each use, one at a time.

A LoRA is never merged into a packed weight, which would round it once more. It is added to the unpacked one at
each use, so its strength may change without loading anything again. Only the layer holds the packed weight; state
dicts, merges and files get it unpacked (`Unpacked`).
"""

import math
from collections.abc import Callable
from typing import Any

import comfy.lora
import comfy.model_patcher
import comfy.ops
import torch
import torch.nn.functional as F
from torch import Tensor

from ...wan_models.checkpoints.packing import Packing
from .unpacked import Unpacked


class _MayBePacked:
    """Mixed into a layer whose weight is packed once `packing` is set."""

    packing: Packing | None = None
    patch: Any = None  # the LoRAs on this weight, where the whole layer is on the device
    hook: Any = None  # the LoRAs of the prompt that is being worked on
    weight: Any
    weight_function: list
    unpacked_dtype = torch.float32

    def _load_from_state_dict(self, *args: Any) -> None:
        # Where the host has dynamic VRAM, its layers are made without a weight unless they bring this method. Ours are
        # made on the meta device, where a weight takes no memory, and their names and shapes are compared.
        super()._load_from_state_dict(*args)  # type: ignore[misc]

    def changes(self) -> list[Callable[[Tensor], Tensor]]:
        """What is done to the unpacked weight: LoRAs of the model, other nodes' functions, LoRAs of the prompt."""
        functions = list(self.weight_function)  # of the host, with the LoRAs where the layer is offloaded
        if self.patch is not None and not any(isinstance(f, type(self.patch)) for f in functions):
            functions.insert(0, self.patch)
        return functions if self.hook is None else [*functions, self.hook]

    def unpacked(self, *changes: Callable[[Tensor], Tensor]) -> Unpacked:
        """The weight as it is in the file, with these changes."""
        assert self.packing is not None
        return Unpacked(self.weight, self.packing, self.unpacked_dtype, changes)

    def loaded(self) -> Unpacked:
        """The weight with the LoRAs that are loaded with it, as the host's own merged weights would have them."""
        return self.unpacked(*(change for change in (self.patch, self.hook) if change is not None))

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)  # type: ignore[misc]
        if self.packing is not None:
            destination[f"{prefix}weight"] = self.loaded()


class ops(comfy.ops.manual_cast):
    """The host's casting layers; those with a `packing` hold a packed weight once that is set."""

    class Linear(_MayBePacked, comfy.ops.manual_cast.Linear):
        def forward(self, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if self.packing is None:
                return super().forward(input, *args, **kwargs)
            # with LoRAs in float32 and rounded once, as a file that is saved with them has it
            changes = self.changes()
            weight = (
                self.unpacked(*changes).plain(input.dtype, input.device)
                if changes
                else self.packing.unpack(_on(self.weight, input), input.dtype)
            )
            bias = None if self.bias is None else _on(self.bias, input).to(input.dtype)
            for function in self.bias_function if bias is not None else ():
                bias = function(bias)
            return F.linear(input, weight, bias)

    class Embedding(_MayBePacked, comfy.ops.manual_cast.Embedding):
        def forward(self, input: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
            if self.packing is None:
                return super().forward(input, out_dtype=out_dtype)
            dtype = out_dtype or torch.float32
            if changes := self.changes():  # these are of the whole weight
                return F.embedding(input, self.unpacked(*changes).plain(dtype, input.device))
            which = input.flatten().to(self.weight.device)
            rows = self.packing.unpack(self.weight[which], dtype, which)
            return rows.to(input.device).view(*input.shape, -1)


def set_unpacked_dtype(network: torch.nn.Module, dtype: torch.dtype) -> None:
    """Sets what packed weights are unpacked to for readers, such as state dicts and merges."""
    for layer in network.modules():
        if isinstance(layer, _MayBePacked):
            layer.unpacked_dtype = dtype


def has_packed(network: torch.nn.Module) -> bool:
    """Whether any layer holds its weight packed."""
    return any(getattr(layer, "packing", None) is not None for layer in network.modules())


def packed_patcher(patcher: Any) -> "PackedPatcher":
    """A patcher for packed layers in the place of one that the host has just made."""
    out = PackedPatcher(patcher.model, patcher.load_device, patcher.offload_device)
    for name in ("model_options", "object_patches", "hook_mode", "is_clip", "force_cast_weights"):
        setattr(out, name, getattr(patcher, name))
    return out


def workspace_bytes(network: torch.nn.Module) -> int:
    """Upper bound of what unpacking the largest packed layer takes: float32 values, some of them twice over."""
    packings = (getattr(layer, "packing", None) for layer in network.modules())
    return max((16 * math.prod(packing.shape) for packing in packings if packing is not None), default=0)


def _on(tensor: Tensor, like: Tensor) -> Tensor:
    return tensor.to(like.device, non_blocking=like.device.type != "cpu")


class PackedPatcher(comfy.model_patcher.ModelPatcher):
    """The host's patcher, except that LoRAs of packed weights are left to the layer, and readers get them unpacked."""

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
        for lora in self._lora(key):
            layer.patch = lora
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
        found = super().get_key_patches(filter_prefix)
        for key, patches in found.items():
            if (layer := self._packed_layer(key)) is not None:
                patches[0] = (layer.unpacked(), *patches[0][1:])
        return found

    def get_model_object(self, name: str) -> Any:
        layer = self._packed_layer(name)
        return (
            super().get_model_object(name) if layer is None or name in self.object_patches else layer.loaded()
        )

    def model_state_dict_for_saving(self, model: Any = None, prefix: str = "") -> dict[str, Any]:
        """Of newer hosts, which merge while they save."""
        found = super().model_state_dict_for_saving(model, prefix)
        for name in found:
            if (layer := self._packed_layer(prefix + name)) is not None:
                found[name] = layer.unpacked(*self._lora(prefix + name))
        return found

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
