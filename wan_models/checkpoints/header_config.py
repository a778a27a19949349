"""The config of a network, read off the shapes in a checkpoint's header, and config.json for what they do not tell.

What a file says is not believed: a tensor that should be there and is not, or has other axes, sizes that no model has,
and values of other types in config.json are errors that name it.
"""

import math
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from ..config import (
    VAE_2_2,
    CLIPConfig,
    DiTConfig,
    FaceConfig,
    SpeechConfig,
    T5Config,
    TinyVAEConfig,
    VAEConfig,
)
from ..families import find_family
from .animate2 import driven_config
from .errors import CheckpointError
from .reader import Checkpoint
from .tiny_vaes import takes_raw_latents, tiny_vae_version

HEAD_DIM = 128
"""Head width of all released transformers; a single file tells its number of heads by nothing else."""

CLIP_HEAD_DIM = 80
"""Head width of CLIP ViT-H/14."""

_MOST = 2**20  # of any size; the largest is the vocabulary of UMT5, 256,384
_MOST_LAYERS = 512
_MOST_LEVELS = 12  # each doubles the size of a face
# what is taken from config.json: from and to
_COUNTS = {
    "num_heads": (1, _MOST), "num_attention_heads": (1, _MOST), "attention_head_dim": (1, _MOST), "text_len": (1, 2**15)
}  # fmt: skip

_Config = TypeVar("_Config", DiTConfig, VAEConfig, TinyVAEConfig, T5Config, CLIPConfig)


class _Header:
    """Shapes of one checkpoint by name. Raises CheckpointError on what is not there as it should be."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.shapes = checkpoint.shapes
        self.path = checkpoint.path
        self._names: dict[str, int] = {}

    def sizes(self, name: str, axes: int) -> tuple[int, ...]:
        """The shape of a tensor, which must have so many axes and hold something."""
        shape = self.shapes.get(name)
        if shape is None:
            raise self.error(f"{name} is missing")
        if len(shape) != axes or 0 in shape:
            raise self.error(f"{name} has the shape {list(shape)[:9]}, where {axes} axes were expected")
        return shape

    def has(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self.shapes)

    def count(self, prefix: str, most: int = _MOST_LAYERS) -> int:
        """Number of the parts `prefix`0., `prefix`1. ..., one at least."""
        parts = {name[len(prefix) :].split(".")[0] for name in self.shapes if name.startswith(prefix)}
        if not 0 < len(parts) <= most:
            raise self.error(f"{prefix}0 and so on are {len(parts)} parts")
        return len(parts)

    def error(self, problem: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path} looks like a model of Wan's, but {problem}: the file is incomplete or was made for another "
            "model"
        )


_Read = Callable[..., _Config]


def _checked(read: _Read[_Config]) -> _Read[_Config]:
    """Adds a check of all sizes that a network would be built of."""

    def checked(checkpoint: Checkpoint, *more: Any) -> _Config:
        try:
            config = read(checkpoint, *more)
        except CheckpointError:
            raise
        except ValueError as error:  # of the config itself
            raise _Header(checkpoint).error(str(error)) from None
        for name, size in _sizes_of(config):
            if size > _MOST:
                raise _Header(checkpoint).error(f"it is {size:,} wide ({name})")
        return config

    return checked


def _sizes_of(config: Any) -> list[tuple[str, int]]:
    sizes: list[tuple[str, int]] = []
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            sizes += _sizes_of(value)
        parts = value if isinstance(value, tuple) else (value,)
        sizes += [(field.name, part) for part in parts if isinstance(part, int)]
    return sizes


def channels_of(checkpoint: Checkpoint) -> tuple[int, int]:
    """Channels of a diffusion model, in and out."""
    header = _Header(checkpoint)
    _, channels, *patch = header.sizes("patch_embedding.weight", 5)
    return channels, header.sizes("head.head.weight", 2)[0] // math.prod(patch)


@_checked
def dit_config(checkpoint: Checkpoint, kind: str = "auto") -> DiTConfig:
    """Config of a diffusion model of `FAMILIES`; kind: as of `animate2.driven_config`."""
    header = _Header(checkpoint)
    dim, in_dim, *patch = header.sizes("patch_embedding.weight", 5)
    config = _believed(checkpoint, header)
    channels = channels_of(checkpoint)
    family = find_family(channels, header.has)
    assert family is not None, "other channels are those of a variant"
    driven = driven_config(checkpoint, channels, kind)
    name = family.name if driven is None else "animate2"
    has_image = "img_emb.proj.0.weight" in header.shapes
    has_positions = "img_emb.emb_pos" in header.shapes
    return DiTConfig(
        family=name,
        patch_size=(patch[0], patch[1], patch[2]),
        in_dim=in_dim,
        out_dim=channels[1],
        dim=dim,
        ffn_dim=header.sizes("blocks.0.ffn.0.weight", 2)[0],
        freq_dim=header.sizes("time_embedding.0.weight", 2)[1],
        text_dim=header.sizes("text_embedding.0.weight", 2)[1],
        text_len=config.get("text_len", 512),
        num_heads=_heads(config, dim),
        num_layers=header.count("blocks."),
        qk_norm="blocks.0.self_attn.norm_q.weight" in header.shapes,
        cross_attn_norm="blocks.0.norm3.weight" in header.shapes,
        eps=config.get("eps", 1e-6),
        image_dim=header.sizes("img_emb.proj.0.weight", 1)[0] if has_image else 0,
        image_positions=header.sizes("img_emb.emb_pos", 3)[1] if has_positions else 0,
        speech=_speech(checkpoint, header) if family.name == "s2v" else None,
        face=_face(header) if family.name == "animate" else None,
        driven=driven,
    )


def _face(header: _Header) -> FaceConfig:
    convs = "motion_encoder.enc.net_app.convs."
    levels = header.count(convs, _MOST_LEVELS) - 1
    hidden = header.sizes("face_encoder.conv2.conv.weight", 3)[0]
    style, motion = header.sizes("motion_encoder.dec.direction.weight", 2)
    return FaceConfig(
        channels=(
            header.sizes(f"{convs}0.0.weight", 4)[0],
            *(header.sizes(f"{convs}{i}.conv2.1.weight", 4)[0] for i in range(1, levels)),
        ),
        style_dim=style,
        motion_dim=motion,
        hidden_dim=hidden,
        tokens=header.sizes("face_encoder.conv1_local.conv.weight", 3)[0] // hidden,
        pose_dim=header.sizes("pose_patch_embedding.weight", 5)[1],
    )


def _speech(checkpoint: Checkpoint, header: _Header) -> SpeechConfig:
    count, blocks = header.count("audio_injector.injector."), header.count("blocks.")
    stated = _believed(checkpoint, header).get("audio_inject_layers")
    layers = SpeechConfig.inject_layers[:count]
    if isinstance(stated, list) and len(stated) == count and all(_is_whole(n, 0, blocks - 1) for n in stated):
        layers = tuple(stated)
    local, audio_dim, _ = header.sizes("casual_audio_encoder.encoder.conv1_local.conv.weight", 3)
    whole = header.sizes("casual_audio_encoder.encoder.conv1_global.conv.weight", 3)[0]
    return SpeechConfig(
        audio_dim=audio_dim,
        audio_layers=header.sizes("casual_audio_encoder.weights", 4)[1],
        audio_tokens=local // whole,
        # which blocks they follow cannot be told from a single file; there is one release
        inject_layers=layers,
        cond_dim=header.sizes("cond_encoder.weight", 5)[1],
    )


def _believed(checkpoint: Checkpoint, header: _Header) -> dict[str, Any]:
    """The config.json of a diffusion model; {} where it belongs to another one, beside whose files this one lies.

    It states the width, and all that it states of the shape is what the file has. Raises CheckpointError where the
    model's own has values of other types."""
    config = checkpoint.config
    if problem := _mistyped(config):
        if checkpoint.path.is_dir():
            raise CheckpointError(f"{checkpoint.path / 'config.json'}: {problem}")
        return {}
    channels_in, channels_out = channels_of(checkpoint)
    heads = config.get("num_heads") or config.get("num_attention_heads") or 0
    has = {
        "dim": header.sizes("patch_embedding.weight", 5)[0],
        "ffn_dim": header.sizes("blocks.0.ffn.0.weight", 2)[0],
        "freq_dim": header.sizes("time_embedding.0.weight", 2)[1],
        "text_dim": header.sizes("text_embedding.0.weight", 2)[1],
        "num_layers": header.count("blocks."),
        "in_dim": channels_in,
        "in_channels": channels_in,
        "out_dim": channels_out,
        "out_channels": channels_out,
    }
    stated = {"dim": heads * (config.get("attention_head_dim") or 0)} | config
    if not stated["dim"] or any(
        config_value != has[key] for key, config_value in stated.items() if key in has
    ):
        return {}
    return config


def _mistyped(config: dict[str, Any]) -> str | None:
    """Names a value of a config.json that cannot be meant; None where all taken from it can."""
    for key, (least, most) in _COUNTS.items():
        value = config.get(key)
        is_left_out = key not in config or (value is None and key != "text_len")
        if not is_left_out and not _is_whole(value, least, most):
            return f"{key} is {_shown(value)}, and must be a whole number from {least} to {most}"
    eps = config.get("eps", 1e-6)
    if type(eps) not in (int, float) or not 0 <= eps < 1:
        return f"eps is {_shown(eps)}, and must be a small number"
    return None


def _shown(value: Any) -> str:
    is_short = value is None or isinstance(value, (str, int, float))
    return repr(value)[:80] if is_short else "a list or object"


def _is_whole(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _heads(config: dict[str, Any], dim: int) -> int:
    """Heads as config.json gives them, else of the width that all releases have."""
    heads = config.get("num_heads") or config.get("num_attention_heads")
    return heads if heads and dim % heads == 0 else max(1, dim // HEAD_DIM)


@_checked
def t5_config(checkpoint: Checkpoint) -> T5Config:
    """Config of a UMT5 encoder."""
    header = _Header(checkpoint)
    buckets, heads = header.sizes("blocks.0.pos_embedding.embedding.weight", 2)
    vocab_size, dim = header.sizes("token_embedding.weight", 2)
    attention = header.sizes("blocks.0.attn.q.weight", 2)[0]
    if attention % heads:
        raise header.error(f"its {attention} channels of attention do not split into {heads} heads")
    return T5Config(
        vocab_size=vocab_size,
        dim=dim,
        dim_attn=attention,
        dim_ffn=header.sizes("blocks.0.ffn.fc1.weight", 2)[0],
        num_heads=heads,
        num_layers=header.count("blocks."),
        num_buckets=buckets,
    )


@_checked
def clip_config(checkpoint: Checkpoint) -> CLIPConfig:
    """Config of a CLIP image tower."""
    header = _Header(checkpoint)
    dim, _, patch, _ = header.sizes("visual.patch_embedding.weight", 4)
    positions = header.shapes.get("visual.pos_embedding", ())
    if len(positions) < 2 or positions[-2] < 2:
        raise header.error(f"visual.pos_embedding has the shape {list(positions)}")
    heads = max(1, dim // CLIP_HEAD_DIM)
    if dim % heads:
        raise header.error(f"its width {dim} does not split into {heads} heads")
    projection = "visual.projection.weight" if "visual.head" not in header.shapes else None
    return CLIPConfig(
        image_size=patch * math.isqrt(positions[-2] - 1),
        patch_size=patch,
        dim=dim,
        mlp_dim=header.sizes("visual.transformer.0.mlp.0.weight", 2)[0],
        num_heads=heads,
        num_layers=header.count("visual.transformer."),
        out_dim=header.sizes(projection, 2)[0] if projection else header.sizes("visual.head", 2)[1],
    )


@_checked
def vae_config(checkpoint: Checkpoint) -> VAEConfig:
    """Config of a Wan video autoencoder."""
    header = _Header(checkpoint)
    z_dim = header.sizes("conv2.weight", 5)[0]
    decoder = header.sizes("decoder.head.0.gamma", 4)[0]
    if header.has("decoder.upsamples.0.upsamples."):
        encoder = header.sizes("encoder.conv1.weight", 5)[0]
        return replace(VAE_2_2, base_dim=encoder, dec_dim=decoder, z_dim=z_dim)
    return VAEConfig(base_dim=decoder, z_dim=z_dim)


@_checked
def tiny_vae_config(checkpoint: Checkpoint) -> TinyVAEConfig:
    """Config of a tiny autoencoder for the latents of a Wan VAE."""
    header = _Header(checkpoint)
    convs = [header.sizes(f"decoder.{layer}.weight", 4) for layer in (1, 8, 14, 20)]
    encoder = header.sizes("encoder.0.weight", 4)[0] if header.has("encoder.") else 0
    version_and_patch = tiny_vae_version(checkpoint.shapes)
    assert version_and_patch is not None, "other sizes are those of other models"
    version, patch = version_and_patch
    return TinyVAEConfig(
        version=version,
        z_dim=convs[0][1],
        patch=patch,
        enc_dim=encoder,
        dec_dims=tuple(conv[0] for conv in convs),
        raw=takes_raw_latents(checkpoint.path.name, checkpoint.dtypes["decoder.1.weight"]),
    )
