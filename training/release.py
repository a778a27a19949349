"""Trained miniatures as files, in the layout of the official releases; what releases share is there once."""

import json
from pathlib import Path

import torch
from torch import nn

from wan_models.checkpoints.release_folder import official_config
from wan_models.dit.base import WanModel

from .copies import write_scaled_fp8

SHARED = "shared"


def write_expert(folder: Path, model: WanModel) -> None:
    """config.json and weights of a diffusion model, as scaled 8-bit floats."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(official_config(model.config), indent=2) + "\n")
    file = folder / "diffusion_pytorch_model.safetensors"
    write_scaled_fp8(file, model.state_dict(), others=torch.float16)


def write_shared(file: Path, module: nn.Module, dtype: torch.dtype) -> None:
    """A .pth of an autoencoder or a text encoder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(_stored(module, dtype), file)


def _stored(module: nn.Module, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {name: weight.to(dtype).contiguous() for name, weight in module.state_dict().items()}
