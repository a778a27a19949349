"""Advice on Wan models that this pack does not run itself: the host's loader and nodes, where it knows them."""

import comfy.supported_models

from ...wan_models.checkpoints.detect import ModelInfo

_WHOLE = (
    "Load it with ComfyUI's Load Diffusion Model (from models/diffusion_models; a GGUF file with a GGUF loader), and "
    "connect that MODEL to Wan MoE Sampler, as the only model or as both experts{}."
)
_MADE_BY = "; its conditioning is made by ComfyUI's {}"
_LAID_ON = "It is laid onto a MODEL: load it with ComfyUI's Load Model Patch and apply it with {}."
_NONE = "ComfyUI itself does not load it either: it needs the pack that it was made for."
# by variant: the host's class for it (None where it needs none of its own), and what to do
_ADVICE: dict[str, tuple[str | None, str]] = {
    "vace": ("WAN21_Vace", _WHOLE.format(_MADE_BY.format("WanVaceToVideo"))),
    "camera": ("WAN21_Camera", _WHOLE.format(_MADE_BY.format("WanCameraImageToVideo"))),
    "control": (
        "WAN21_FunControl2V",
        _WHOLE.format(_MADE_BY.format("WanFunControlToVideo or Wan22FunControlToVideo")),
    ),
    "inpaint": (None, _WHOLE.format(_MADE_BY.format("WanFunInpaintToVideo"))),
    "humo": ("WAN21_HuMo", _WHOLE.format(_MADE_BY.format("WanHuMoImageToVideo"))),
    "scail": ("WAN21_SCAIL", _WHOLE.format(_MADE_BY.format("WanSCAILToVideo"))),
    "scail2": ("WAN21_SCAIL2", _WHOLE.format(_MADE_BY.format("WanSCAILToVideo"))),
    "wandancer": ("WAN22_WanDancer", _WHOLE.format(_MADE_BY.format("WanDancerVideo"))),
    "edit": (None, _WHOLE.format("")),
    "other": (None, _WHOLE.format("")),
    "uni3c": (None, _LAID_ON.format("its Uni3C node")),
    "talk part": (None, _LAID_ON.format("WanInfiniteTalkToVideo")),
}


def advice(info: ModelInfo) -> str:
    """A sentence on what works today with a file that holds a variant."""
    assert info.variant is not None
    needed, sentence = _ADVICE.get(info.variant.key, (None, _NONE))
    if needed and not hasattr(comfy.supported_models, needed):
        return "This ComfyUI does not know it yet: update ComfyUI, and run it with ComfyUI's own loader and nodes."
    return sentence
