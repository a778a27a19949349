"""Small models of every family with random weights, and inputs for them: what `selftest` compares.

Written as checkpoints in the official form, one folder per model, so that they are opened as a release is.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ..checkpoints.patches import Patch, Patches
from ..checkpoints.release_folder import official_config
from ..config import (
    DISTILLED_BIAS,
    DiTConfig,
    DrivenConfig,
    FaceConfig,
    SpeechConfig,
    T5Config,
    VAEConfig,
)
from ..dit.guided_text import GuidedText
from ..dit.text_guidance import NAG
from ..dit.text_schedule import Schedule, Segment
from ..models import Config, network_class
from ..random_weights import random_state_dict

_SMALL = DiTConfig(dim=64, ffn_dim=96, num_heads=4, num_layers=2, text_dim=24, text_len=16)
CONFIGS = {
    "t2v": _SMALL,
    "i2v": replace(_SMALL, family="i2v", in_dim=36),
    "ti2v": replace(_SMALL, family="ti2v", in_dim=48, out_dim=48),
    "s2v": replace(
        _SMALL,
        family="s2v",
        num_layers=3,
        speech=SpeechConfig(audio_dim=16, audio_layers=3, inject_layers=(0, 2)),
    ),
    "animate": replace(
        _SMALL,
        family="animate",
        in_dim=36,
        num_layers=5,
        image_dim=32,
        face=FaceConfig(channels=(4, 4, 4), style_dim=12, motion_dim=4, hidden_dim=16),
    ),
    "animate2": replace(
        _SMALL, family="animate2", in_dim=36, num_layers=10, image_dim=32, driven=DrivenConfig(DISTILLED_BIAS)
    ),
}
VAES = {
    "VAE 2.1": VAEConfig(base_dim=8),
    "VAE 2.2": VAEConfig("2.2", base_dim=8, z_dim=48, stride=(4, 16, 16), dec_dim=8),
}
T5 = T5Config(vocab_size=50, dim=24, dim_attn=16, dim_ffn=32, num_heads=2, num_layers=3)


def inputs_of(config: DiTConfig, seed: int, batch: int = 2) -> dict[str, Any]:
    """Conditioning of a small video, by the names of `LoadedModel.velocity`; 5 x 7 patches, so no degree divides it."""
    generator = torch.Generator().manual_seed(seed)
    frames, height, width = 3, 10, 14
    draw = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    out: dict[str, Any] = {
        "x": draw(batch, config.in_dim, frames, height, width),
        "timestep": torch.tensor([900.0, 350.0, 20.0])[:batch],
        "context": draw(batch, 7, config.text_dim),
    }
    if config.family == "ti2v":  # the first latent frame is known
        out["timestep"] = torch.tensor([[0.0, 700.0, 700.0], [0.0, 120.0, 120.0], [0.0, 9.0, 9.0]])[:batch]
    if config.speech:
        speech = config.speech
        out["audio"] = draw(batch, speech.audio_layers, speech.audio_dim, 4 * frames)
        out["reference"] = draw(batch, config.out_dim, 1, height, width)
        out["motion"] = draw(batch, config.out_dim, 19, height, width)
        out["pose"] = draw(batch, config.out_dim, frames, height, width)
    if config.face:
        out["image"] = draw(batch, 257, config.image_dim)
        out["pose"] = draw(batch, config.out_dim, frames - 1, height, width)
        out["faces"] = draw(batch, 3, 4 * (frames - 2) + 1, config.face.size, config.face.size)
    if config.driven:
        out["image"] = draw(batch, 257, config.image_dim)
        out["driving"] = draw(1, config.out_dim, frames - 1, height, width).expand(batch, -1, -1, -1, -1)
        out["driving_text"] = draw(1, 5, config.text_dim).expand(batch, -1, -1)
        out["driving_image"] = draw(1, 257, config.image_dim).expand(batch, -1, -1)
        out["unconditional"] = torch.arange(batch) % 2 == 1
    return out


def guidance_of(config: DiTConfig, seed: int, batch: int) -> dict[str, Any]:
    """Guidance and a schedule of the prompt for `inputs_of`, as `GuidedText.plain` gives them."""
    negative = torch.randn(1, 5, config.text_dim, generator=torch.Generator().manual_seed(seed + 1))
    nag = NAG(negative, rows=torch.arange(batch) % 2 == 0)
    schedule = Schedule((Segment(0, 3, 0, 1), Segment(3, 6, 1, 3)), 3)
    return GuidedText(negative, nag, schedule).plain()


def lora_of(config: DiTConfig, seed: int) -> Patches:
    """A low-rank change of some weights, and a difference of a bare parameter."""
    generator = torch.Generator().manual_seed(seed)
    names = [
        f"blocks.{i}.{part}.weight"
        for i in range(config.num_layers)
        for part in ("self_attn.q", "cross_attn.o")
    ]
    out: dict[str, list[Patch]] = {}
    for name in names:
        up, down = (torch.randn(shape, generator=generator) for shape in ((config.dim, 2), (2, config.dim)))
        out[name] = [Patch("lora", 0.7, 1.0, {"up": up, "down": down / 8, "alpha": 1.0})]
    out["head.modulation"] = [Patch("diff", 1.0, 1.0, {"diff": torch.full((1, 2, config.dim), 0.2)})]
    return out


def write_models(folder: Path) -> None:
    """Checkpoints of all models, with random weights."""
    for seed, (name, config) in enumerate(CONFIGS.items()):
        write_dit(folder / name, config, seed)
    for name, vae in VAES.items():
        _write(folder / name, vae, 7)
    _write(folder / "T5", T5, 8)


def write_dit(folder: Path, config: DiTConfig, seed: int, dtype: torch.dtype = torch.float32) -> None:
    """Checkpoint of a transformer with random weights of that dtype."""
    _write(folder, config, seed, dtype)
    (folder / "config.json").write_text(json.dumps(official_config(config)))


def _write(folder: Path, config: Config, seed: int, dtype: torch.dtype = torch.float32) -> None:
    folder.mkdir()
    weights = random_state_dict(lambda: network_class(config)(config), seed)
    state = {name: weight.to(dtype) for name, weight in weights.items()}
    save_file(state, folder / "diffusion_pytorch_model.safetensors")
