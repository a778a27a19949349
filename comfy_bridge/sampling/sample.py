"""One sampling run of both experts, from settings to LATENT."""

from collections.abc import Callable

import comfy.model_management
import comfy.sample
import comfy.utils
import torch
from torch import Tensor

from ...wan_models.wording import counted
from ..host_types import Conditioning, Latent, Model
from ..media.conditioning import Prompts
from . import preflight, preview, samplers
from .experts import Experts, ExpertsGuider
from .settings import ALL_STEPS, Noise, Settings, StepRange, Steps, steps_of


def sample_with_experts(
    experts: Experts,
    prompts: Prompts,
    latent_image: Latent,
    settings: Settings,
    noise: Noise,
    steps: StepRange = ALL_STEPS,
    callback: Callable[[int, Tensor, Tensor, int], None] | None = None,
    positive_low: Conditioning | None = None,
) -> tuple[Latent, str]:
    """Samples a latent; returns the LATENT and one line on what was done.

    callback(step, denoised, x, steps): in the place of the node's own progress and preview. positive_low: of the
    low-noise expert, where it has another positive prompt. Raises ValueError where models, prompts and latent do not
    belong together."""
    high = experts.high
    preflight.check_prompts(experts, prompts.positive, positive_low)
    samples = comfy.sample.fix_empty_latent_channels(high, check_latent(latent_image, high))
    base = experts.base
    run = steps_of(settings, steps, 0 if base is None else base.steps)
    if base is not None:
        experts = experts._replace(base=base._replace(steps=run.at_base))
    guider = ExpertsGuider(experts, settings.boundary, (settings.cfg_high, settings.cfg_low))
    guider.set_conds(*prompts, positive_low)
    out = guider.sample(
        samplers.make_noise(latent_image, noise.seed, noise.noise_source)
        if noise.add_noise
        else torch.zeros_like(samples),
        samples,
        samplers.sampler_named(settings.sampler),
        run.sigmas,
        denoise_mask=latent_image.get("noise_mask"),
        callback=callback or preview.callback(high, run.last - run.first),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=noise.seed,
    )
    out = out.to(comfy.model_management.intermediate_device())
    return {**latent_image, "samples": out}, _report(experts, settings, run)


def check_latent(latent: Latent, model: Model) -> Tensor:
    """The samples of a LATENT for this model; ValueError where they were made for another one."""
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


def _report(experts: Experts, settings: Settings, run: Steps) -> str:
    count = run.last - run.first
    low = count - run.at_base - run.at_high
    if experts.low is experts.high:
        scales = [(settings.cfg_high, run.at_high), (settings.cfg_low, low)]
        used = dict.fromkeys(f"{scale:g}" for scale, steps in scales if steps)
        text = f"{counted(count - run.at_base, 'step')} (shift {settings.shift:g}, CFG {' / '.join(used) or '-'})"
    else:
        text = (
            f"{run.at_high} of {count} steps on the high-noise expert, {low} on the low-noise expert "
            f"(boundary {settings.boundary:g}, shift {settings.shift:g}, CFG {settings.cfg_high:g} / "
            f"{settings.cfg_low:g})"
        )
    if experts.base is not None and run.at_base:
        text += f"; {run.at_base} on the base model before them (CFG {experts.base.cfg:g})"
    return text
