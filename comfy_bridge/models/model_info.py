"""Kind and needs of a model file, from its header alone."""

from collections.abc import Callable
from pathlib import Path

from ...wan_models.checkpoints.detect import ModelInfo, identify
from ...wan_models.checkpoints.reader import open_checkpoint
from ...wan_models.config import TinyVAEConfig
from ...wan_models.dit.kept_keys import Place, kept_bytes
from ...wan_models.families import FAMILIES
from ...wan_models.memory import activation_bytes, tokens_of
from .diffusion import INFERENCE_DTYPES
from .other_models import advice

_GIB = 1 << 30
_KEPT: tuple[Place, ...] = ("ram", "ram int8")


def describe(path: str | Path, width: int, height: int, frames: int) -> str:
    """A few lines on a model file or folder; the activations of a diffusion model are those of a video of this size.

    Raises CheckpointError (a ValueError) where the file is broken."""
    checkpoint = open_checkpoint(path).for_model()
    info = identify(checkpoint)
    stored = info.packed or str(info.dtype).removeprefix("torch.")
    lines = [
        f"{checkpoint.path.name}: {info.description}",
        f"stored as {checkpoint.format}, {stored}, {checkpoint.stored_bytes / _GIB:.2f} GiB of weights",
    ]
    if checkpoint.fault:
        lines.append(f"cannot be loaded: {checkpoint.fault}")
    return "\n".join(lines + _DETAILS[info.kind](info, width, height, frames))


def _dit(info: ModelInfo, width: int, height: int, frames: int) -> list[str]:
    config = info.config
    is_2_2 = config.out_dim == 48
    scale = 16 if is_2_2 else 8
    latents, area = (frames - 1) // 4 + 1, (height // scale, width // scale)
    references = FAMILIES[config.family].network_class.frames_before
    shape = (1, config.in_dim, latents + references, *area)
    activations = activation_bytes(config, shape, INFERENCE_DTYPES[0])
    lines = [
        f"{config.in_dim} channels in, {config.out_dim} out; {config.num_layers} layers, {config.dim} wide",
        f"goes with the Wan {'2.2' if is_2_2 else '2.1'} VAE and the UMT5-XXL text encoder ({config.text_dim} wide)",
        f"activations about {activations / _GIB:.2f} GiB at {width}x{height}, {frames} frames",
    ]
    if config.driven:
        tokens = tokens_of(config, (1, config.in_dim, latents, *area))
        caches = ", ".join(
            f"{place} {kept_bytes(config, tokens, 2, place) / _GIB:.2f} GiB" for place in _KEPT
        )
        version = "distilled: CFG 1, 10 steps" if config.driven.bias else "base: CFG 3, 40 steps"
        lines += [f"Animate-2, {version}; for Wan Animate 2", f"driving cache of such a clip: {caches}"]
    elif config.family == "i2v" and config.image_dim:
        lines.append("Animate-2 has the same weights: if it is that, choose its kind in WanDiTLoader")
    if config.image_dim:
        lines.insert(2, f"takes CLIP image features {config.image_dim} wide (clip_vision_h)")
    return lines


def _variant(info: ModelInfo, *_: int) -> list[str]:
    return ["none of the models that this pack runs itself", advice(info)]


def _vae(info: ModelInfo, *_: int) -> list[str]:
    models = "TI2V-5B" if info.config.version == "2.2" else "the 14B and 1.3B models"
    time, space, _ = info.config.stride
    lines = [f"goes with {models}; a latent cell is {time} frames of {space}x{space} pixels"]
    if isinstance(info.config, TinyVAEConfig):
        parts = "encodes and decodes" if info.config.enc_dim else "decodes only"
        taken = "raw, as LightX2V's files" if info.config.raw else "normalised, as taew2_1"
        lines.append(f"for previews and drafts; {parts}; latents {taken}")
    return lines


def _t5(info: ModelInfo, *_: int) -> list[str]:
    return [
        f"text features {info.config.dim} wide, {info.config.num_layers} layers; goes with all Wan models"
    ]


def _clip(info: ModelInfo, *_: int) -> list[str]:
    size, dim = info.config.image_size, info.config.dim
    return [
        f"sees pictures of {size}x{size}, features {dim} wide; goes with Animate-14B, Animate-2 and Wan2.1's I2V models"
    ]


_DETAILS: dict[str, Callable[..., list[str]]] = {
    "dit": _dit,
    "vae": _vae,
    "t5": _t5,
    "clip_vision": _clip,
    "wav2vec2": lambda *_: ["goes with S2V-14B"],
    "variant": _variant,
    "unknown": lambda *_: [],
}
