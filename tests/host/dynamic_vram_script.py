"""Loads one file of each kind as a host with dynamic VRAM does, and prints how many weights each model has.

Arguments: the host's folder, the pack's, the base folder. Dynamic VRAM needs a GPU, but what it changes as a model is
made does not."""

import importlib
import json
import runpy
import sys
from pathlib import Path

comfyui, pack, base = map(Path, sys.argv[1:4])
inside = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "inside_host.py"))
inside["enter"](comfyui, pack, base)

import comfy.memory_management  # noqa: E402

assert hasattr(comfy.memory_management, "aimdo_enabled")
comfy.memory_management.aimdo_enabled = True
models = f"{inside['import_name'](pack)}.comfy_bridge.models"
diffusion, text_encoder, autoencoder, vision = (
    importlib.import_module(f"{models}.{name}")
    for name in ("diffusion", "text_encoder", "autoencoder", "vision")
)
release = base / "models" / "wan" / "Animate-14B"
clip = next(release.glob("models_clip*.pth"))
loaded = {
    "dit": diffusion.load_diffusion_model(release).model.diffusion_model,
    "t5": text_encoder.load_text_encoder(next(release.glob("models_t5*.pth"))).cond_stage_model,
    "vae": autoencoder.load_vae(next(release.glob("Wan2*VAE.pth"))).first_stage_model,
    "clip": vision.load_clip_vision(clip).patcher.model,
}
quantized = base / "models" / "diffusion_models" / "nvfp4.safetensors"
loaded["dit nvfp4"] = diffusion.load_diffusion_model(quantized).model.diffusion_model
weights = {
    name: sum(p.numel() for p in model.parameters() if p.device.type != "meta")
    for name, model in loaded.items()
}
sys.stdout.write(json.dumps(weights) + "\n")
