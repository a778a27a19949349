"""Whether a file with the weights of an image-to-video model is Wan-Animate-2, whose weights have the same shapes.

Told by the names of the weights in its releases, or else by what metadata, config and file names say. A user who knows
better names the kind.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import DISTILLED_BIAS, DrivenConfig
from .errors import CheckpointError
from .json_text import parse, read_object
from .reader import Checkpoint

KINDS = ("auto", "animate2", "animate2 distilled", "i2v")
"""Kinds that such weights may be taken for; "auto" by what the file says."""

_SCHEMES = ("Animate-2 release", "diffusers Animate-2")


def driven_config(
    checkpoint: Checkpoint, channels: tuple[int, int], kind: str = "auto"
) -> DrivenConfig | None:
    """Config particular to an Animate-2 model; None where the checkpoint, of those channels in and out, is another.

    kind: one of `KINDS`. Raises ValueError on another one, CheckpointError where a named kind has other weights."""
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; choose one of {', '.join(KINDS)}")
    shapes = checkpoint.shapes
    if channels != (36, 16) or "img_emb.proj.0.weight" not in shapes or _has_adapter(shapes):
        if kind != "auto":
            raise CheckpointError(
                f"{checkpoint.path} cannot be of the kind {kind!r}: it does not have the weights of an image-to-video "
                "model with CLIP context. Choose the kind 'auto'"
            )
        return None
    evidence = checkpoint.path, checkpoint.metadata, checkpoint.config
    if kind == "auto" and (checkpoint.scheme in _SCHEMES or _says_animate_2(*evidence)):
        kind = "animate2 distilled" if _says_distilled(*evidence) else "animate2"
    if kind in ("auto", "i2v"):
        return None
    return DrivenConfig(DISTILLED_BIAS if kind == "animate2 distilled" else 0.0)


def _has_adapter(shapes: Mapping[str, Any]) -> bool:
    """Whether the weights are those of Animate-14B, which is another model."""
    return any(name.startswith("face_adapter.") for name in shapes)


# "animate2", "Animate-2-14B", "wan_animate_2_distill"; not Animate-14B, Animate-2.2 or animate_20
_ANIMATE_2 = re.compile(r"animate[-_ .]*v?2(?![0-9]|\.[0-9])", re.IGNORECASE)
_OTHER_I2V = re.compile(r"i2v|flf2v|image[-_ ]?to[-_ ]?video|fun[-_ ]|inp(aint)?", re.IGNORECASE)


def _says_animate_2(path: Path, metadata: Mapping[str, str], config: Mapping[str, Any]) -> bool:
    """Goes by what a file says of itself, then its own name, then those of the folders around it."""
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


def _says_distilled(path: Path, metadata: Mapping[str, str], config: Mapping[str, Any]) -> bool:
    """Whether anything around a file speaks of distillation."""
    said: list[Any] = [text for text in metadata.values() if len(text) < 500]
    said += [config.get(key) for key in ("model_type", "_class_name", "_name_or_path")]
    return any("distil" in str(text).lower() for text in (*said, *_names(path), *_pipelines(path)))


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
