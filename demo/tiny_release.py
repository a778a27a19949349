"""Tiny, seeded models of each Wan2.2 release in the official release layout, for the demo and the tests.

Small enough to run in seconds on a CPU, and of the shape that the host's own loaders accept too (head width 128,
text width 4096). The video it makes is coloured noise: the weights are random.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from training.tiny_tokenizer import write_tokenizer
from wan_models.checkpoints.release_folder import official_config
from wan_models.config import (
    VAE_2_2,
    CLIPConfig,
    DiTConfig,
    DrivenConfig,
    FaceConfig,
    SpeechConfig,
    T5Config,
    VAEConfig,
)
from wan_models.families import FAMILIES
from wan_models.random_weights import random_state_dict
from wan_models.text.umt5 import UMT5Encoder
from wan_models.vae.wan21 import WanVAE21
from wan_models.vae.wan22 import WanVAE22
from wan_models.vision.clip import VisionTransformer

DIT = DiTConfig(dim=256, ffn_dim=512, num_heads=2, num_layers=2)
DITS = {
    "T2V-A14B": DIT,
    "I2V-A14B": replace(DIT, family="i2v", in_dim=36),
    "TI2V-5B": replace(DIT, family="ti2v", in_dim=48, out_dim=48),
    "S2V-14B": replace(
        DIT, family="s2v", speech=SpeechConfig(audio_dim=32, audio_layers=4, inject_layers=(0, 1))
    ),
    "Animate-14B": replace(
        DIT, family="animate", in_dim=36, num_layers=5, image_dim=160,
        face=FaceConfig(channels=(2, 4, 4, 8, 8), style_dim=24, hidden_dim=32),
    ),
    "Animate-2-14B": replace(DIT, family="animate2", in_dim=36, image_dim=160, driven=DrivenConfig()),
}  # fmt: skip
CLIP = CLIPConfig(dim=160, mlp_dim=320, num_heads=2, num_layers=3, out_dim=64)
LISTENER: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48, "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "conv_bias": True, "vocab_size": 33,
    "feat_extract_norm": "layer", "do_stable_layer_norm": True,
}  # fmt: skip
VAE = VAEConfig(base_dim=8)
VAE22 = replace(VAE_2_2, base_dim=8, dec_dim=8)


def write_dit(folder: Path, seed: int, shards: int, config: DiTConfig = DIT) -> None:
    """One expert as the official release has it: config.json and safetensors, in `shards` files."""
    folder.mkdir(parents=True, exist_ok=True)
    state = random_state_dict(lambda: FAMILIES[config.family].network_class(config), seed)
    (folder / "config.json").write_text(json.dumps(official_config(config), indent=2))
    stem = "diffusion_pytorch_model"
    if shards == 1:
        save_file(state, folder / f"{stem}.safetensors")
        return
    weight_map: dict[str, str] = {}
    names = list(state)
    for i in range(shards):
        file = f"{stem}-{i + 1:05}-of-{shards:05}.safetensors"
        part = names[i::shards]
        save_file({name: state[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": sum(w.nbytes for w in state.values())}, "weight_map": weight_map}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index))


def write_listener(folder: Path, seed: int) -> None:
    """A wav2vec2 of the layout that the official release brings."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    config = Wav2Vec2Config(**LISTENER)

    network = Wav2Vec2Model(config)
    network.load_state_dict(random_state_dict(lambda: Wav2Vec2Model(config), seed), strict=False)
    network.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(folder)


def write_image_tower(file: Path, seed: int, config: CLIPConfig = CLIP) -> None:
    """The open-clip checkpoint that the official release brings: the text half is there, and not used."""
    tower = random_state_dict(lambda: VisionTransformer(config), seed)
    torch.save(
        {
            **{f"visual.{k}": v.half() for k, v in tower.items()},
            "textual.norm.weight": torch.ones(8, dtype=torch.half),
        },
        file,
    )


def write_relighting_lora(file: Path, seed: int, rank: int = 2) -> None:
    """A LoRA as the official training code left it: peft's names below "state_dict", beside other things."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for layer in range(DITS["Animate-14B"].num_layers):
        for part in ("self_attn.q", "self_attn.o", "cross_attn.k_img"):
            stem = f"base_model.model.blocks.{layer}.{part}"
            state[f"{stem}.lora_A.default.weight"] = (
                torch.randn(rank, DIT.dim, generator=generator) * DIT.dim**-0.5
            )
            state[f"{stem}.lora_B.default.weight"] = torch.randn(DIT.dim, rank, generator=generator) * 0.3
    torch.save({"state_dict": state, "epoch": 1}, file)


def write_release(folder: str | Path, seed: int = 0, name: str = "T2V-A14B") -> Path:
    """Writes the release folder of one of `DITS` (existing files are replaced) and returns it."""
    folder = Path(folder)
    if name in ("TI2V-5B", "S2V-14B", "Animate-14B", "Animate-2-14B"):
        write_dit(folder, seed + 1, shards=2, config=DITS[name])
    else:
        write_dit(folder / "high_noise_model", seed + 1, shards=2, config=DITS[name])
        write_dit(folder / "low_noise_model", seed + 2, shards=1, config=DITS[name])
    if name == "S2V-14B":
        write_listener(folder / "wav2vec2-large-xlsr-53-english", seed + 5)
    if name in ("Animate-14B", "Animate-2-14B"):
        write_image_tower(folder / "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth", seed + 6)
    if name == "Animate-14B":
        write_relighting_lora(folder / "relighting_lora.ckpt", seed + 7)
    if name == "TI2V-5B":
        vae = random_state_dict(lambda: WanVAE22(VAE22), seed + 4)
        torch.save(vae, folder / "Wan2.2_VAE.pth")
    else:
        vae = random_state_dict(lambda: WanVAE21(VAE), seed + 4)
        torch.save(vae, folder / "Wan2.1_VAE.pth")
    vocabulary = write_tokenizer(folder / "google" / "umt5-xxl")
    t5 = T5Config(vocab_size=vocabulary, dim_attn=64, dim_ffn=128, num_heads=2, num_layers=2)
    text = random_state_dict(lambda: UMT5Encoder(t5), seed + 3)
    torch.save({k: v.bfloat16() for k, v in text.items()}, folder / "models_t5_umt5-xxl-enc-bf16.pth")
    return folder


if __name__ == "__main__":
    sys.stdout.write(f"{write_release(sys.argv[1])}\n")
