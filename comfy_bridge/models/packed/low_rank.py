"""Low-rank LoRAs added to a weight in one pass over it.

A weight that is streamed has its LoRA added at each use. The host makes the product of the two small matrices, scales
it and adds it, which goes over memory of the weight's size six times; a product can be added as it is made.
"""

from collections.abc import Callable, Mapping
from typing import Any

import comfy.model_management
import comfy.weight_adapter
import torch
from torch import Tensor, nn

from .layers import ops


class LowRank(comfy.weight_adapter.LoRAAdapter):
    """The host's low-rank change of a matrix, with the same numbers but for fewer roundings."""

    def calculate_weight(
        self,
        weight: Tensor,
        key: str,
        strength: float,
        strength_model: float,
        offset: Any,
        function: Callable[[Tensor], Tensor],
        intermediate_dtype: torch.dtype = torch.float32,
        original_weight: Any = None,
    ) -> Tensor:
        up, down, alpha, *others = self.weights
        is_plain = all(other is None for other in others) and function(up) is up
        fits = weight.shape == (up.shape[0], down[0].numel())
        if not (is_plain and fits and weight.dtype == intermediate_dtype):
            return super().calculate_weight(
                weight, key, strength, strength_model, offset, function, intermediate_dtype, original_weight
            )
        scale = strength * (1.0 if alpha is None else alpha / down.shape[0])
        up, down = (
            comfy.model_management.cast_to_device(part, weight.device, intermediate_dtype).flatten(1)
            for part in (up, down)
        )
        return weight.addmm_(up, down, alpha=scale)


def in_one_pass(patches: Mapping[Any, Any], model: nn.Module) -> dict[Any, Any]:
    """Patches as of the host's `add_patches`, those of low rank on layers of this pack as `LowRank`.

    The host's quantised layers round what it adds at random, which comes out another way at the least difference."""
    ours = {f"{name}.weight" for name, layer in model.named_modules() if isinstance(layer, ops.Linear)}

    def changed(key: Any, patch: Any) -> Any:
        is_low_rank = type(patch) is comfy.weight_adapter.LoRAAdapter
        name = key if isinstance(key, str) else key[0]
        return LowRank(patch.loaded_keys, patch.weights) if is_low_rank and name in ours else patch

    return {key: changed(key, patch) for key, patch in patches.items()}
