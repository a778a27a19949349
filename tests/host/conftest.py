"""One real ComfyUI server for all tests in this folder, with a tiny release in it."""

from pathlib import Path

import pytest
import torch
from forked import ForkedHost
from other_pack import write_other_pack
from safetensors.torch import save_file

from demo.tiny_release import write_release
from wan_models.checkpoints.reader import open_checkpoint


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    """A base folder with the release, and the same weights as single files for the host's own loaders."""
    folder = tmp_path_factory.mktemp("host")
    write_other_pack(folder / "custom_nodes")
    models = folder / "models"
    release = write_release(models / "wan" / "T2V-A14B")
    for name in ("diffusion_models", "vae", "loras", "text_encoders"):
        (models / name).mkdir()
    for expert in ("high", "low"):
        save_file(
            dict(open_checkpoint(release / f"{expert}_noise_model")),
            models / f"diffusion_models/{expert}.safetensors",
        )
    save_file(dict(open_checkpoint(release / "Wan2.1_VAE.pth")), models / "vae" / "vae.safetensors")
    torch.manual_seed(5)
    lora = {}
    for block in range(2):
        for layer in ("self_attn.q", "ffn.0"):
            out_dim, in_dim = open_checkpoint(release / "low_noise_model").shapes[
                f"blocks.{block}.{layer}.weight"
            ]
            name = f"diffusion_model.blocks.{block}.{layer}"
            lora[f"{name}.lora_A.weight"] = torch.randn(4, in_dim) / 16
            lora[f"{name}.lora_B.weight"] = torch.randn(out_dim, 4)
    save_file(lora, models / "loras" / "lora.safetensors")
    return folder


@pytest.fixture(scope="session")
def host(comfyui, base):
    with ForkedHost(comfyui, base=base) as server:
        yield server
