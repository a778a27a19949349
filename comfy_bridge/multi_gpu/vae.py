"""A VAE that all GPUs decode with, each making a strip of the video; encoding stays in this process."""

from pathlib import Path

import comfy.model_management
from torch import Tensor

from ...wan_models.distributed.weights import Recipe
from ..models import autoencoder
from ..models.identity import files_of
from .workers import the_workers


class WorkersDecoder:
    """A hosted VAE's decoder, run by the workers: for its slot `remote`. recipe: of its weights."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def __call__(self, z: Tensor) -> Tensor:
        workers = the_workers()
        comfy.model_management.load_models_gpu([workers])  # so that the host knows of them
        group = workers.start()
        return group.decode(workers.load(self.recipe), z.float())


def load_vae(path: Path, dtype: str) -> autoencoder.WanVAE:
    """A VAE as of `autoencoder.load_vae` that the workers decode with; a tiny autoencoder needs none of them."""
    vae = autoencoder.load_vae(path, dtype)
    if isinstance(vae.first_stage_model, autoencoder.HostTinyVAE):
        return vae
    stored = str(autoencoder.DTYPES[dtype]).removeprefix("torch.")
    vae.first_stage_model.remote = WorkersDecoder(
        Recipe("vae", str(path), stored, stored, files=str(files_of(path)))
    )
    return vae
