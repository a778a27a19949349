"""Runs inside a ComfyUI's own Python process: `changed_files_script.py COMFYUI PACK BASE`; prints one JSON object.

Models are loaded and used, their files change on disk, and they are used again: what each use says.
"""

import json
import os
import runpy
import sys
from pathlib import Path

inside = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "inside_host.py"))
base = Path(sys.argv[3])
nodes = inside["enter"](*map(Path, sys.argv[1:4]))

import comfy.sample  # noqa: E402
import torch  # noqa: E402

WAN = "wan/Animate-14B/"


def load(name, *args):
    return nodes[name].execute(*args).result[0]


def sampled(model):
    text = [[torch.zeros(1, 512, 4096), {}]]
    latent = torch.zeros(1, 16, 2, 4, 4)
    return comfy.sample.sample(
        model, torch.ones_like(latent), 1, 1.0, "euler", "simple", text, text, latent, seed=1
    )


# how a file is loaded, and how what was loaded is used
PARTS = {
    "model": (
        "models/diffusion_models/low.safetensors",
        lambda: load("WanDiTLoader", "low.safetensors"), sampled,
    ),
    "gguf": ("models/diffusion_models/low.gguf", lambda: load("WanDiTLoader", "low.gguf"), sampled),
    "lora": (
        "models/loras/lora.safetensors",
        lambda: load("WanLoRA", load("WanDiTLoader", "low.safetensors"), "lora.safetensors"), sampled,
    ),
    "vae": (
        "models/vae/vae.safetensors",
        lambda: load("WanVAELoader", "vae.safetensors"), lambda vae: vae.decode(torch.zeros(1, 16, 1, 4, 4)),
    ),
    "text encoder": (
        f"models/{WAN}models_t5_umt5-xxl-enc-bf16.pth",
        lambda: load("WanT5Loader", WAN + "models_t5_umt5-xxl-enc-bf16.pth"),
        lambda clip: clip.encode_from_tokens_scheduled(clip.tokenize("a cat")),
    ),
    "image encoder": (
        f"models/{WAN}models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
        lambda: load("WanCLIPVisionLoader", WAN + "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"),
        lambda vision: vision.encode_image(torch.zeros(1, 32, 32, 3)),
    ),
    "audio encoder": (
        "models/audio_encoders/listener/model.safetensors",
        lambda: load("WanAudioEncoderLoader", "listener/model.safetensors"),
        lambda encoder: encoder.encode_audio(torch.zeros(1, 1, 16000), 16000),
    ),
}  # fmt: skip


def cut(file):
    os.truncate(file, file.stat().st_size // 3)


def overwrite(file):
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2)
        opened.write(bytes(4096))
    os.utime(file, ns=(1, 1))  # a clock that stands still between two writes would hide them


def replace(file):
    (file.with_suffix(".new")).write_bytes(file.read_bytes())
    file.with_suffix(".new").replace(file)


CHANGES = {"cut": cut, "overwritten": overwrite, "replaced": replace, "deleted": Path.unlink}
found = {}
with torch.inference_mode():
    for part, (name, make, use) in PARTS.items():
        file = base / name
        whole = file.read_bytes()
        for how, change in CHANGES.items():
            loaded = make()
            use(loaded)
            change(file)
            try:
                use(loaded)
                found[f"{part} {how}"] = "works"
            except ValueError as error:
                found[f"{part} {how}"] = str(error)
            file.unlink(missing_ok=True)
            file.write_bytes(whole)
            use(make())
sys.stdout.write(json.dumps(found))
