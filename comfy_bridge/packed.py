"""Layers and a patcher for weights that stay packed (GGUF, scaled fp8): unpacked for each use, one at a time.

A LoRA is never merged into a packed weight, which would round it once more. It is added to the unpacked one at
each use, so its strength may change without loading anything again.
"""

import math
from typing import Any

import comfy.model_patcher
import comfy.ops
import torch
import torch.nn.functional as F
from torch import Tensor

from ..wan_models.checkpoints.quantized import Packing


class ops(comfy.ops.manual_cast):
    """The host's casting layers; those with a `packing` hold a packed weight once that is set."""

    class Linear(comfy.ops.manual_cast.Linear):
        packing: Packing | None = None
        patch: Any = None  # the LoRAs on this weight, where the whole layer is on the device

        def forward(self, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if self.packing is None:
                return super().forward(input, *args, **kwargs)
            weight = self.packing.unpack(_on(self.weight, input), input.dtype)
            functions = list(self.weight_function)  # of the host, where the layer is offloaded
            if self.patch is not None and not any(isinstance(f, type(self.patch)) for f in functions):
                functions.insert(0, self.patch)
            for function in functions:
                weight = function(weight)
            bias = None if self.bias is None else _on(self.bias, input).to(input.dtype)
            for function in self.bias_function if bias is not None else ():
                bias = function(bias)
            return F.linear(input, weight, bias)

    class Embedding(comfy.ops.manual_cast.Embedding):
        packing: Packing | None = None

        def forward(self, input: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
            if self.packing is None:
                return super().forward(input, out_dtype=out_dtype)
            rows = self.weight[input.flatten().to(self.weight.device)]
            rows = self.packing.unpack(rows, out_dtype or torch.float32)
            return rows.to(input.device).view(*input.shape, -1)


def workspace_bytes(network: torch.nn.Module) -> int:
    """Upper bound of what unpacking the largest packed layer takes: float32 values, some of them twice over."""
    layers = (layer for layer in network.modules() if getattr(layer, "packing", None) is not None)
    return max((16 * math.prod(layer.packing.shape) for layer in layers), default=0)


def _on(tensor: Tensor, like: Tensor) -> Tensor:
    return tensor.to(like.device, non_blocking=like.device.type != "cpu")


class PackedPatcher(comfy.model_patcher.ModelPatcher):
    """The host's patcher, except that LoRAs of packed weights are left to the layer."""

    def patch_weight_to_device(self, key: str, *args: Any, **kwargs: Any) -> Any:
        layer = self._packed_layer(key)
        if layer is None:
            return super().patch_weight_to_device(key, *args, **kwargs)
        if key in self.patches:
            layer.patch = comfy.model_patcher.LowVramPatch(key, self.patches)
        return layer.weight

    def unpatch_model(self, device_to: Any = None, unpatch_weights: bool = True) -> None:
        super().unpatch_model(device_to, unpatch_weights)
        if unpatch_weights:
            for layer in self.model.modules():
                if getattr(layer, "patch", None) is not None:
                    layer.patch = None

    def _packed_layer(self, key: str) -> Any:
        path, _, leaf = key.rpartition(".")
        layer = self.model.get_submodule(path) if leaf == "weight" else None
        return layer if getattr(layer, "packing", None) is not None else None
