"""Wan models that this package does not run, told from names, shapes and what a file says about itself.

A diffusion model of the Wan family is recognised by weights of its own, by its channels, or, where it has the
weights of another model (Animate-2 has those of Wan2.1's image-to-video), by metadata, config and file names.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..families import FAMILIES
from .errors import CheckpointError
from .json_text import parse, read_object


@dataclass(frozen=True)
class Variant:
    """A model that is not run here. key: short and stable; name: as its users know it; is_whole: or a part that is
    laid onto another model."""

    key: str
    name: str
    is_whole: bool = True


# a weight that only this model has (a regular expression for its whole name), in the order of asking
_WEIGHTS: list[tuple[str, Variant]] = [
    (r"vace_patch_embedding\.weight", Variant("vace", "Wan VACE (creation and editing)")),
    (r"control_adapter\.conv\.weight", Variant("camera", "Wan Fun-Camera (camera control)")),
    (
        r"audio_proj\.audio_proj_glob_1\.layer\.(weight|bias)",
        Variant("humo", "HuMo (Wan with audio and references)"),
    ),
    (r"patch_embedding_mask\.weight", Variant("scail2", "SCAIL-2 (character animation)")),
    (r"patch_embedding_pose\.weight", Variant("scail", "SCAIL (character animation)")),
    (r"patch_embedding_global\.weight", Variant("wandancer", "WanDancer (dance to music)")),
    (r"blocks\.0\.cam_encoder\.weight", Variant("recam", "ReCamMaster (camera control)")),
    (r"audio_proj\.proj1\.weight", Variant("talk", "MultiTalk or InfiniteTalk (talking people)")),
    (r"dwpose_embedding\.0\.weight", Variant("unianimate", "UniAnimate (character animation)")),
    (r"ref_conv\.weight", Variant("control", "Wan Fun-Control (control video)")),
]
# parts without a diffusion model around them
_PARTS: list[tuple[str, Variant]] = [
    (
        r"vace_(patch_embedding|blocks\.0\.before_proj)\.weight",
        Variant("vace part", "the VACE blocks alone", False),
    ),
    (r"controlnet_patch_embedding\.weight", Variant("uni3c", "a Uni3C control network", False)),
    (
        r"audio_proj\.proj1\.weight",
        Variant("talk part", "the audio blocks of MultiTalk or InfiniteTalk", False),
    ),
    (r"dwpose_embedding\.0\.weight", Variant("unianimate part", "the pose blocks of UniAnimate", False)),
]
# (channels in, channels out) of models without a weight of their own
_CHANNELS = {
    (48, 16): Variant("control", "Wan Fun-Control (control video)"),
    (52, 16): Variant("control", "Wan2.2-Fun-A14B-Control (control video)"),
    (100, 48): Variant("inpaint", "Wan2.2-Fun-5B-InP (start and end image)"),
    (148, 48): Variant("control", "Wan2.2-Fun-5B-Control (control video)"),
    (96, 48): Variant("edit", "Lucy-Edit (video editing)"),
}
ANIMATE_2 = Variant("animate2", "Wan-Animate-2 (character animation)")


def variant_of(
    shapes: Mapping[str, tuple[int, ...]],
    channels: tuple[int, int] | None,
    path: Path,
    metadata: Mapping[str, str],
    config: Mapping[str, Any],
) -> Variant | None:
    """The model that a file holds, where it is none of those that are run here; names are official ones.

    channels: in and out of a diffusion model, None where the file holds none; config: of config.json beside it."""
    for pattern, variant in _PARTS if channels is None else _WEIGHTS:
        if any(re.fullmatch(pattern, name) for name in shapes):
            return variant
    if channels is None:
        return None
    if channels not in {family.channels for family in FAMILIES.values()}:
        other = Variant("other", f"a Wan model with {channels[0]} channels in and {channels[1]} out")
        return _CHANNELS.get(channels, other)
    is_like_it = channels == (36, 16) and "img_emb.proj.0.weight" in shapes
    is_plain = not any(name.startswith(FAMILIES["animate"].part) for name in shapes)
    return ANIMATE_2 if is_like_it and is_plain and _says_animate_2(path, metadata, config) else None


# "animate2", "Animate-2-14B", "wan_animate_2_distill"; not Animate-14B, Animate-2.2 or animate_20
_ANIMATE_2 = re.compile(r"animate[-_ .]*v?2(?![0-9]|\.[0-9])", re.IGNORECASE)
_OTHER_I2V = re.compile(r"i2v|flf2v|image[-_ ]?to[-_ ]?video|fun[-_ ]|inp(aint)?", re.IGNORECASE)


def _says_animate_2(path: Path, metadata: Mapping[str, str], config: Mapping[str, Any]) -> bool:
    """What a file says of itself counts first, then its own name, then those of the folders around it."""
    try:
        inner = parse(metadata.get("config", "{}").encode("utf-8"))
        inner = inner.get("transformer", inner)
        inner = inner if isinstance(inner, Mapping) else {}
    except (ValueError, AttributeError):
        inner = {}
    for described in (inner, config):
        stated = (
            [described.get(key) for key in ("model_type", "_class_name")]
            if isinstance(described, Mapping)
            else []
        )
        if any(isinstance(text, str) and _ANIMATE_2.search(text) for text in stated):
            return True
    if any(_ANIMATE_2.search(text) for key, text in metadata.items() if key != "config" and len(text) < 500):
        return True
    if inner.get("model_type") not in (None, "i2v"):
        return False
    # a folder names what is in it, unless the file's own name says that it is something else
    for name in _names(path):
        if _ANIMATE_2.search(name):
            return True
        if _OTHER_I2V.search(name):
            return False
    return any(_ANIMATE_2.search(text) for text in _pipelines(path))


def _names(path: Path) -> list[str]:
    """Names of the file and the folders around it, up to the folder of models."""
    names = [path.name, *(parent.name for parent in path.absolute().parents)][:3]
    stop = next(
        (i for i, name in enumerate(names) if name in ("models", "diffusion_models", "wan")), len(names)
    )
    return names[:stop]


def _pipelines(path: Path) -> list[str]:
    """Class names in the model_index.json of a diffusers release around a model's folder."""
    file = (path if path.is_dir() else path.parent).parent / "model_index.json"
    try:
        index = read_object(file)
    except CheckpointError:
        return []
    transformer = index.get("transformer")  # its library and its class
    names = [index.get("_class_name"), *(transformer if isinstance(transformer, list) else [transformer])]
    return [name for name in names if isinstance(name, str)]
