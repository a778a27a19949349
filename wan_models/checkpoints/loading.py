"""Loading a checkpoint into a model that was built on the meta device: all of it or not at all."""

from collections.abc import Callable

from torch import Tensor, nn

from .detect import ModelInfo, identify
from .reader import Checkpoint, CheckpointError

_KINDS = {"dit": "a diffusion model", "vae": "a VAE", "t5": "a UMT5 text encoder"}
_LOADERS = {"dit": "WanDiTLoader", "vae": "WanVAELoader", "t5": "WanT5Loader"}


def expect(checkpoint: Checkpoint, kind: str) -> ModelInfo:
    """What the checkpoint holds; CheckpointError where that is not a `kind` (dit, vae or t5)."""
    info = identify(checkpoint)
    if info.kind != kind:
        hint = f" Load it with {_LOADERS[info.kind]}." if info.kind in _LOADERS else ""
        raise CheckpointError(
            f"{checkpoint.path} is {info.description}; {_KINDS[kind]} was expected here.{hint}"
        )
    return info


def load_into(
    module: nn.Module, checkpoint: Checkpoint, convert: Callable[[str, Tensor], Tensor] | None = None
) -> None:
    """Puts the checkpoint's tensors in the place of the module's parameters, without a second copy in memory.

    convert(name, tensor) may change the dtype on the way. Raises CheckpointError where names or shapes do not fit."""
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
    state = {name: convert(name, checkpoint[name]) if convert else checkpoint[name] for name in wanted}
    module.load_state_dict(state, assign=True)
    module.requires_grad_(False)
