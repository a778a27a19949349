"""Models that a process loads by itself from a recipe, and keeps while it is unchanged.

A recipe is plain data: the path of a checkpoint, dtypes by name, and how the model is shared. LoRA patches come beside
it, for they change without the rest: then only the weights that they touch are read anew.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from ..attention import Attention
from ..checkpoints.loading import load_into, to_stored
from ..checkpoints.patches import Patches, patched
from ..dit.base import RunBlock, WanModel
from ..dit.guided_text import GuidedText
from ..dit.tokens import Inputs
from ..models import build_network, open_as
from ..sampling.clip_cache import ClipCache
from ..text.umt5 import UMT5Encoder
from .fsdp import local_part, own_part
from .mesh import Layout
from .parallelize import parallelize_dit, parallelize_text_encoder

Heartbeat = Callable[[], None]
"""Called whenever a piece of work is done."""


@dataclass(frozen=True)
class Recipe:
    """Recipe of a model for a process.

    kind: "dit", "t5" or "vae". path: checkpoint. stored: dtype of the large weights, "" as in the file (packed ones are
    unpacked to `compute`). compute: dtype of linear layers and attention. layout: see `Layout`. files: what is another
    text where the checkpoint's files are others, so that those are read anew. taken_for: as of `identify`."""

    kind: str
    path: str
    stored: str = ""
    compute: str = "float32"
    layout: Layout = field(default_factory=Layout)
    files: str = ""
    taken_for: str = "auto"

    @property
    def compute_dtype(self) -> torch.dtype:
        return getattr(torch, self.compute)

    @property
    def stored_dtype(self) -> torch.dtype | None:
        return getattr(torch, self.stored) if self.stored else None


class LoadedModel:
    """A network with its weights, whole or this process's part of them; `clips` is what it made of its last clips.

    mesh: as of `make_mesh`; None for a model that this process has alone."""

    def __init__(
        self,
        recipe: Recipe,
        device: torch.device,
        mesh: DeviceMesh | None,
        patches: Patches,
        heartbeat: Heartbeat,
    ) -> None:
        self.recipe, self.device, self._heartbeat = recipe, device, heartbeat
        self.patches = patches
        self._checkpoint, info = open_as(recipe.path, recipe.kind, recipe.taken_for)
        self._stored = recipe.stored_dtype or (recipe.compute_dtype if info.packed else None)
        self.network = build_network(info.config, dtype=self._stored or info.dtype)
        self.clips = ClipCache(getattr(self.network, "kept_clips", 0))
        if hasattr(self.network, "compute_dtype"):
            self.network.compute_dtype = recipe.compute_dtype
        if mesh is not None and isinstance(self.network, WanModel):
            parallelize_dit(self.network, mesh, recipe.layout, self._load)
        elif mesh is not None and isinstance(self.network, UMT5Encoder):
            parallelize_text_encoder(self.network, mesh, recipe.layout, self._load)
        else:
            self._load(self.network)

    def _load(self, network: nn.Module) -> None:
        self._params = dict(network.named_parameters())
        load_into(network, self._checkpoint, self._keep)

    def velocity(
        self,
        inputs: Mapping[str, Any],
        rows: slice = slice(None),
        attention: Attention | None = None,
        run_block: RunBlock | None = None,
    ) -> Tensor:
        """One forward of a transformer for some rows of a batch.

        inputs: "x", "timestep", "image" and "rotary" as of `WanModel.forward`, what `GuidedText.plain` gives,
        "unconditional" as of `Conditions`, and the fields of the model's `Inputs`, tensors with one row per batch
        row."""
        network = self.network
        assert isinstance(network, WanModel)
        batch, _, *size = inputs["x"].shape
        mine = {name: x[rows] if _has_rows(x, batch) else x for name, x in inputs.items()}
        # told by the rows of all, for all processes must prepare a clip together where weights are shared
        conditions = self.clips.conditions(
            _inputs_of(network, inputs),
            tuple(size),
            lambda: network.prepare(_inputs_of(network, mine), tuple(size)),
        )
        if conditions is not None and "unconditional" in mine:
            conditions = conditions.with_unconditional(mine["unconditional"])
        return network(
            mine["x"],
            mine["timestep"],
            GuidedText.of_plain(mine),
            image=mine.get("image"),
            conditions=conditions,
            attention=attention,
            rotary=inputs.get("rotary"),
            run_block=run_block,
        )

    def repatch(self, patches: Patches) -> int:
        """Changes the patches, reading only the weights that the old ones or the new ones touch; returns how many."""
        touched = sorted({*self.patches, *patches})
        self.patches = patches
        state = self.network.state_dict()
        for name in touched:
            part = self._keep(name, self._checkpoint.unpacked(name))
            local, target = own_part(part), own_part(state[name])
            target.copy_(local)
        self.clips.clear()
        return len(touched)

    def _keep(self, name: str, weight: Tensor) -> Tensor:
        """This process's part of a tensor of the checkpoint."""
        self._heartbeat()
        stored = weight if self._stored is None else to_stored(self.network, name, weight, self._stored)
        patches = self.patches.get(name)
        if patches:  # merged in full precision, on the device, where it is fast
            stored = patched(weight.to(self.device, torch.float32), patches).to(stored.dtype)
        device = torch.device("cpu") if self.recipe.layout.offload else self.device
        param = self._params.get(name)
        return stored.to(device) if param is None else local_part(param, stored, device)


def _inputs_of(network: WanModel, inputs: Mapping[str, Any]) -> Inputs:
    names = {field.name for field in fields(network.inputs_class)}
    return network.inputs_class(**{name: value for name, value in inputs.items() if name in names})


def _has_rows(x: Any, batch: int) -> bool:
    return isinstance(x, Tensor) and x.dim() > 0 and x.shape[0] == batch
