"""A model of one process made one of a group: in order, its weights are sharded, loaded, and its tokens shared."""

from collections.abc import Callable

from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from ..dit.base import WanModel
from ..text.umt5 import UMT5Encoder
from .fsdp import shard
from .mesh import Layout
from .sequence_parallel import Ulysses

Load = Callable[[nn.Module], None]
"""Puts weights into a model on the meta device: whole ones, or this process's part where they are sharded."""


def parallelize_dit(model: WanModel, mesh: DeviceMesh, layout: Layout, load: Load) -> None:
    """Shard, load, share: a transformer on the meta device becomes this process's part; mesh as of `make_mesh`.

    Batch rows (`layout.cfg`) are split by who calls the model: see `Worker.velocity`."""
    if layout.fsdp:
        shard(model, model.units(), _everyone(mesh), layout.offload)
        model.is_sharded = True
    load(model)
    if layout.ulysses > 1:
        model.sequence_parallel = Ulysses(mesh.get_group("ulysses"))


def parallelize_text_encoder(model: UMT5Encoder, mesh: DeviceMesh, layout: Layout, load: Load) -> None:
    """Shard and load; every process encodes the whole text."""
    if layout.fsdp:
        shard(model, model.blocks, _everyone(mesh), layout.offload)
    load(model)


def _everyone(mesh: DeviceMesh) -> DeviceMesh:
    """All processes in one dimension: weights are shared by all, whatever else is split how."""
    return init_device_mesh(mesh.device_type, (mesh.size(),))
