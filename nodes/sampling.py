"""Schedules, solvers, and the two experts, alone and all in one."""

import logging

import comfy_api.latest
from comfy_api.latest import io

from ..comfy_bridge.sampling import experts, preflight, run
from ..comfy_bridge.sampling import samplers as sampling
from .schema import NEGATIVE, POSITIVE, schema

_DEFAULT = run.Settings.of_release("T2V-A14B")
_CUSTOM_ONLY = " Used when preset is custom."


def _steps(note: str = "") -> io.Int.Input:
    return io.Int.Input(
        "steps",
        default=_DEFAULT.steps,
        min=1,
        max=1000,
        optional=True,
        tooltip="Model calls (two each with CFG); the official number is 40 for the A14B models." + note,
    )


def _shift(note: str = "") -> io.Float.Input:
    return io.Float.Input(
        "shift",
        default=_DEFAULT.shift,
        min=0.01,
        max=100.0,
        step=0.5,
        optional=True,
        tooltip="How much of the run is spent at high noise: 12 for T2V, 5 for I2V, 3 for small videos."
        + note,
    )


def _boundary(note: str = "") -> io.Float.Input:
    return io.Float.Input(
        "boundary",
        default=_DEFAULT.boundary,
        min=0.0,
        max=1.0,
        step=0.005,
        optional=True,
        tooltip="Noise level from which the high-noise expert works: 0.875 for T2V, 0.9 for I2V." + note,
    )


def _cfg(which: str, default: float, note: str = "") -> io.Float.Input:
    return io.Float.Input(
        f"cfg_{which}",
        default=default,
        min=0.0,
        max=100.0,
        step=0.1,
        optional=True,
        tooltip=f"CFG scale of the {which}-noise expert; 1 leaves the negative prompt out and halves the time."
        + note,
    )


def _models() -> list:
    return [
        io.Model.Input("model_high", tooltip="The high-noise expert, which lays out the video."),
        io.Model.Input(
            "model_low",
            optional=True,
            tooltip="The low-noise expert, which draws the detail. Leave open for models with one expert.",
        ),
    ]


class WanSigmas(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanSigmas",
            "Wan Sigmas",
            ["scheduler", "shift", "schedule"],
            folder="sampling",
            description="The official noise schedule.",
            inputs=[
                _steps(),
                _shift(),
                io.Combo.Input(
                    "solver",
                    options=list(sampling.SOLVERS),
                    default="unipc",
                    optional=True,
                    tooltip="The official schedules of the two solvers differ a little; use the solver's own.",
                ),
                io.Int.Input(
                    "start_step", default=0, min=0, max=1000, optional=True, tooltip="First step to run."
                ),
                io.Int.Input(
                    "end_step", default=1000, min=1, max=1000, optional=True, tooltip="Step to stop before."
                ),
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
            sampling.sub_range(sampling.schedule.sigmas(steps, shift, solver), start_step, end_step)
        )


class WanSolver(io.ComfyNode):
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
                    options=list(sampling.SOLVERS),
                    default="unipc",
                    tooltip="unipc: official for T2V, I2V, TI2V and S2V. dpm++: official for Animate.",
                )
            ],
            outputs=[io.Sampler.Output()],
        )

    @classmethod
    def execute(cls, solver: str) -> io.NodeOutput:
        return io.NodeOutput(sampling.official_sampler(solver))


class WanMoEGuider(io.ComfyNode):
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
                _cfg("high", _DEFAULT.cfg_high),
                _cfg("low", _DEFAULT.cfg_low),
                _boundary(),
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
        cfg_high: float = _DEFAULT.cfg_high,
        cfg_low: float = _DEFAULT.cfg_low,
        boundary: float = _DEFAULT.boundary,
    ) -> io.NodeOutput:
        model_low = model_high if model_low is None else model_low
        _warned(model_high, model_low)
        preflight.check_image(model_high, positive)
        guider = experts.ExpertsGuider(model_high, model_low, boundary)
        guider.set_conds(positive, negative)
        guider.set_scales(cfg_high, cfg_low)
        return io.NodeOutput(guider)


def _warned(high: io.Model.Type, low: io.Model.Type, preset: str = "") -> list[str]:
    found = preflight.warnings(high, low, run.PRESETS.get(preset))
    for warning in found:
        logging.warning("[Wan2.2] %s", warning)
    return found


def sampler_inputs() -> list:
    """Everything that the one-node samplers take."""
    note = _CUSTOM_ONLY
    return [
        *_models(),
        io.Conditioning.Input("positive", tooltip=POSITIVE),
        io.Conditioning.Input("negative", tooltip=NEGATIVE),
        io.Latent.Input("latent_image", tooltip="From WanEmptyLatent, or a video to change."),
        io.Combo.Input(
            "preset",
            options=[*run.PRESETS, run.CUSTOM],
            default="T2V-A14B",
            tooltip="A release's official steps, shift, CFG, boundary, solver and schedule; 4-step LoRA: "
            "for distilled LoRAs, without CFG; custom: the settings below.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**64 - 1,
            control_after_generate=True,
            tooltip="The noise that the video is made of; the same seed and settings give the same video.",
        ),
        _steps(note),
        _shift(note),
        _cfg("high", _DEFAULT.cfg_high, note),
        _cfg("low", _DEFAULT.cfg_low, note),
        _boundary(note),
        io.Combo.Input(
            "sampler",
            options=sampling.samplers(),
            default=_DEFAULT.sampler,
            optional=True,
            tooltip="The official solvers, then the host's samplers." + note,
        ),
        io.Combo.Input(
            "scheduler",
            options=sampling.schedulers(),
            default=_DEFAULT.scheduler,
            optional=True,
            tooltip="The official schedule, then the host's." + note,
        ),
        io.Combo.Input(
            "noise_source",
            options=sampling.NOISE_SOURCES,
            default="cpu",
            optional=True,
            tooltip="cpu: the host's noise for this seed. gpu: drawn on the GPU, as the official code does.",
        ),
        io.Int.Input("start_step", default=0, min=0, max=1000, optional=True, tooltip="First step to run."),
        io.Int.Input(
            "end_step", default=1000, min=1, max=1000, optional=True, tooltip="Step to stop before."
        ),
        io.Boolean.Input(
            "add_noise",
            default=True,
            optional=True,
            tooltip="Off: go on with a latent that has noise left.",
        ),
    ]


class WanMoESampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanMoESampler",
            "Wan MoE Sampler",
            ["ksampler", "experts", "sample"],
            folder="sampling",
            description="Samples with both experts, as the official code does; all in one node.",
            inputs=sampler_inputs(),
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(
        cls,
        model_high: io.Model.Type,
        positive: io.Conditioning.Type,
        negative: io.Conditioning.Type,
        latent_image: io.Latent.Type,
        preset: str,
        seed: int,
        model_low: io.Model.Type | None = None,
        steps: int = _DEFAULT.steps,
        shift: float = _DEFAULT.shift,
        cfg_high: float = _DEFAULT.cfg_high,
        cfg_low: float = _DEFAULT.cfg_low,
        boundary: float = _DEFAULT.boundary,
        sampler: str = _DEFAULT.sampler,
        scheduler: str = _DEFAULT.scheduler,
        noise_source: str = "cpu",
        start_step: int = 0,
        end_step: int = 1000,
        add_noise: bool = True,
    ) -> io.NodeOutput:
        model_low = model_high if model_low is None else model_low
        settings = run.Settings(steps, shift, cfg_high, cfg_low, boundary, sampler, scheduler)
        if preset != run.CUSTOM:
            settings = run.Settings.of_release(preset)
        warnings = _warned(model_high, model_low, preset)
        latent, report = run.run(
            model_high,
            model_low,
            positive,
            negative,
            latent_image,
            settings,
            seed,
            noise_source,
            start_step,
            end_step,
            add_noise,
        )
        text = comfy_api.latest.ui.PreviewText("\n".join([*warnings, report]))
        return io.NodeOutput(latent, ui=text)
