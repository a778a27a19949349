"""What a checkpoint holds, told from names and shapes alone (and config.json, where there is one)."""

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..config import VAE_2_2, CLIPConfig, DiTConfig, FaceConfig, SpeechConfig, T5Config, VAEConfig
from ..families import FAMILIES, find_family
from .lora_names import is_lora
from .reader import Checkpoint
from .variants import Variant, variant_of

HEAD_DIM = 128
"""Of all released transformers; a single file does not tell the number of heads otherwise."""

CLIP_HEAD_DIM = 80
"""Of CLIP ViT-H/14."""


@dataclass(frozen=True)
class ModelInfo:
    """What a checkpoint is.

    `kind` is dit, vae, t5, clip_vision, wav2vec2, variant or unknown; `config` goes with the kind.
    `dtype` is that of most plain weights; `packed` names the format of most packed ones, empty where none is.
    `variant`: which of the Wan models that are not run here, of that kind."""

    kind: str
    description: str
    parameters: int
    dtype: torch.dtype
    format: str
    config: Any = None  # a DiTConfig, VAEConfig, T5Config or CLIPConfig; none of others
    packed: str = ""
    variant: Variant | None = None

    @property
    def compute_dtype(self) -> torch.dtype:
        """Dtype of the weights; the official code's bfloat16 where theirs is for storage (packed, or of 8 bits)."""
        is_for_storage = bool(self.packed) or self.dtype.itemsize < 2
        return torch.bfloat16 if is_for_storage else self.dtype


def identify(checkpoint: Checkpoint) -> ModelInfo:
    """Tells what a checkpoint holds; kind "unknown" where no rule fits."""
    shapes = checkpoint.shapes
    parameters = sum(math.prod(shape) for shape in shapes.values())
    config: Any = None  # a DiTConfig, VAEConfig, T5Config or CLIPConfig
    is_dit = "patch_embedding.weight" in shapes and "head.head.weight" in shapes
    channels = _channels(checkpoint) if is_dit else None
    variant = variant_of(shapes, channels, checkpoint.path, checkpoint.metadata, checkpoint.config)
    if variant is not None:
        kind, name = "variant", variant.name
    elif is_dit:
        kind, config = "dit", _dit(checkpoint)
        name = f"a {FAMILIES[config.family].description} diffusion model ({config.in_dim} input channels)"
    elif "token_embedding.weight" in shapes and "blocks.0.attn.q.weight" in shapes:
        kind, config, name = "t5", _t5(checkpoint), "a UMT5 text encoder"
    elif "decoder.conv1.weight" in shapes and "encoder.conv1.weight" in shapes:
        kind, config = "vae", _vae(checkpoint)
        name = f"a Wan {config.version} VAE ({config.z_dim} latent channels)"
    elif "visual.patch_embedding.weight" in shapes and "visual.transformer.0.norm1.weight" in shapes:
        kind, config, name = "clip_vision", _clip(checkpoint), "a CLIP image encoder"
    elif "feature_extractor.conv_layers.0.conv.weight" in shapes:
        kind, name = "wav2vec2", "a wav2vec2 audio encoder"
    else:
        what = "a LoRA file" if is_lora(shapes) else "no model this pack knows"
        stated = f"the file says {checkpoint.gguf.architecture!r}, and " if checkpoint.gguf else ""
        kind, begins = "unknown", ", ".join(sorted(shapes)[:3])
        name = f"{what} ({stated}it begins with {begins})"
    size = (
        f", {parameters / 1e9:.1f} billion parameters" if parameters > 1e8 else f", {parameters:,} parameters"
    )
    description = name if kind == "unknown" else name + size
    dtype, packed = _main_dtype(checkpoint)
    return ModelInfo(kind, description, parameters, dtype, checkpoint.format, config, packed, variant)


def _main_dtype(checkpoint: Checkpoint) -> tuple[torch.dtype, str]:
    """The dtype that most of the plain weights are stored in, and the format of most of the packed ones."""
    plain: Counter[torch.dtype] = Counter()
    packed: Counter[str] = Counter()
    for name, dtype in checkpoint.dtypes.items():
        packing, size = checkpoint.packing(name), math.prod(checkpoint.shapes[name])
        if packing is None:
            plain[dtype] += size
        else:
            packed[packing.name] += size
    most = lambda counts, default: counts.most_common(1)[0][0] if counts else default  # noqa: E731
    return most(plain, torch.float32), most(packed, "")


def _count(checkpoint: Checkpoint, prefix: str) -> int:
    """How many numbered parts `prefix`0., `prefix`1. ... there are."""
    return len({name[len(prefix) :].split(".")[0] for name in checkpoint.shapes if name.startswith(prefix)})


def _channels(checkpoint: Checkpoint) -> tuple[int, int]:
    """Of a diffusion model, in and out."""
    _, channels, *patch = checkpoint.shapes["patch_embedding.weight"]
    return channels, checkpoint.shapes["head.head.weight"][0] // math.prod(patch)


def _dit(checkpoint: Checkpoint) -> DiTConfig:
    shapes = checkpoint.shapes
    dim, in_dim, *_ = shapes["patch_embedding.weight"]
    patch = shapes["patch_embedding.weight"][2:5]
    config = _believed(checkpoint)
    has = lambda prefix: any(name.startswith(prefix) for name in shapes)  # noqa: E731
    family = find_family(_channels(checkpoint), has)
    assert family is not None, "other channels are those of a variant"
    return DiTConfig(
        family=family.name,
        patch_size=(patch[0], patch[1], patch[2]),
        in_dim=in_dim,
        out_dim=shapes["head.head.weight"][0] // math.prod(patch),
        dim=dim,
        ffn_dim=shapes["blocks.0.ffn.0.weight"][0],
        freq_dim=shapes["time_embedding.0.weight"][1],
        text_dim=shapes["text_embedding.0.weight"][1],
        text_len=config.get("text_len", 512),
        num_heads=_heads(config, dim),
        num_layers=_count(checkpoint, "blocks."),
        qk_norm="blocks.0.self_attn.norm_q.weight" in shapes,
        cross_attn_norm="blocks.0.norm3.weight" in shapes,
        eps=config.get("eps", 1e-6),
        image_dim=shapes.get("img_emb.proj.0.weight", (0,))[0],
        image_positions=shapes.get("img_emb.emb_pos", (0, 0))[1],
        speech=_speech(checkpoint) if family.name == "s2v" else None,
        face=_face(checkpoint) if family.name == "animate" else None,
    )


def _face(checkpoint: Checkpoint) -> FaceConfig:
    shapes, convs = checkpoint.shapes, "motion_encoder.enc.net_app.convs."
    levels = _count(checkpoint, convs) - 1
    hidden = shapes["face_encoder.conv2.conv.weight"][0]
    return FaceConfig(
        channels=(
            shapes[f"{convs}0.0.weight"][0],
            *(shapes[f"{convs}{i}.conv2.1.weight"][0] for i in range(1, levels)),
        ),
        style_dim=shapes["motion_encoder.dec.direction.weight"][0],
        motion_dim=shapes["motion_encoder.dec.direction.weight"][1],
        hidden_dim=hidden,
        tokens=shapes["face_encoder.conv1_local.conv.weight"][0] // hidden,
        pose_dim=shapes["pose_patch_embedding.weight"][1],
    )


def _speech(checkpoint: Checkpoint) -> SpeechConfig:
    shapes = checkpoint.shapes
    count, blocks = _count(checkpoint, "audio_injector.injector."), _count(checkpoint, "blocks.")
    stated = _believed(checkpoint).get("audio_inject_layers")
    layers = SpeechConfig.inject_layers[:count]
    if isinstance(stated, list) and len(stated) == count and all(layer in range(blocks) for layer in stated):
        layers = tuple(stated)
    local, audio_dim, _ = shapes["casual_audio_encoder.encoder.conv1_local.conv.weight"]
    return SpeechConfig(
        audio_dim=audio_dim,
        audio_layers=shapes["casual_audio_encoder.weights"][1],
        audio_tokens=local // shapes["casual_audio_encoder.encoder.conv1_global.conv.weight"][0],
        # which blocks they follow cannot be told from a single file; there is one release
        inject_layers=layers,
        cond_dim=shapes["cond_encoder.weight"][1],
    )


def _believed(checkpoint: Checkpoint) -> dict[str, Any]:
    """The config.json of a diffusion model; {} where it belongs to another one, beside whose files this one lies.

    It states the width, and all that it states of the shape is what the file has."""
    shapes, config = checkpoint.shapes, checkpoint.config
    channels_in, channels_out = _channels(checkpoint)
    heads = config.get("num_heads") or config.get("num_attention_heads") or 0
    has = {
        "dim": shapes["patch_embedding.weight"][0],
        "ffn_dim": shapes["blocks.0.ffn.0.weight"][0],
        "freq_dim": shapes["time_embedding.0.weight"][1],
        "text_dim": shapes["text_embedding.0.weight"][1],
        "num_layers": _count(checkpoint, "blocks."),
        "in_dim": channels_in,
        "in_channels": channels_in,
        "out_dim": channels_out,
        "out_channels": channels_out,
    }
    stated = {"dim": heads * config.get("attention_head_dim", 0)} | config
    if not stated["dim"] or any(
        config_value != has[key] for key, config_value in stated.items() if key in has
    ):
        return {}
    return config


def _heads(config: dict[str, Any], dim: int) -> int:
    """Heads as config.json gives them, else of the width that all releases have."""
    heads = config.get("num_heads") or config.get("num_attention_heads")
    return heads if heads and dim % heads == 0 else max(1, dim // HEAD_DIM)


def _t5(checkpoint: Checkpoint) -> T5Config:
    shapes = checkpoint.shapes
    buckets, heads = shapes["blocks.0.pos_embedding.embedding.weight"]
    vocab_size, dim = shapes["token_embedding.weight"]
    return T5Config(
        vocab_size=vocab_size,
        dim=dim,
        dim_attn=shapes["blocks.0.attn.q.weight"][0],
        dim_ffn=shapes["blocks.0.ffn.fc1.weight"][0],
        num_heads=heads,
        num_layers=_count(checkpoint, "blocks."),
        num_buckets=buckets,
    )


def _clip(checkpoint: Checkpoint) -> CLIPConfig:
    shapes = checkpoint.shapes
    dim, _, patch, _ = shapes["visual.patch_embedding.weight"]
    return CLIPConfig(
        image_size=patch * math.isqrt(shapes["visual.pos_embedding"][-2] - 1),
        patch_size=patch,
        dim=dim,
        mlp_dim=shapes["visual.transformer.0.mlp.0.weight"][0],
        num_heads=max(1, dim // CLIP_HEAD_DIM),
        num_layers=_count(checkpoint, "visual.transformer."),
        out_dim=shapes["visual.head"][1]
        if "visual.head" in shapes
        else shapes["visual.projection.weight"][0],
    )


def _vae(checkpoint: Checkpoint) -> VAEConfig:
    shapes = checkpoint.shapes
    z_dim = shapes["conv2.weight"][0]
    decoder = shapes["decoder.head.0.gamma"][0]
    if any(name.startswith("decoder.upsamples.0.upsamples.") for name in shapes):
        encoder = shapes["encoder.conv1.weight"][0]
        return replace(VAE_2_2, base_dim=encoder, dec_dim=decoder, z_dim=z_dim)
    return VAEConfig(base_dim=decoder, z_dim=z_dim)
