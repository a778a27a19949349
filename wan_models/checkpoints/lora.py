"""LoRA files of every naming -> the weights of our models that they change.

A LoRA's tensor is named by a module and by what it is: a low-rank factor, a scale, or a difference. Modules come
with the prefixes of trainers (diffusion_model., transformer., base_model.model., lora_unet_), dotted or
underscored, under official or diffusers names; factors as down/up, A/B, or peft's adapters. Source: the files of
diffusers, peft, kohya's scripts, LyCORIS and lightx2v.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from .keys import SCHEMES, to_foreign

_PREFIXES = (
    "base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer.", "unet.", "lora_unet_",
    "lora_transformer_",
)  # fmt: skip
# what a tensor is, as the ends of names, longest first; on the right as the host's LoRA reader calls it
_ENDS = {
    "lora_linear_layer.down.weight": "lora_down.weight",
    "lora_linear_layer.up.weight": "lora_up.weight",
    "lora_magnitude_vector.default.weight": "dora_scale",
    "lora_magnitude_vector.weight": "dora_scale",
    "lora_magnitude_vector": "dora_scale",
    "lora_A.default.weight": "lora_down.weight",
    "lora_B.default.weight": "lora_up.weight",
    "lora.down.weight": "lora_down.weight",
    "lora.up.weight": "lora_up.weight",
    "lora_down.weight": "lora_down.weight",
    "lora_up.weight": "lora_up.weight",
    "lora_mid.weight": "lora_mid.weight",
    "lora_A.weight": "lora_down.weight",
    "lora_B.weight": "lora_up.weight",
    "lora_A": "lora_down.weight",
    "lora_B": "lora_up.weight",
    "dora_scale": "dora_scale",
    "alpha": "alpha",
    "diff_b": "diff_b",
    "diff_m": "diff_m",
    "diff": "diff",
    **{name: name for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")},
    **{
        name: name
        for name in ("lokr_w1", "lokr_w2", "lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
    },
}
_END = re.compile(r"(.+)[._](" + "|".join(map(re.escape, sorted(_ENDS, key=len, reverse=True))) + ")")

# parts of other models' names, and those models
_OTHERS = {
    "double_blocks": "Flux or HunyuanVideo",
    "single_transformer_blocks": "Flux",
    "single_blocks": "Flux or HunyuanVideo",
    "input_blocks": "Stable Diffusion",
    "down_blocks": "Stable Diffusion",
    "lora_te": "Stable Diffusion",
    "joint_blocks": "Stable Diffusion 3",
    "transformer_blocks": "LTX-Video, Qwen-Image or another diffusers transformer",
    "vace_blocks": "Wan VACE",
    "audio_injector": "Wan S2V",
    "face_adapter": "Wan Animate",
}


@dataclass
class LoRAMatch:
    """What a LoRA file does to a model.

    names: tensor in the file -> (module of the model, what it is). unmatched: tensors that fit no weight.
    misfits: why weights that were found cannot take their tensors."""

    names: dict[str, tuple[str, str]] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)
    misfits: list[str] = field(default_factory=list)

    @property
    def report(self) -> str:
        """One line: n of m keys applied, and which were not."""
        total = len(self.names) + len(self.unmatched)
        line = f"{len(self.names)} of {total} keys applied"
        if self.unmatched:
            some = ", ".join(self.unmatched[:3]) + (" ..." if len(self.unmatched) > 3 else "")
            line += f"; not applied: {some}{_why(self.unmatched)}"
        return line


def match(shapes: Mapping[str, tuple[int, ...]], weights: Mapping[str, tuple[int, ...]]) -> LoRAMatch:
    """Finds the weights of a model (official names to shapes) that a LoRA file's tensors (names to shapes) change."""
    modules = _aliases(weights)
    found = LoRAMatch()
    for name, shape in shapes.items():
        split = _END.fullmatch(name)
        module = modules.get(_bare(split[1])) if split else None
        if split is None or module is None:
            found.unmatched.append(name)
            continue
        what = _ENDS[split[2]]
        found.names[name] = (module, what)
        problem = _misfit(module, what, shape, weights)
        if problem:
            found.misfits.append(f"{name} {problem}")
    return found


def looks_like(names: Iterable[str]) -> str:
    """The kind of model that a LoRA's names belong to, as far as they tell."""
    names = list(names)
    for part, model in _OTHERS.items():
        if any(part in name for name in names):
            return model
    return "no model this pack knows"


def _bare(module: str) -> str:
    """A module's name without any trainer's prefix, underscored."""
    stripped = True
    while stripped:
        stripped = False
        for prefix in _PREFIXES:
            if module.startswith(prefix):
                module, stripped = module[len(prefix) :], True
    return module.replace(".", "_")


def _aliases(weights: Collection[str]) -> dict[str, str]:
    """Underscored official and diffusers names of modules -> official name."""
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in weights if "." in name))
    back = SCHEMES["diffusers transformer"].back
    foreign = {name: to_foreign("diffusers transformer", [name])[name] for name in modules if back(name)}
    # a diffusers name may be the official name of another module (norm2), so official names go last and win
    found = {foreign_name.replace(".", "_"): name for name, foreign_name in foreign.items()}
    return found | {name.replace(".", "_"): name for name in modules}


def _misfit(
    module: str, what: str, shape: tuple[int, ...], weights: Mapping[str, tuple[int, ...]]
) -> str | None:
    """Why a tensor does not fit its weight; None where it does or cannot be told."""
    weight = weights.get(f"{module}.weight")
    bias, modulation = weights.get(f"{module}.bias"), weights.get(f"{module}.modulation")
    wanted: tuple[int, ...] | None = None
    if what == "diff":
        wanted = weight
    elif what == "diff_b":
        wanted = bias
    elif what == "diff_m":
        wanted = modulation
    elif weight and what == "lora_up.weight":
        wanted, shape = weight[:1], shape[:1]
    elif weight and what == "lora_down.weight" and len(shape) > 1:
        wanted, shape = weight[1:2], shape[1:2]
    if what in ("diff", "diff_b", "diff_m") and wanted is None:
        return "changes a weight that the model does not have"
    if wanted is not None and tuple(shape) != tuple(wanted):
        return f"is {list(shape)} where the model has {list(wanted)}"
    return None


def _why(unmatched: list[str]) -> str:
    if all(
        any(part in name for part in ("k_img", "v_img", "img_emb", "add_k_proj", "add_v_proj"))
        for name in unmatched
    ):
        return " (for CLIP image attention, which this model does without: harmless)"
    return ""
