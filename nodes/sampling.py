"""Nodes for schedules, solvers and the two experts, alone and all in one."""

import logging
from dataclasses import replace
from typing import Any

from comfy_api.latest import io, ui

from ..comfy_bridge.media.conditioning import Prompts
from ..comfy_bridge.sampling import preflight, samplers
from ..comfy_bridge.sampling.experts import Experts, ExpertsGuider
from ..comfy_bridge.sampling.sample import sample_with_experts
from ..comfy_bridge.sampling.settings import PRESETS, Noise, Settings, StepRange
from .schema import NEGATIVE, POSITIVE, WanNode, schema, split, take
from .settings import (
    BASE,
    base_inputs,
    base_of,
    boundary_input,
    cfg_input,
    custom_only,
    experts_preset_input,
    noise_source_input,
    seed_input,
    shift_input,
    solver_inputs,
    step_range_inputs,
    steps_input,
)

_DEFAULT = Settings.of_release("T2V-A14B")
_STEPS = "Model calls (two each with CFG); the official number is 40 for the A14B models."
_SHIFT = "How much of the run is spent at high noise: 12 for T2V, 5 for I2V, 3 for small videos."


def _guidance() -> list[io.Float.Input]:
    """CFG scale of each expert, and the noise level between them."""
    return [
        *(
            cfg_input(
                f"cfg_{which}",
                default,
                f"CFG scale of the {which}-noise expert; 1 leaves the negative prompt out and halves the time.",
            )
            for which, default in (("high", _DEFAULT.cfg_high), ("low", _DEFAULT.cfg_low))
        ),
        boundary_input(
            _DEFAULT,
            "Noise level from which the high-noise expert works: 0.875 for T2V, 0.9 for I2V.",
        ),
    ]


def _models() -> list:
    return [
        io.Model.Input("model_high", tooltip="The high-noise expert, which lays out the video."),
        io.Model.Input(
            "model_low",
            optional=True,
            tooltip="The low-noise expert, which draws the detail. Leave open for models with one expert.",
        ),
    ]


class WanSigmas(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanSigmas",
            "Wan Sigmas",
            ["scheduler", "shift", "schedule"],
            folder="sampling",
            description="The official noise schedule.",
            inputs=[
                steps_input(_DEFAULT, _STEPS),
                shift_input(_DEFAULT, _SHIFT),
                io.Combo.Input(
                    "solver",
                    options=list(samplers.SOLVERS),
                    default="unipc",
                    optional=True,
                    tooltip="The official schedules of the solvers differ a little; use the solver's own.",
                ),
                *step_range_inputs(),
            ],
            outputs=[io.Sigmas.Output()],
        )

    @classmethod
    def execute(
        cls,
        steps: int = _DEFAULT.steps,
        shift: float = _DEFAULT.shift,
        solver: str = "unipc",
        start_step: int = 0,
        end_step: int = 1000,
    ) -> io.NodeOutput:
        return io.NodeOutput(
            samplers.sub_range(samplers.schedule.sigmas(steps, shift, solver), start_step, end_step)
        )


class WanSolver(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanSolver",
            "Wan Solver",
            ["sampler", "unipc", "dpm++"],
            folder="sampling",
            description="The official solvers as a SAMPLER.",
            inputs=[
                io.Combo.Input(
                    "solver",
                    options=list(samplers.SOLVERS),
                    default="unipc",
                    tooltip="unipc: official for T2V, I2V, TI2V and S2V. dpm++: official for Animate.",
                )
            ],
            outputs=[io.Sampler.Output()],
        )

    @classmethod
    def execute(cls, solver: str) -> io.NodeOutput:
        return io.NodeOutput(samplers.official_sampler(solver))


def phase_inputs() -> list:
    """Inputs of single phases of a run: the low-noise expert's prompt, and a base model before both."""
    return [
        io.Conditioning.Input(
            "positive_low",
            optional=True,
            tooltip="The positive of the low-noise expert, of Wan Image to Video, whose keyframes may have another "
            "strength for it. Open: positive serves both.",
        ),
        *base_inputs(),
    ]


class WanMoEGuider(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanMoEGuider",
            "Wan MoE Guider",
            ["experts", "cfg", "high noise", "low noise"],
            folder="sampling",
            description="Both experts as one GUIDER for SamplerCustomAdvanced: the noise level picks the expert.",
            inputs=[
                *_models(),
                io.Conditioning.Input("positive", tooltip=POSITIVE),
                io.Conditioning.Input("negative", tooltip=NEGATIVE),
                *_guidance(),
                *phase_inputs(),
            ],
            outputs=[io.Guider.Output()],
        )

    @classmethod
    def execute(
        cls,
        model_high: io.Model.Type,
        positive: io.Conditioning.Type,
        negative: io.Conditioning.Type,
        model_low: io.Model.Type | None = None,
        positive_low: io.Conditioning.Type | None = None,
        **inputs: Any,
    ) -> io.NodeOutput:
        base, guidance = split(inputs, BASE)
        settings = replace(_DEFAULT, **guidance)
        experts = Experts.of(model_high, model_low, base_of(**base))
        _warned(experts)
        preflight.check_prompts(experts, positive, positive_low)
        guider = ExpertsGuider(experts, settings.boundary, (settings.cfg_high, settings.cfg_low))
        guider.set_conds(positive, negative, positive_low)
        return io.NodeOutput(guider)


def _warned(experts: Experts, preset: str = "") -> list[str]:
    warnings = preflight.warnings(experts, PRESETS.get(preset))
    for warning in warnings:
        logging.warning("[Wan2.2] %s", warning)
    return warnings


def sampler_inputs() -> list:
    """Inputs of the one-node samplers."""
    return [
        *_models(),
        io.Conditioning.Input("positive", tooltip=POSITIVE),
        io.Conditioning.Input("negative", tooltip=NEGATIVE),
        io.Latent.Input("latent_image", tooltip="From WanEmptyLatent, or a video to change."),
        experts_preset_input(list(PRESETS)),
        seed_input(
            "The noise that the video is made of; the same seed and settings give the same video.", 2**64 - 1
        ),
        *custom_only(
            steps_input(_DEFAULT, _STEPS),
            shift_input(_DEFAULT, _SHIFT),
            *_guidance(),
            *solver_inputs(_DEFAULT),
        ),
        noise_source_input(),
        *step_range_inputs(),
        io.Boolean.Input(
            "add_noise",
            default=True,
            optional=True,
            tooltip="Off: go on with a latent that has noise left.",
        ),
    ]


def sample(
    experts: Experts,
    prompts: Prompts,
    latent_image: io.Latent.Type,
    preset: str,
    positive_low: io.Conditioning.Type | None = None,
    **inputs: Any,
) -> tuple[io.Latent.Type, str]:
    """LATENT and report of a run; `inputs`: the others of `sampler_inputs`."""
    noise, inputs = take(Noise, inputs)
    steps, inputs = take(StepRange, inputs)
    settings = Settings.of_preset(preset, replace(_DEFAULT, **inputs))
    warnings = _warned(experts, preset)
    latent, report = sample_with_experts(
        experts, prompts, latent_image, settings, noise, steps, positive_low=positive_low
    )
    return latent, "\n".join([*warnings, report])


class WanMoESampler(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanMoESampler",
            "Wan MoE Sampler",
            ["ksampler", "experts", "sample"],
            folder="sampling",
            reports=True,
            description="Samples with both experts, as the official code does; all in one node.",
            inputs=[*sampler_inputs(), *phase_inputs()],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(
        cls,
        model_high: io.Model.Type,
        positive: io.Conditioning.Type,
        negative: io.Conditioning.Type,
        model_low: io.Model.Type | None = None,
        **inputs: Any,
    ) -> io.NodeOutput:
        base, inputs = split(inputs, BASE)
        experts = Experts.of(model_high, model_low, base_of(**base))
        latent, report = sample(experts, Prompts(positive, negative), **inputs)
        return io.NodeOutput(latent, ui=ui.PreviewText(report))
