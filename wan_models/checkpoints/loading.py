"""Loading a checkpoint into a model that was built on the meta device: all of it or not at all."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..wording import counted
from .detect import ModelInfo, identify
from .errors import CheckpointError, UnsupportedModelError, WrongModelError
from .reader import Checkpoint


def expect(checkpoint: Checkpoint, kind: str, taken_for: str = "auto") -> ModelInfo:
    """Identifies the checkpoint by `identify`. Raises UnsupportedModelError or WrongModelError where it is not
    a `kind` (of `ModelInfo`), and CheckpointError where it cannot be used."""
    info = identify(checkpoint, taken_for)
    if info.variant is not None:
        raise UnsupportedModelError(checkpoint.path, info)
    if info.kind != kind:
        raise WrongModelError(checkpoint.path, info, kind)
    if checkpoint.fault:
        raise CheckpointError(checkpoint.fault)
    if not (info.packed or info.dtype.is_floating_point):
        raise CheckpointError(
            f"{checkpoint.path} is {info.description}, and most of its weights are stored as {_name(info.dtype)}, "
            "which cannot be read as weights: get another version"
        )
    return info


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


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
    layers that can hold them: those with a `packing` attribute, or a method take_packed(raw, beside), which is given
    the weight and what lies beside it and says whether it has taken them. The others are unpacked to float32.
    Raises CheckpointError where names or shapes do not fit."""
    if checkpoint.fault:
        raise CheckpointError(checkpoint.fault)
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    _check_fit(checkpoint, expected)
    state = {}
    for name in expected:
        owner, _, leaf = name.rpartition(".")
        if keep_packed and leaf == "weight" and (packing := checkpoint.packing(name)) is not None:
            layer = module.get_submodule(owner)
            take: Any = getattr(layer, "take_packed", None)
            if take is not None and take(checkpoint[name], checkpoint.beside(name)):
                continue
            if hasattr(layer, "packing"):
                layer.packing = packing  # type: ignore[assignment]
                layer.weight = nn.Parameter(checkpoint[name], requires_grad=False)
                continue
        weight = checkpoint.unpacked(name)
        state[name] = convert(name, weight) if convert else weight
    module.load_state_dict(state, strict=False, assign=True)  # names were compared above
    module.requires_grad_(False)


def _check_fit(checkpoint: Checkpoint, expected: Mapping[str, tuple[int, ...]]) -> None:
    """CheckpointError where names or shapes of the tensors are not the expected ones."""
    shapes = checkpoint.shapes
    unknown = [name for name in shapes if name not in expected]
    mismatches = {
        "are missing": [name for name in expected if name not in shapes],
        "are not known to the model": unknown,
        "have another shape": [
            f"{name} {list(shapes[name])} instead of {list(shape)}"
            for name, shape in expected.items()
            if name in shapes and shapes[name] != shape
        ],
        "are no floating-point numbers": [
            f"{name} ({_name(checkpoint.dtypes[name])})"
            for name in expected
            if name in shapes
            and checkpoint.packing(name) is None
            and not checkpoint.dtypes[name].is_floating_point
        ],
    }
    problems = []
    for what, names in mismatches.items():
        total = len(shapes if names is unknown else expected)
        they = what.replace("are", "is").replace("have", "has") if len(names) == 1 else what
        if names:
            problems.append(f"{len(names)} of {counted(total, 'tensor')} {they}: {', '.join(names[:3])}")
    if problems:
        raise CheckpointError(
            f"{checkpoint.path} looks like {identify(checkpoint).description}, but does not fit it: "
            f"{'; '.join(problems)}. The file is incomplete or was made for another model"
        )


def load_tower(tower: nn.Module, checkpoint: Checkpoint) -> None:
    """Loads the weights of CLIP's image tower: from the official open-clip checkpoint, whose text half is left, or from
    a file of transformers' names.

    tower: a `vision.clip.VisionTransformer`. checkpoint: as `open_model` gives it. Raises CheckpointError where
    tensors are missing."""
    state = {}
    for name, parameter in tower.state_dict().items():
        whole = f"visual.{name}"
        try:
            if whole in checkpoint:
                tensor = checkpoint[whole]
            elif name == "head":
                tensor = checkpoint["visual.projection.weight"].T
            else:
                tensor = torch.cat([checkpoint[whole.replace("to_qkv", f"to_{x}")] for x in "qkv"])
            state[name] = tensor.reshape(parameter.shape)
        except (KeyError, RuntimeError):
            raise CheckpointError(
                f"{checkpoint.path} looks like a CLIP image encoder, but {name} is missing or has another shape: the "
                "file is incomplete"
            ) from None
    tower.load_state_dict(state, assign=True)
    tower.requires_grad_(False)
