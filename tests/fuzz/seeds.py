"""Small valid model files of every kind, to be damaged: each a folder, and in it what is opened and what is changed."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from demo.tiny_release import write_image_tower, write_listener
from tests.support.formats import vocabulary, write_gguf, write_scaled_fp8
from training.tiny_tokenizer import write_tokenizer
from wan_models.checkpoints.keys import to_foreign
from wan_models.config import CLIPConfig, DiTConfig, T5Config, VAEConfig
from wan_models.dit.base import WanModel
from wan_models.random_weights import random_state_dict
from wan_models.text.umt5 import UMT5Encoder
from wan_models.vae.wan21 import WanVAE21

DIT = DiTConfig(dim=32, ffn_dim=32, freq_dim=32, text_dim=32, num_heads=1, num_layers=1)
T5 = T5Config(vocab_size=400, dim=32, dim_attn=32, dim_ffn=32, num_heads=2, num_layers=1)
CLIP = CLIPConfig(image_size=28, dim=80, mlp_dim=32, num_heads=1, num_layers=1, out_dim=8)


@dataclass(frozen=True)
class Seed:
    """`use`: what is done with it, see `use.py`; opened and changed: paths in its folder ("" is the folder)."""

    name: str
    use: str
    opened: str
    changed: str


SEEDS = (
    Seed("dit-safetensors", "dit", "m.safetensors", "m.safetensors"),
    Seed("fp8-safetensors", "dit", "m.safetensors", "m.safetensors"),
    Seed("dit-gguf", "dit", "m.gguf", "m.gguf"),
    Seed("dit-pth", "dit", "m.pth", "m.pth"),
    Seed("dit-old-pth", "dit", "m.pth", "m.pth"),
    Seed("vae-pth", "vae", "m.pth", "m.pth"),
    Seed("clip-pth", "clip_vision", "m.pth", "m.pth"),
    Seed("shards-index", "dit", "", "m.safetensors.index.json"),
    Seed("folder-config", "dit", "", "config.json"),
    Seed("t5-tokenizer", "text", "m.safetensors", "tokenizer.json"),
    Seed("t5-tokenizer-config", "text", "m.safetensors", "tokenizer_config.json"),
    Seed("t5-spiece", "text", "m.safetensors", "m.safetensors"),
    Seed("t5-gguf", "text", "m.gguf", "m.gguf"),
    Seed("wav2vec-config", "audio", "", "config.json"),
    Seed("wav2vec-preprocessor", "audio", "", "preprocessor_config.json"),
    Seed("lora-safetensors", "lora", "m.safetensors", "m.safetensors"),
    Seed("lora-pth", "lora", "m.pth", "m.pth"),
)


def write_seeds(root: Path) -> None:
    """Writes each of `SEEDS` into a folder of its name."""
    folders = {seed.name: root / seed.name for seed in SEEDS}
    for folder in folders.values():
        folder.mkdir()
    dit = random_state_dict(lambda: WanModel(DIT), 1)
    save_file(dit, folders["dit-safetensors"] / "m.safetensors", {"title": "a tiny model"})
    write_scaled_fp8(folders["fp8-safetensors"] / "m.safetensors", dit, style="newer")
    write_gguf(folders["dit-gguf"] / "m.gguf", dit, "Q8_0")
    torch.save({"model": dit, "step": 3}, folders["dit-pth"] / "m.pth")
    torch.save(dit, folders["dit-old-pth"] / "m.pth", _use_new_zipfile_serialization=False)
    torch.save(random_state_dict(lambda: WanVAE21(VAEConfig(base_dim=8)), 1), folders["vae-pth"] / "m.pth")
    write_image_tower(folders["clip-pth"] / "m.pth", 1, CLIP)
    _write_folders(folders, dit)
    _write_text(folders)
    for name in ("wav2vec-config", "wav2vec-preprocessor"):
        write_listener(folders[name], 1)
    lora = {}
    for module in ("blocks.0.self_attn.q", "blocks.0.ffn.0"):
        lora[f"diffusion_model.{module}.lora_A.weight"] = torch.rand(2, 32)
        lora[f"diffusion_model.{module}.lora_B.weight"] = torch.rand(32, 2)
        lora[f"diffusion_model.{module}.alpha"] = torch.tensor(2.0)
    save_file(lora, folders["lora-safetensors"] / "m.safetensors")
    torch.save(lora, folders["lora-pth"] / "m.pth")


def _write_folders(folders, dit):
    names = sorted(dit)
    places = {}
    for i in range(2):
        shard = f"m-0000{i + 1}-of-00002.safetensors"
        save_file({name: dit[name] for name in names[i::2]}, folders["shards-index"] / shard)
        places |= dict.fromkeys(names[i::2], shard)
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folders["shards-index"] / "m.safetensors.index.json").write_text(json.dumps(index))
    save_file(dit, folders["folder-config"] / "m.safetensors")
    config = {"dim": 32, "num_heads": 1, "num_layers": 1, "text_len": 512, "eps": 1e-6, "model_type": "t2v"}
    (folders["folder-config"] / "config.json").write_text(json.dumps(config))


def _write_text(folders):
    t5 = random_state_dict(lambda: UMT5Encoder(T5), 1)
    model, fields = vocabulary()
    for name in ("t5-tokenizer", "t5-tokenizer-config"):
        save_file(t5, folders[name] / "m.safetensors")
        assert write_tokenizer(folders[name]) <= T5.vocab_size
    spiece = {"spiece_model": torch.tensor(list(model), dtype=torch.uint8)}
    save_file(t5 | spiece, folders["t5-spiece"] / "m.safetensors")
    llama = to_foreign("llama.cpp UMT5", t5)
    write_gguf(
        folders["t5-gguf"] / "m.gguf", {llama[k]: v for k, v in t5.items()}, "F32", "t5encoder", fields
    )
