"""Loading a checkpoint into a model that was built on the meta device: all of it or not at all."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .detect import ModelInfo, identify
from .reader import Checkpoint, CheckpointError

_KINDS = {
    "dit": "a diffusion model",
    "vae": "a VAE",
    "t5": "a UMT5 text encoder",
    "clip_vision": "a CLIP image encoder",
}
_LOADERS = {
    "dit": "WanDiTLoader",
    "vae": "WanVAELoader",
    "t5": "WanT5Loader",
    "clip_vision": "WanCLIPVisionLoader",
}


def expect(checkpoint: Checkpoint, kind: str, hint: Callable[[ModelInfo], str] | None = None) -> ModelInfo:
    """What the checkpoint holds; CheckpointError where that is not a `kind` (of `ModelInfo`) or cannot be used.

    hint: says what to do with a model that is not run here."""
    info = identify(checkpoint)
    if info.variant is not None:
        advice = f" {hint(info)}" if hint else ""
        raise CheckpointError(
            f"{checkpoint.path} is {info.description}. It is none of the models that are run here (T2V, I2V, TI2V, "
            f"S2V, Animate).{advice}"
        )
    if info.kind != kind:
        loader = f" Load it with {_LOADERS[info.kind]}." if info.kind in _LOADERS else ""
        raise CheckpointError(
            f"{checkpoint.path} is {info.description}; {_KINDS[kind]} was expected here.{loader}"
        )
    if checkpoint.fault:
        raise CheckpointError(checkpoint.fault)
    return info


# layers of a transformer whose matrices are stored in the precision that was chosen
_LARGE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)


def to_stored(network: nn.Module, name: str, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A weight in the chosen dtype. Bare parameters and norms of transformers, tiny but sensitive, keep the file's."""
    layer = network.get_submodule(name.rpartition(".")[0])
    return weight.to(dtype) if weight.dim() > 1 and isinstance(layer, _LARGE) else weight


def load_into(
    module: nn.Module,
    checkpoint: Checkpoint,
    convert: Callable[[str, Tensor], Tensor] | None = None,
    keep_packed: bool = False,
) -> None:
    """Puts the checkpoint's tensors in the place of the module's parameters, without a second copy in memory.

    convert(name, tensor) may change the dtype on the way. keep_packed leaves packed weights as they are stored in
    layers that can hold them (those with a `packing` attribute); the others are unpacked to float32.
    Raises CheckpointError where names or shapes do not fit."""
    if checkpoint.fault:
        raise CheckpointError(checkpoint.fault)
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found = checkpoint.shapes
    problems = [
        ("are missing", [name for name in wanted if name not in found]),
        ("are not known to the model", [name for name in found if name not in wanted]),
        (
            "have another shape",
            [
                f"{name} {list(found[name])} instead of {list(wanted[name])}"
                for name in wanted
                if name in found and found[name] != wanted[name]
            ],
        ),
    ]
    said = [
        f"{len(names)} of {len(wanted)} tensors {what}: {', '.join(names[:3])}"
        for what, names in problems
        if names
    ]
    if said:
        raise CheckpointError(
            f"{checkpoint.path} looks like {identify(checkpoint).description}, but does not fit it: {'; '.join(said)}. "
            "The file is incomplete or was made for another model"
        )
    state = {}
    for name in wanted:
        tensor, packing = checkpoint[name], checkpoint.packing(name)
        owner, _, leaf = name.rpartition(".")
        if packing is not None:
            layer = module.get_submodule(owner)
            if keep_packed and leaf == "weight" and hasattr(layer, "packing"):
                layer.packing = packing  # type: ignore[assignment]
                layer.weight = nn.Parameter(tensor, requires_grad=False)
                continue
            tensor = packing.unpack(tensor, torch.float32).view(packing.shape)
        state[name] = convert(name, tensor) if convert else tensor
    module.load_state_dict(state, strict=False, assign=True)  # names were compared above
    module.requires_grad_(False)
