"""Models that a process loads by itself from a recipe, and keeps while it is unchanged.

A recipe is plain data: the path of a checkpoint, dtypes by name, and how the model is shared. LoRA patches come beside
it, for they change without the rest: then only the weights that they touch are read anew.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from ..checkpoints.loading import expect, load_into, to_stored
from ..checkpoints.patches import Patches, patched
from ..checkpoints.reader import Checkpoint, open_model
from ..text.umt5 import UMT5Encoder
from ..vae.wan21 import WanVAE21
from ..vae.wan22 import WanVAE22
from .fsdp import local_part, shard
from .mesh import Layout
from .sequence_parallel import SharedModel, shared_model

Beat = Callable[[], None]


@dataclass(frozen=True)
class Recipe:
    """How a process makes a model.

    kind: "dit", "t5" or "vae". path: checkpoint. stored: dtype of the large weights, "" as in the file (packed ones are
    unpacked to `compute`). compute: dtype of linear layers and attention. layout: see `Layout`."""

    kind: str
    path: str
    stored: str = ""
    compute: str = "float32"
    layout: Layout = field(default_factory=Layout)

    @property
    def compute_dtype(self) -> torch.dtype:
        return getattr(torch, self.compute)

    @property
    def stored_dtype(self) -> torch.dtype | None:
        return getattr(torch, self.stored) if self.stored else None


class LoadedModel:
    """A network with its weights, whole or this process's part of them."""

    def __init__(
        self, recipe: Recipe, device: torch.device, mesh: DeviceMesh, patches: Patches, beat: Beat
    ) -> None:
        self.recipe, self.device, self._beat = recipe, device, beat
        self.patches = patches
        self._checkpoint = open_model(recipe.path)
        info = expect(self._checkpoint, recipe.kind)
        self._stored = recipe.stored_dtype or (recipe.compute_dtype if info.packed else None)
        self.network = _build(recipe, info.config, self._stored or info.dtype)
        if recipe.layout.fsdp:
            shard(self.network, _units(self.network), mesh, recipe.layout.offload)
        self._params = dict(self.network.named_parameters())
        load_into(self.network, self._checkpoint, self._keep)

    def repatch(self, patches: Patches) -> int:
        """Changes the patches, reading only the weights that the old ones or the new ones touch; returns how many."""
        touched = sorted({*self.patches, *patches})
        self.patches = patches
        state = self.network.state_dict()
        for name in touched:
            part = self._keep(name, _read(self._checkpoint, name))
            local, target = (t.to_local() if isinstance(t, DTensor) else t for t in (part, state[name]))
            target.copy_(local)
        if isinstance(self.network, SharedModel):
            self.network.forget()
        return len(touched)

    def _keep(self, name: str, weight: Tensor) -> Tensor:
        """What this process keeps of a tensor of the checkpoint."""
        self._beat()
        stored = weight if self._stored is None else to_stored(self.network, name, weight, self._stored)
        patches = self.patches.get(name)
        if patches:  # merged in full precision, on the device, where it is fast
            stored = patched(weight.to(self.device, torch.float32), patches).to(stored.dtype)
        device = torch.device("cpu") if self.recipe.layout.offload else self.device
        param = self._params.get(name)
        return stored.to(device) if param is None else local_part(param, stored, device)


def _read(checkpoint: Checkpoint, name: str) -> Tensor:
    tensor, packing = checkpoint[name], checkpoint.packing(name)
    return tensor if packing is None else packing.unpack(tensor, torch.float32).view(packing.shape)


def _build(recipe: Recipe, config: Any, dtype: torch.dtype) -> nn.Module:
    if recipe.kind == "dit":
        kind: Any = shared_model(config)
    elif recipe.kind == "t5":
        kind = UMT5Encoder
    else:
        kind = WanVAE21 if config.version == "2.1" else WanVAE22
    with torch.device("meta"):
        network = kind(config, dtype=dtype) if recipe.kind == "dit" else kind(config).to(dtype)
    if recipe.kind != "vae":
        network.compute_dtype = recipe.compute_dtype
    return network.eval().requires_grad_(False)


def _units(network: nn.Module) -> list[nn.Module]:
    """The parts whose parameters are gathered by themselves."""
    return network.units() if isinstance(network, SharedModel) else list(network.blocks)  # type: ignore[arg-type]
