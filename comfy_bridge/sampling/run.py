"""One sampling run from settings to LATENT, for the nodes that do it all in one."""

from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.utils
import torch
from torch import Tensor

from ...wan_models.families import DISTILLED, RELEASES
from ...wan_models.sampling.schedule import timestep_of
from ...wan_models.sampling.solvers import SOLVERS
from . import preflight, preview
from . import samplers as sampling
from .experts import ExpertsGuider

CUSTOM = "custom"
PRESETS = {**RELEASES, **DISTILLED}


@dataclass(frozen=True)
class Settings:
    """How to sample; `preset` other than "custom" takes all of it from a release."""

    steps: int
    shift: float
    cfg_high: float
    cfg_low: float
    boundary: float
    sampler: str
    scheduler: str

    @classmethod
    def of_release(cls, name: str) -> "Settings":
        release = PRESETS[name]
        low, high = release.guidance
        # a release with one expert runs it from the first step to the last
        boundary = 0.0 if release.boundary is None else release.boundary
        if release.solver in SOLVERS:
            sampler, scheduler = sampling.OFFICIAL + release.solver, sampling.SCHEDULE_NAME
        else:
            sampler, scheduler = release.solver, "simple"
        return cls(release.steps, release.shift, high, low, boundary, sampler, scheduler)


@dataclass(frozen=True)
class Steps:
    """The steps of a run: those from `first` up to `last` of a whole schedule.

    whole: its sigmas, float32 [n + 1]. high: bool [n], the steps that the high-noise expert takes."""

    whole: Tensor
    high: Tensor
    first: int
    last: int

    @property
    def sigmas(self) -> Tensor:
        return self.whole[self.first : self.last + 1]

    @property
    def at_high(self) -> int:
        return int(self.high[self.first : self.last].sum())


def steps_of(settings: Settings, start_step: int = 0, end_step: int = 10000) -> Steps:
    """What is run under these settings. ValueError where they give no schedule, or no step is left."""
    whole = sampling.sigmas_named(settings.scheduler, settings.steps, settings.shift, settings.sampler)
    count = len(sampling.sub_range(whole, start_step, end_step)) - 1
    high = timestep_of(whole[:-1], whole) >= settings.boundary * 1000
    return Steps(whole, high, start_step, start_step + count)


def check_latent(latent: dict, model: Any) -> Tensor:
    """The samples of a LATENT, as the model takes them; ValueError where they were made for another model."""
    samples = latent["samples"]
    if samples.ndim != 5:
        raise ValueError(
            f"the latent has shape {tuple(samples.shape)}: a Wan model needs a video latent (batch, channels, frames, "
            "height, width). Make it with WanEmptyLatent or WanVAEEncode"
        )
    channels = model.get_model_object("latent_format").latent_channels
    if samples.shape[1] != channels:
        raise ValueError(
            f"the latent has {samples.shape[1]} channels and the model works on {channels}: they belong to different "
            "VAEs. Connect the model's own VAE to the node that makes the latent"
        )
    return samples


def run(
    high: Any,
    low: Any,
    positive: Any,
    negative: Any,
    latent: dict,
    settings: Settings,
    seed: int,
    noise_source: str,
    start_step: int = 0,
    end_step: int = 10000,
    add_noise: bool = True,
    callback: Any = None,
) -> tuple[dict, str]:
    """Samples and returns the LATENT and one line on what was done; callback(step, denoised, x, steps) instead of
    the node's own progress and preview."""
    preflight.check_image(high, positive)
    preflight.check_vision(high, positive)
    samples = comfy.sample.fix_empty_latent_channels(high, check_latent(latent, high))
    steps = steps_of(settings, start_step, end_step)
    count = steps.last - steps.first
    guider = ExpertsGuider(high, low, settings.boundary)
    guider.set_conds(positive, negative)
    guider.set_scales(settings.cfg_high, settings.cfg_low)

    noise = sampling.make_noise(latent, seed, noise_source) if add_noise else torch.zeros_like(samples)
    callback = callback or preview.callback(high, count)
    out = guider.sample(
        noise,
        samples,
        sampling.sampler_named(settings.sampler),
        steps.sigmas,
        denoise_mask=latent.get("noise_mask"),
        callback=callback,
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    out = out.to(comfy.model_management.intermediate_device())
    report = f"{count} steps (shift {settings.shift:g}, CFG {settings.cfg_high:g})"
    if low is not high:
        report = (
            f"{steps.at_high} of {count} steps on the high-noise expert, {count - steps.at_high} on the low-noise "
            f"expert (boundary {settings.boundary:g}, shift {settings.shift:g}, "
            f"CFG {settings.cfg_high:g} / {settings.cfg_low:g})"
        )
    return {**latent, "samples": out}, report
