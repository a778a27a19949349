"""Wan models that this package does not run, told from names and shapes: weights of their own, or their channels."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..families import FAMILIES


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


def variant_of(shapes: Mapping[str, tuple[int, ...]], channels: tuple[int, int] | None) -> Variant | None:
    """The model that a file holds, where it is none of those that are run here; names are official ones.

    channels: in and out of a diffusion model, None where the file holds none."""
    for pattern, variant in _PARTS if channels is None else _WEIGHTS:
        if any(re.fullmatch(pattern, name) for name in shapes):
            return variant
    if channels is None:
        return None
    if channels not in {family.channels for family in FAMILIES.values()}:
        other = Variant("other", f"a Wan model with {channels[0]} channels in and {channels[1]} out")
        return _CHANNELS.get(channels, other)
    return None
