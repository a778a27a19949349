"""Layers for weights that stay packed (GGUF, and quantised ones that the host has no layers for, see `quantized`):
brought to the device packed, by the host as it brings others, and unpacked there for each use, one at a time.

A LoRA is never merged into a packed weight, which would round it once more. It is added to the unpacked one at
each use, so its strength may change without loading anything again. Only the layer holds the packed weight; state
dicts, merges and files get it unpacked (`Unpacked`).
"""

import math
from collections.abc import Callable
from typing import Any

import comfy.ops
import torch
import torch.nn.functional as F
from torch import Tensor

from ....wan_models.checkpoints.packed.packing import Packing
from .opaque import changed_weight, number_of
from .unpacked import Unpacked


class _MayBePacked:
    """Mixed into a layer whose weight is packed once `packing` is set."""

    packing: Packing | None = None
    patch: Any = None  # the LoRAs on this weight, where the whole layer is on the device
    weight_lowvram_function: Any = None  # the same in hosts with dynamic VRAM, which set it
    hook: Any = None  # the LoRAs of the prompt that is being worked on
    weight: Any
    weight_function: list
    bias: Tensor | None
    bias_function: list
    unpacked_dtype = torch.float32

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.number = number_of(self)
        self.patch = self.hook = None  # a compiler tells these from those of the class

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        self.number = number_of(self)  # a copy is another layer

    def _load_from_state_dict(self, *args: Any) -> None:
        # Where the host has dynamic VRAM, its layers are made without a weight unless they bring this method. Ours are
        # made on the meta device, where a weight takes no memory, and their names and shapes are compared.
        super()._load_from_state_dict(*args)  # type: ignore[misc]

    def changes(self) -> list[Callable[[Tensor], Tensor]]:
        """Changes of the unpacked weight: LoRAs of the model, other nodes' functions, LoRAs of the prompt."""
        functions = list(self.weight_function)  # of the host, with the LoRAs where the layer is offloaded
        if self.weight_lowvram_function is not None:
            functions.insert(0, self.weight_lowvram_function)
        if self.patch is not None and not any(isinstance(f, type(self.patch)) for f in functions):
            functions.insert(0, self.patch)
        return functions if self.hook is None else [*functions, self.hook]

    def unpacked(self, *changes: Callable[[Tensor], Tensor], raw: Tensor | None = None) -> Unpacked:
        """The weight as it is in the file, with these changes; raw: its bytes on another device."""
        assert self.packing is not None
        return Unpacked(self.weight if raw is None else raw, self.packing, self.unpacked_dtype, changes)

    def on_device(self, like: Tensor) -> tuple[Tensor, Tensor | None, Any]:
        """The packed weight, and the bias in the dtype of `like`, on its device; and what the host's
        uncast_bias_weight takes once they were worked with."""
        functions = self.weight_function, self.weight_lowvram_function
        # which are of the unpacked weight
        self.weight_function, self.weight_lowvram_function = [], None
        try:
            weight, bias, lent = comfy.ops.cast_bias_weight(
                self, dtype=self.weight.dtype, device=like.device, bias_dtype=like.dtype, offloadable=True
            )
        finally:
            self.weight_function, self.weight_lowvram_function = functions
        if (loras := self.weight_lowvram_function) is not None:
            self._bring(loras, like.device)
        return weight, bias, lent

    def _bring(self, loras: Any, device: torch.device) -> None:
        """LoRAs to the device, where the weight stays there too; else they come and go with it."""
        if getattr(self, "_v_signature", None) is None:
            loras.clear_prepared()
        elif loras.prepared_patches is None:
            loras.prepare(torch.empty(loras.memory_required(), dtype=torch.uint8, device=device), None)

    def traced(self, input: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weight and bias for an input, in what a compiler can look into; LoRAs on the weight are one operation."""
        assert self.packing is not None
        device = input.device
        if self.changes():
            weight = changed_weight(self.number, input, list(self.packing.shape))
        else:
            weight = self.packing.unpack(self.weight.to(device), input.dtype)
        bias = None if self.bias is None else self.bias.to(device, input.dtype)
        for function in self.bias_function if bias is not None else ():
            bias = function(bias)
        return weight, bias

    def changed(self, input: Tensor) -> Tensor:
        """The weight with all changes, in the dtype of an input and where that is."""
        return self.unpacked(*self.changes()).plain(input.dtype, input.device)

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
            if torch.compiler.is_compiling():
                return F.linear(input, *self.traced(input))
            changes = self.changes()
            raw, bias, lent = self.on_device(input)
            try:
                # with LoRAs in float32 and rounded once, as a file that is saved with them has it
                weight = (
                    self.unpacked(*changes, raw=raw).plain(input.dtype)
                    if changes
                    else self.packing.unpack(raw, input.dtype)
                )
                return F.linear(input, weight, bias)
            finally:
                comfy.ops.uncast_bias_weight(self, raw, bias, lent)

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


def workspace_bytes(network: torch.nn.Module) -> int:
    """Upper bound of what unpacking the largest packed layer takes: float32 values, some of them twice over."""
    packings = (getattr(layer, "packing", None) for layer in network.modules())
    return max((16 * math.prod(packing.shape) for packing in packings if packing is not None), default=0)
