"""A CLIP whose encoder all GPUs run together, each with a part of the weights."""

from pathlib import Path

import comfy.sd
from torch import Tensor

from ...wan_models.distributed.mesh import Layout
from ...wan_models.distributed.weights import Recipe
from ..models import text_encoder
from ..models.identity import files_of
from ..models.text_encoder import HostUMT5
from .workers import WeightlessPatcher, the_workers


class WorkersEncoder:
    """A hosted encoder's features, computed by the workers: for its slot `remote`. recipe: of its weights."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def __call__(self, network: HostUMT5, ids: Tensor, mask: Tensor) -> Tensor:
        workers = the_workers()
        group = workers.start()
        size = sum(p.numel() for p in network.parameters()) * network.compute_dtype.itemsize
        key = workers.load(self.recipe, needed=size / group.size)
        return group.encode_text(key, ids, mask)


def load_text_encoder(path: Path, dtype: str) -> comfy.sd.CLIP:
    """A CLIP as of `text_encoder.load_text_encoder` that the workers run."""
    clip, _ = text_encoder.build(path, dtype)
    network = clip.cond_stage_model
    compute = str(network.compute_dtype).removeprefix("torch.")
    stored = "" if dtype == "default" else compute
    recipe = Recipe("t5", str(path), stored, compute, Layout(fsdp=True), str(files_of(path)))
    network.remote = WorkersEncoder(recipe)
    clip.patcher = WeightlessPatcher(network, clip.patcher.load_device, clip.patcher.offload_device)
    return clip
