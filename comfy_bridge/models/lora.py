"""LoRA files on our models and the host's, through the host's own patches: with a report, and DoRA as published."""

import logging
from pathlib import Path
from typing import Any

import comfy.lora
import comfy.model_management
import comfy.weight_adapter
import torch
from torch import Tensor, nn

from ...wan_models.checkpoints.errors import CheckpointError
from ...wan_models.checkpoints.files.stamp import Stamp
from ...wan_models.checkpoints.lora import LoRAMatch, looks_like, match
from ...wan_models.checkpoints.reader import Checkpoint, open_checkpoint
from ...wan_models.wording import counted
from .packed.low_rank import in_one_pass

ATTACHMENT = "wan_loras"
"""Under this key a MODEL remembers the LoRA files on it: their names, and what they were when they were read."""
_PREFIX = "diffusion_model."


class DoRA(comfy.weight_adapter.LoRAAdapter):
    """A low-rank change of a weight's direction, with a learnt length per row (arXiv 2402.09353).

    The host divides by the length of the row before the change, the paper by that after it."""

    name = "dora"

    def calculate_weight(
        self,
        weight: Tensor,
        key: str,
        strength: float,
        strength_model: float,
        offset: Any,
        function: Any,
        intermediate_dtype: torch.dtype = torch.float32,
        original_weight: Any = None,
    ) -> Tensor:
        *parts, scale, reshape = self.weights
        whole = comfy.weight_adapter.LoRAAdapter(self.loaded_keys, (*parts, None, reshape))
        changed = whole.calculate_weight(
            weight.clone(), key, 1.0, strength_model, offset, function, intermediate_dtype, original_weight
        )
        scale = comfy.model_management.cast_to_device(scale, weight.device, intermediate_dtype)
        axes = tuple(range(1, weight.dim())) if scale.shape[0] == weight.shape[0] else 0
        length = torch.linalg.vector_norm(changed, dim=axes, keepdim=True).clamp_min(1e-12)
        return torch.lerp(weight, (changed * (scale / length)).to(weight.dtype), strength)


def apply_lora(models: dict[str, tuple[Any, float]], path: str | Path) -> tuple[list[Any], str]:
    """Patches each of `models`, {name: (MODEL, strength)}, with one file; returns the clones and one line per model.

    A strength of 0 leaves a model as it is. Raises CheckpointError where the file is broken or was made for another
    model, which names keys and models."""
    file = open_checkpoint(path)
    out, lines = [], []
    for name, (model, strength) in models.items():
        if model is None or strength == 0:
            out.append(model)
            continue
        lora = _matched(file, model, name.removesuffix("-noise"))
        out.append(_patched(file, lora, model, strength))
        lines.append(f"{file.path.name} on the {name} model at {strength:g}: {lora.report}")
        logging.info("[Wan2.2] %s", lines[-1])
    absent = [name for name, (model, strength) in models.items() if model is None and strength]
    nothing = f"no {absent[0]} model is connected" if absent else "the strengths are 0"
    return out, "\n".join(lines) or f"no LoRA applied: {nothing}"


def weight_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Official names to shapes of a MODEL's transformer, weights that are stored quantised as they are used.

    What the host can patch are the names of its state dict; of their shapes that says little, as loaders of quantised
    weights list them there as they are stored, or not at all."""
    network = model.model.diffusion_model
    shapes = {name: tuple(weight.shape) for name, weight in network.state_dict().items()}
    for path, layer in network.named_modules():
        for leaf, weight in layer.named_parameters(recurse=False):
            name = f"{path}.{leaf}".removeprefix(".")
            if name in shapes:
                shapes[name] = _shape(layer, leaf, weight)
    return shapes


def _shape(layer: nn.Module, leaf: str, weight: Tensor) -> tuple[int, ...]:
    """Shape of the weight itself, by whatever its loader notes: GGUF's on the tensor, that of 4-bit floats on their
    state, and in any other case the layer knows what it takes and gives."""
    noted = (
        getattr(getattr(layer, "packing", None), "shape", None) if leaf == "weight" else None,
        getattr(weight, "tensor_shape", None),
        getattr(getattr(weight, "quant_state", None), "shape", None),
        (getattr(layer, "out_features", None), getattr(layer, "in_features", None)),
    )
    for shape in noted if leaf == "weight" else noted[1:3]:
        if shape is not None and all(isinstance(size, int) for size in shape):
            return tuple(shape)
    return tuple(weight.shape)


def _matched(file: Checkpoint, model: Any, expert: str) -> LoRAMatch:
    weights = weight_shapes(model)
    lora = match(file.shapes, weights, expert)
    if lora.faults:
        more = f" (and {len(lora.faults) - 3} more)" if len(lora.faults) > 3 else ""
        raise CheckpointError(f"{file.path.name} cannot be used: {'; '.join(lora.faults[:3])}{more}")
    source = getattr(model.model, "source", None)
    this = f"this model ({source.name})" if source else "this model"
    if not lora.names and lora.unusable:
        raise CheckpointError(f"{file.path.name} cannot be used: {lora.reasons}. Download it again")
    if not lora.names:
        raise CheckpointError(
            f"{file.path.name} fits no weight of {this}; it looks like a LoRA for {looks_like(file)}. Its first keys: "
            f"{', '.join(list(file)[:3])}"
        )
    if lora.misfits:
        reasons = list(dict.fromkeys(lora.misfits.values()))
        do = "does" if len(lora.misfits) == 1 else "do"
        raise CheckpointError(
            f"{file.path.name} was made for another model than {this}, {len(lora.misfits)} of its "
            f"{counted(len(file), 'key')} {do} not fit: {'; '.join(reasons[:3])}.{_widths(lora, file)}"
        )
    return lora


def _widths(lora: LoRAMatch, file: Checkpoint) -> str:
    """Which of the released models a LoRA's own sizes belong to."""
    released = {1536: "T2V-1.3B", 3072: "TI2V-5B", 5120: "the 14B models"}
    for name, (module, what) in lora.names.items():
        if module.endswith("attn.q") and what == "lora_up.weight":
            width = file.shapes[name][0]
            return f" It is {width} wide, as {released.get(width, 'none of the released models')}."
    return ""


def _patched(file: Checkpoint, lora: LoRAMatch, model: Any, strength: float) -> Any:
    tensors = {}
    for name, (module, what) in lora.names.items():
        tensor = file[name]
        # one length per row, written as a list of them by peft
        tensors[f"{module}.{what}"] = (
            tensor[:, None] if what == "dora_scale" and tensor.dim() == 1 else tensor
        )
        if what == "oft_blocks" and tensor.dim() == 4:
            tensors.setdefault(
                f"{module}.alpha", torch.tensor(0.0)
            )  # the host's BOFT fails where there is none
    targets = {module: f"{_PREFIX}{module}.weight" for module, _ in lora.names.values()}
    patches = comfy.lora.load_lora(tensors, targets, log_missing=False)
    leaves = {"diff_b": "bias", "diff_m": None}
    keys = {
        f"{module}.{leaf}" for module, what in lora.names.values() if (leaf := leaves.get(what, "weight"))
    }
    if left := sorted(key for key in keys if _PREFIX + key not in patches):
        raise CheckpointError(
            f"{file.path.name} cannot be used: this ComfyUI reads no change of {', '.join(left[:3])} from it"
        )
    for key, patch in patches.items():
        if isinstance(patch, comfy.weight_adapter.LoRAAdapter) and patch.weights[4] is not None:
            patches[key] = DoRA(patch.loaded_keys, patch.weights)

    patcher = model.clone()
    patcher.add_patches(in_one_pass(patches, model.model), strength)
    for name, (module, what) in lora.names.items():
        if what == "diff_m":  # the host's patches never reach bare parameters of a block
            key = f"{_PREFIX}{module}.modulation"
            # loaders of quantised models have tensors of their own class here too
            value = patcher.get_model_object(key).detach().as_subclass(Tensor)
            changed = value.float().cpu() + strength * file[name].float()
            patcher.add_object_patch(key, nn.Parameter(changed, requires_grad=False))
    applied = (*_applied(model), (file.path.name, file.stamps))
    patcher.set_attachments(ATTACHMENT, applied)
    return patcher


def _applied(model: Any) -> tuple[tuple[str, tuple[Stamp, ...]], ...]:
    return model.get_attachment(ATTACHMENT) or ()


def loras_of(model: Any) -> tuple[str, ...]:
    """Names of the LoRA files that WanLoRA has put on a MODEL."""
    return tuple(name for name, _ in _applied(model))


def stamps_of(model: Any) -> tuple[Stamp, ...]:
    """Stamps of those files."""
    return tuple(stamp for _, stamps in _applied(model) for stamp in stamps)
