"""Inputs of the nodes that sample: one widget each, and the groups that the nodes hand on."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from comfy_api.latest import io

from ..comfy_bridge.sampling import samplers
from ..comfy_bridge.sampling.clip_run import ClipSampling
from ..comfy_bridge.sampling.experts import BaseExpert
from ..comfy_bridge.sampling.settings import CUSTOM, MAX_STEPS, Noise, Settings
from .schema import advanced, split

_CUSTOM_ONLY = " Used when preset is custom."


def custom_only(*inputs: Any) -> list:
    """Inputs that count with the preset "custom" alone: they say so, and pages that can fold them away."""
    for entry in inputs:
        entry.tooltip += _CUSTOM_ONLY
    return advanced(*inputs)


def preset_input(presets: list[str], tooltip: str) -> io.Combo.Input:
    """Official settings by name, the first of them by default, or the node's own."""
    return io.Combo.Input("preset", options=[*presets, CUSTOM], default=presets[0], tooltip=tooltip)


def experts_preset_input(presets: list[str]) -> io.Combo.Input:
    """`preset_input` of nodes for two experts."""
    return preset_input(
        presets,
        "A release's official steps, shift, CFG, boundary, solver and schedule; 4-step LoRA: for distilled LoRAs, "
        "without CFG; custom: the settings below.",
    )


def seed_input(tooltip: str, largest: int = 2**63) -> io.Int.Input:
    """The seed, with the page's control over it."""
    return io.Int.Input("seed", default=0, min=0, max=largest, control_after_generate=True, tooltip=tooltip)


def steps_input(official: Settings, tooltip: str) -> io.Int.Input:
    return io.Int.Input("steps", default=official.steps, min=1, max=MAX_STEPS, optional=True, tooltip=tooltip)


def shift_input(official: Settings, tooltip: str) -> io.Float.Input:
    return io.Float.Input(
        "shift", default=official.shift, min=0.01, max=100.0, step=0.5, optional=True, tooltip=tooltip
    )


def cfg_input(name: str, default: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=0.0, max=100.0, step=0.1, optional=True, tooltip=tooltip)


def boundary_input(official: Settings, tooltip: str) -> io.Float.Input:
    return io.Float.Input(
        "boundary", default=official.boundary, min=0.0, max=1.0, step=0.005, optional=True, tooltip=tooltip
    )


def solver_inputs(official: Settings) -> list[io.Combo.Input]:
    """Sampler and scheduler; the lists are those of the host as it is now."""
    return [
        io.Combo.Input(
            "sampler",
            options=samplers.sampler_names(),
            default=official.sampler,
            optional=True,
            tooltip="The official solvers, then the host's samplers.",
        ),
        io.Combo.Input(
            "scheduler",
            options=samplers.scheduler_names(),
            default=official.scheduler,
            optional=True,
            tooltip="The official schedule, then the host's.",
        ),
    ]


def noise_source_input() -> io.Combo.Input:
    return io.Combo.Input(
        "noise_source",
        options=samplers.NOISE_SOURCES,
        default="cpu",
        optional=True,
        tooltip="cpu: the host's noise for this seed. gpu: drawn on the GPU, as the official code does.",
    )


def step_range_inputs() -> list[io.Int.Input]:
    """The part of the schedule that is run."""
    return [
        io.Int.Input(
            "start_step", default=0, min=0, max=MAX_STEPS, optional=True, tooltip="First step to run."
        ),
        io.Int.Input(
            "end_step", default=MAX_STEPS, min=1, max=MAX_STEPS, optional=True, tooltip="Step to stop before."
        ),
    ]


BASE = ("model_base", "base_steps", "base_cfg")


def base_inputs() -> list:
    """A base model before both experts."""
    return [
        io.Model.Input(
            "model_base",
            optional=True,
            tooltip="The high-noise expert without the distilled LoRA: with CFG it takes the first base_steps, which "
            "brings back movement and the prompt.",
        ),
        *advanced(
            io.Int.Input(
                "base_steps",
                default=0,
                min=0,
                max=MAX_STEPS,
                optional=True,
                tooltip="Steps of model_base, the first ones of the schedule; the high-noise expert takes the rest up "
                "to the boundary. 0: off.",
            ),
            cfg_input("base_cfg", 3.5, "CFG scale of model_base; 1 leaves the negative prompt out."),
        ),
    ]


def base_of(
    model_base: io.Model.Type | None = None, base_steps: int = 0, base_cfg: float = 3.5
) -> BaseExpert | None:
    """The model of the first steps, of the inputs BASE."""
    return BaseExpert.of(model_base, base_steps, base_cfg)


# of the nodes that make a whole video, clip after clip


def clip_preset_input(release: str) -> io.Combo.Input:
    """The official settings of a release, or the node's own."""
    return preset_input(
        [release], "The official steps, shift, CFG, solver and schedule; custom: the settings below."
    )


def clip_setting_inputs(official: Settings) -> list:
    """Settings of the preset "custom", the source of noise, and the folder of finished clips."""
    return [
        *custom_only(
            steps_input(official, "Per clip."),
            shift_input(official, f"{official.shift:g} is official."),
            cfg_input("cfg", official.cfg_high, f"{official.cfg_high:g} is official."),
            *solver_inputs(official),
        ),
        noise_source_input(),
        checkpoint_folder_input(),
    ]


def checkpoint_folder_input() -> io.String.Input:
    return io.String.Input(
        "checkpoint_folder",
        default="",
        optional=True,
        tooltip="A folder in the output folder that keeps finished clips: a run that was cancelled or crashed goes on "
        "from there. Empty: none.",
    )


def take_clip_sampling(
    inputs: Mapping[str, Any], official: Settings, guidance: Collection[str] = ("cfg",)
) -> tuple[ClipSampling, dict[str, Any]]:
    """Sampling of clips, of the inputs above and the seed; and the other inputs. guidance: the names of CFG scales and
    boundary among them, as in `Settings`, or cfg, which is that of both experts."""
    custom, others = split(inputs, ("steps", "shift", "sampler", "scheduler", *guidance))
    noise, others = split(others, ("seed", "noise_source"))
    options, others = split(others, ("preset", "checkpoint_folder"))
    if "cfg" in custom:
        custom["cfg_high"] = custom["cfg_low"] = custom.pop("cfg")
    settings = Settings.of_preset(options["preset"], replace(official, **custom))
    return ClipSampling(settings, Noise(**noise), options.get("checkpoint_folder", "").strip()), others
