"""Trained miniatures as files, in the layout of the official releases; what releases share is there once."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from wan_models.checkpoints.release_folder import official_config
from wan_models.dit.base import WanModel

SHARED = "shared"


def write_expert(folder: Path, model: WanModel) -> None:
    """config.json and half-precision weights of a diffusion model."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(official_config(model.config), indent=2) + "\n")
    save_file(_stored(model, torch.float16), folder / "diffusion_pytorch_model.safetensors", {"format": "pt"})


def write_shared(file: Path, module: nn.Module, dtype: torch.dtype) -> None:
    """A .pth of an autoencoder or a text encoder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(_stored(module, dtype), file)


def _stored(module: nn.Module, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {name: weight.to(dtype).contiguous() for name, weight in module.state_dict().items()}
