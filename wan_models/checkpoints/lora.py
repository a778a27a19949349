"""LoRA files of every naming -> the weights of our models that they change, and what does not fit.

Names are read by `lora_names`; modules may have official or diffusers names, dotted or underscored.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from ..wording import counted
from . import lora_sizes
from .keys import SCHEMES
from .lora_names import Reading, experts_of, read, unread

# the tensors of each way to change a weight, of which it needs all in one of the lists
_KINDS: dict[str, list[tuple[str, ...]]] = {
    "LoRA": [("lora_up.weight", "lora_down.weight")],
    "LoHa": [("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")],
    "LoKr": [
        (*one, *two)
        for one in (("lokr_w1",), ("lokr_w1_a", "lokr_w1_b"))
        for two in (("lokr_w2",), ("lokr_w2_a", "lokr_w2_b"))
    ],
    "GLoRA": [("a1.weight", "a2.weight", "b1.weight", "b2.weight")],
    "OFT": [("oft_blocks",)],
    "difference": [("diff",)],
    "replacement": [("set_weight",)],
}

_ALONE = ("diff_b", "diff_m")  # of a bias and of a modulation, beside any change of the weight

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


_FOREIGN = ("diffusers transformer", "Animate-2 release", "diffusers Animate-2")
"""Schemes of names that LoRAs of transformers may be in."""


@dataclass
class LoRAMatch:
    """Effect of a LoRA file on a model.

    names: tensor in the file -> (module of the model, what it is). unmatched: tensors that fit no weight.
    unusable: tensors of changes that are incomplete or do not go together -> why, with the name of the layer.
    others: tensors for the other expert. misfits: tensors that the weight which was found cannot take -> why.
    faults: what is wrong with the file itself, or not to be read."""

    names: dict[str, tuple[str, str]] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    misfits: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    expert: str | None = None  # that the names of the whole file speak of

    @property
    def report(self) -> str:
        """One line: n of m keys applied, and which were not."""
        total = len(self.names) + len(self.unmatched) + len(self.unusable)
        line = f"{len(self.names)} of {total} keys applied"
        if self.others:
            line += (
                f" (of both experts' parts in the file, this one's; {len(self.others)} keys are the other's)"
            )
        elif self.expert:
            line += f" (the file says that it is for the {self.expert}-noise expert)"
        if self.unmatched:
            some = ", ".join(self.unmatched[:3]) + (" ..." if len(self.unmatched) > 3 else "")
            line += f"; not applied: {some}{_why(self.unmatched)}"
        if self.unusable:
            line += f"; {counted(len(self.unusable), 'key')} cannot be applied: {self.reasons}"
        return line

    @property
    def reasons(self) -> str:
        """Why what is unusable is, each layer once."""
        reasons = list(dict.fromkeys(self.unusable.values()))
        more = f" (and {counted(len(reasons) - 3, 'more layer')})" if len(reasons) > 3 else ""
        return "; ".join(reasons[:3]) + more

    def leave(self, names: Iterable[str], reason: str) -> None:
        """Takes tensors out of what is applied."""
        for name in names:
            del self.names[name]
            self.unusable[name] = reason


def match(
    shapes: Mapping[str, tuple[int, ...]], weights: Mapping[str, tuple[int, ...]], expert: str | None = None
) -> LoRAMatch:
    """Finds the weights of a model (official names to shapes) that a LoRA file's tensors (names to shapes) change.

    expert: "high" or "low", what the model is; of a file that holds both it takes its own part."""
    modules = _aliases(weights)
    result = LoRAMatch()
    readings = {name: read(name) for name in shapes}
    parts = experts_of(readings)
    stated = {part for name, part in parts.items() if part and readings[name]}
    holds_both = len(stated) == 2
    if holds_both and expert is None:
        result.faults.append("it holds a part for the high-noise and one for the low-noise expert")
    result.expert = next(iter(stated)) if len(stated) == 1 and set(parts.values()) == stated else None
    taken: dict[tuple[str, str], str] = {}
    for name, reading in readings.items():
        if holds_both and expert and parts[name] not in (None, expert):
            result.others.append(name)
            continue
        place = _place(reading, modules) if reading else None
        if place is None:
            result.unmatched.append(name)
            continue
        if place in taken:
            result.faults.append(f"{taken[place]} and {name} are both for {place[0]}: keep one of the two")
            continue
        taken[place] = name
        result.names[name] = place
        if problem := _misfit(*place, shapes[name], weights):
            result.misfits[name] = f"{name} {problem}"
    result.faults += unread(result.unmatched)
    _check_kinds(result, shapes, weights)
    return result


def looks_like(names: Iterable[str]) -> str:
    """The kind of model that a LoRA's names belong to, as far as they tell."""
    names = list(names)
    for part, model in _OTHERS.items():
        if any(part in name for name in names):
            return model
    return "no model this pack knows"


def _place(reading: Reading, modules: Mapping[str, str]) -> tuple[str, str] | None:
    """The module of the model and what the tensor is to it."""
    module = modules.get(reading.module)
    if module is None:
        return None
    parent, _, leaf = module.rpartition(".")
    if leaf == "modulation":  # a bare parameter, named as if it were a module
        return (parent, "diff_m") if reading.what == "diff" else None
    return module, reading.what


def _aliases(weights: Collection[str]) -> dict[str, str]:
    """Underscored official and foreign names of modules and modulations -> official name."""
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in weights if "." in name))
    modules += [name for name in weights if name.endswith(".modulation")]
    # a foreign name may be the official name of another module (norm2), so official names go last and win
    aliases = {
        foreign.replace(".", "_"): name
        for scheme in _FOREIGN
        for name in modules
        if (foreign := SCHEMES[scheme].back(name))
    }
    # former attention processors have no list around their last layer
    aliases |= {
        name.removesuffix("_0"): module for name, module in aliases.items() if name.endswith("to_out_0")
    }
    return aliases | {name.replace(".", "_"): name for name in modules}


def _misfit(
    module: str, what: str, shape: tuple[int, ...], weights: Mapping[str, tuple[int, ...]]
) -> str | None:
    """Why a tensor does not fit its weight; None where it does or cannot be told."""
    weight = weights.get(f"{module}.weight")
    bias, modulation = weights.get(f"{module}.bias"), weights.get(f"{module}.modulation")
    expected: tuple[int, ...] | None = None
    if what in ("diff", "set_weight"):
        expected = weight
    elif what == "diff_b":
        expected = bias
    elif what == "diff_m":
        expected = modulation
    elif weight and what == "lora_up.weight":
        expected, shape = weight[:1], shape[:1]
    elif weight and what == "lora_down.weight" and len(shape) > 1:
        expected, shape = weight[1:2], shape[1:2]
    if expected is None and what in ("diff", "set_weight", "diff_b", "diff_m"):
        return "changes a weight that the model does not have"
    if expected is not None and tuple(shape) != tuple(expected):
        return f"is {list(shape)} where the model has {list(expected)}"
    return None


def _check_kinds(
    result: LoRAMatch, shapes: Mapping[str, tuple[int, ...]], weights: Mapping[str, tuple[int, ...]]
) -> None:
    """Adds what is wrong with the tensors of a module together: some missing, two ways at once, other sizes."""
    groups: dict[str, dict[str, str]] = {}
    for name, (module, what) in result.names.items():
        groups.setdefault(module, {})[what] = name
    for module, names in groups.items():
        has = {kind: _complete(lists, names) for kind, lists in _KINDS.items() if _touches(lists, names)}
        own = {what: name for what, name in names.items() if what not in _ALONE}
        if not has:
            if own.keys() == {"alpha"}:
                result.unmatched.append(own["alpha"])
                del result.names[own["alpha"]]
            elif own:
                result.leave(own.values(), f"there is no change that {', '.join(own.values())} goes with")
            continue
        if len(has) > 1:
            result.faults.append(f"{module} is changed in two ways at once, by {' and '.join(has)}")
            continue
        ((kind, complete),) = has.items()
        if not complete:
            result.leave(
                own.values(),
                f"the {kind} of {module} is incomplete, the file has only {', '.join(own.values())}",
            )
            continue
        if f"{module}.weight" not in weights and kind != "difference":
            first = next(iter(names.values()))
            reason = f"{first} changes a weight that the model does not have"
            result.misfits |= dict.fromkeys(names.values(), reason)
            continue
        weight = weights.get(f"{module}.weight", ())
        parts = {what: shapes[name] for what, name in own.items()}
        if problem := lora_sizes.disagreement(kind, parts, weight):
            result.leave(own.values(), f"the {kind} of {module} cannot be used, {problem}")
        elif not (result.misfits.keys() & set(own.values()) or lora_sizes.fits(kind, parts, weight)):
            sizes = ", ".join(f"{name} {list(shapes[name])}" for name in own.values())
            result.misfits |= dict.fromkeys(
                own.values(), f"{sizes} do not make up the model's {list(weight)}"
            )
        if kind == "OFT" and "rescale" in names and len(shapes[names["oft_blocks"]]) == 3:
            result.faults.append("it is OFT with learnt scales (rescale), which cannot be read here")


def _touches(lists: list[tuple[str, ...]], names: Collection[str]) -> bool:
    return any(what in names for one in lists for what in one)


def _complete(lists: list[tuple[str, ...]], names: Collection[str]) -> bool:
    return any(all(what in names for what in one) for one in lists)


def _why(unmatched: list[str]) -> str:
    if all(
        any(part in name for part in ("k_img", "v_img", "img_emb", "add_k_proj", "add_v_proj"))
        for name in unmatched
    ):
        return " (for CLIP image attention, which this model does without: harmless)"
    return ""
