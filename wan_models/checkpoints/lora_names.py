"""Reads the name of a tensor in a LoRA file: the module, what the tensor is to it, and for which expert.

Tables of what trainers write, one line each: prefixes of modules, ends of names, and methods that are not read.
Source: the files of musubi-tuner, diffusion-pipe, ai-toolkit, DiffSynth-Studio, VideoX-Fun, OneTrainer, SimpleTuner,
finetrainers, lightx2v and peft.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .keys import WRAPPERS

# what trainers put before a module's name, as often and in any order, and the expert that it speaks of
PREFIXES: dict[str, str | None] = {
    "diffusion_model.": None,  # ComfyUI, diffusion-pipe, ai-toolkit
    "diffusion_model_": None,
    "base_model.model.": None,  # peft
    "base_model.": None,
    "model.": None,
    "module.": None,  # distributed training
    "orig_mod_": None,  # torch.compile, underscored
    "lora_unet_": None,  # kohya, musubi-tuner; VideoX-Fun writes one more underscore
    "lora_transformer_": None,  # OneTrainer
    "lora_dit_": None,
    "lycoris_": None,  # SimpleTuner
    "lycoris.": None,
    "transformer.": None,  # diffusers, finetrainers
    "unet.": None,
    "dit.": None,
    "pipe.": None,  # DiffSynth-Studio: pipe.dit.
    "denoiser.": None,
    "generator.": None,  # distillations
    "student.": None,
    "net.": None,
    "wan.": None,
    "transformer_1.": "high",  # ai-toolkit
    "transformer_2.": "low",  # diffusers, ai-toolkit
    "dit2.": "low",  # DiffSynth-Studio: pipe.dit2.
    "dit_2.": "low",
    "unet_2.": "low",
    "model_2.": "low",
    **{
        f"{before}{expert}{after}{dot}": expert
        for expert in ("high", "low")
        for before in ("", "transformer_", "dit_", "model_")
        for after in ("", "_noise", "_noise_model", "_noise_expert", "_noise_transformer", "_model")
        for dot in "._"
    },
}
_LONGEST_FIRST = sorted(PREFIXES, key=len, reverse=True)
# where two parts are numbered, the first has no number
_SECOND_OF_TWO = ("transformer_2.", "dit2.", "dit_2.", "unet_2.", "model_2.")

_ADAPTER = r"(?:\.[^.]+)?"  # peft's name of an adapter, "default" where nobody chose one
# what a tensor is, as the end of its name; on the right the name that it goes by here
ENDS = {
    r"lora_linear_layer\.down\.weight": "lora_down.weight",
    r"lora_linear_layer\.up\.weight": "lora_up.weight",
    rf"lora_A{_ADAPTER}\.weight": "lora_down.weight",
    rf"lora_B{_ADAPTER}\.weight": "lora_up.weight",
    rf"lora_down{_ADAPTER}\.weight": "lora_down.weight",
    rf"lora_up{_ADAPTER}\.weight": "lora_up.weight",
    r"lora[._]down\.weight": "lora_down.weight",
    r"lora[._]up\.weight": "lora_up.weight",
    r"lora_mid\.weight": "lora_mid.weight",
    r"lora_A": "lora_down.weight",
    r"lora_B": "lora_up.weight",
    rf"lora_magnitude_vector{_ADAPTER}\.weight": "dora_scale",
    r"lora_magnitude_vector\.default": "dora_scale",
    r"lora_magnitude_vector": "dora_scale",
    r"dora_scale": "dora_scale",
    r"alpha": "alpha",
    r"diff": "diff",
    r"diff_b": "diff_b",
    r"diff_m": "diff_m",
    r"w_norm": "diff",  # LyCORIS, of norms
    r"b_norm": "diff_b",
    r"set_weight": "set_weight",
    **{rf"{name}{_ADAPTER}": name for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")},
    **{rf"{name}{_ADAPTER}": name for name in ("hada_t1", "hada_t2")},
    **{rf"{name}{_ADAPTER}": name for name in ("lokr_w1", "lokr_w1_a", "lokr_w1_b")},
    **{rf"{name}{_ADAPTER}": name for name in ("lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")},
    **{rf"{name}\.weight": f"{name}.weight" for name in ("a1", "a2", "b1", "b2")},  # GLoRA
    r"oft_blocks": "oft_blocks",  # OFT, and BOFT with one more dimension
    r"rescale": "rescale",
}
_END = [(re.compile(rf"(?P<module>.+)[._]{end}"), what) for end, what in ENDS.items()]
# methods that there is no adapter for
UNREAD = {
    r"oft_[rRsS]\b": "OFT as peft and OneTrainer write it (oft_R)",
    r"boft_[RsP]\b": "BOFT as peft writes it (boft_R)",
    r"vera_lambda": "VeRA",
    r"randlora_": "RandLoRA",
    r"ia3_l|on_input$": "IA3",
    r"hra_u": "HRA",
    r"(fourierft|waveft)_spectrum": "FourierFT",
    r"(bone|miss)_block": "MiSS (Bone)",
    r"shira_weight": "SHiRA",
    r"c3a_kernel": "C3A",
    r"vblora_": "VB-LoRA",
    r"road_theta|road_alpha": "RoAd",
    r"lora_embedding_[AB]": "a LoRA of an embedding",
    r"lora_B\b.*\.bias$|lora_up\.bias$": "LoRA with a bias of its own",
    r"lokr_t1": "LoKr with a core on its first factor",
    r"reshape_weight": "a LoRA that makes a layer larger (reshape_weight, as control LoRAs do)",
}


@dataclass(frozen=True)
class Reading:
    """Meaning of a tensor's name. module: underscored, without prefixes; expert: "high", "low" or None."""

    module: str
    what: str
    prefixes: tuple[str, ...]

    @property
    def expert(self) -> str | None:
        return next((expert for prefix in self.prefixes if (expert := PREFIXES[prefix])), None)


def read(name: str) -> Reading | None:
    """Reads a name; None where it is none of a LoRA's."""
    for pattern, what in _END:
        if split := pattern.fullmatch(name):
            module, prefixes = _bare(split["module"])
            return Reading(module, what, prefixes)
    return None


def _bare(module: str) -> tuple[str, tuple[str, ...]]:
    """A module's name without prefixes, underscored, and those prefixes."""
    module += "."
    for wrapper in WRAPPERS:
        module = module.replace(wrapper, "")
    prefixes = []
    module = module.strip("._")
    while prefix := next((p for p in _LONGEST_FIRST if module.startswith(p)), None):
        prefixes.append(prefix)
        module = module[len(prefix) :].lstrip("._")
    module = re.sub(r"[._]+", "_", module)
    # torch.compile of a part, underscored; and diffusers' former attention processors
    return re.sub(r"_(orig_mod|processor)(?=_)", "", module), tuple(prefixes)


def experts_of(readings: Mapping[str, Reading | None]) -> dict[str, str | None]:
    """The expert that each tensor is for; None where its name says nothing."""
    has_second = any(
        prefix in _SECOND_OF_TWO for reading in readings.values() if reading for prefix in reading.prefixes
    )
    has_first = any(reading and reading.expert is None for reading in readings.values())
    unnumbered = "high" if has_second and has_first else None
    return {name: (reading.expert or unnumbered) if reading else None for name, reading in readings.items()}


def is_lora(names: Iterable[str]) -> bool:
    """Whether all tensors are named as parts of changes to weights."""
    readings = [read(name) for name in names]
    return bool(readings) and all(readings)


def unread(names: list[str]) -> list[str]:
    """Methods that no adapter is there for, one sentence each."""
    lines = {}
    for pattern, method in UNREAD.items():
        if hits := [name for name in names if re.search(rf"[._](?:{pattern})", name)]:
            some = "one of its keys is" if len(hits) == 1 else f"{len(hits)} of its keys are"
            lines[method] = f"{some} {method}, which cannot be read here (as {hits[0]})"
    return list(lines.values())
