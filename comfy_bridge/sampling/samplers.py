"""The official schedules and solvers as the host's SIGMAS and SAMPLER, and noise from either generator."""

from contextlib import suppress
from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.sample
import comfy.samplers
import torch
from torch import Tensor
from tqdm.auto import trange

from ...wan_models.sampling import schedule
from ...wan_models.sampling.solvers import SOLVERS, solver_class
from ...wan_models.wording import counted
from ..host_types import Latent

OFFICIAL = "wan "
"""Prefix of the official solvers and schedule, in lists that also hold the host's."""
SOLVER_NAMES = [OFFICIAL + name for name in SOLVERS]
SCHEDULE_NAME = OFFICIAL + "official"
NOISE_SOURCES = ["cpu", "gpu"]

# from here up a schedule starts at pure noise: the lowest first sigma of an official one, at shift 0.1, is 0.99
_FROM_NOISE = 0.98
# an empty part of a latent that also holds an image is zero but for the rounding of its normalisation
_ZERO = 1e-4


def sampler_names() -> list[str]:
    """The official solvers, then all samplers that this host has now: other packs add theirs at any time."""
    host = comfy.samplers
    # one list and its parts in the host; packs add to any of them, or put a longer one in its place
    return list(
        dict.fromkeys([*SOLVER_NAMES, *host.KSampler.SAMPLERS, *host.SAMPLER_NAMES, *host.KSAMPLER_NAMES])
    )


def scheduler_names() -> list[str]:
    """The official schedule, then all schedulers that this host has now."""
    host = comfy.samplers
    return list(
        dict.fromkeys(
            [SCHEDULE_NAME, *host.KSampler.SCHEDULERS, *host.SCHEDULER_NAMES, *host.SCHEDULER_HANDLERS]
        )
    )


def official_sampler(solver: str) -> comfy.samplers.KSAMPLER:
    """SAMPLER that runs an official solver, one of `SOLVERS`, over any SIGMAS."""
    solver_class(solver)  # an unknown name is an error now, not when sampling starts
    return comfy.samplers.KSAMPLER(_run_solver, extra_options={"solver": solver})


@torch.no_grad()
def _run_solver(
    model: Any,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict | None = None,
    callback: Any = None,
    disable: bool | None = None,
    solver: str = "unipc",
) -> Tensor:
    mask = (extra_args or {}).get("denoise_mask")
    to_make = model.latent_image if mask is None else model.latent_image * mask
    if sigmas[0] >= _FROM_NOISE and to_make.abs().max() < _ZERO:
        x = model.noise  # the official run starts from the noise itself, the host from sigma_0 * noise
    state = solver_class(solver)(sigmas)
    for i in trange(len(sigmas) - 1, disable=disable):
        denoised = model(x, sigmas[i].expand(x.shape[0]), **(extra_args or {}))
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        x = state.step(x, denoised, i)
    return x


def check_sampler(name: str) -> None:
    """ValueError on a name that neither we nor the host have a sampler of."""
    if name not in sampler_names():
        raise ValueError(
            f"this host has no sampler {name!r}; choose another one, {SOLVER_NAMES[0]!r} is the official one"
        )


def sampler_named(name: str) -> comfy.samplers.KSAMPLER:
    """SAMPLER of an official solver ("wan unipc") or of one of the host's names."""
    check_sampler(name)
    if name in SOLVER_NAMES:
        return official_sampler(name.removeprefix(OFFICIAL))
    return comfy.samplers.sampler_object(name)


def sigmas_named(name: str, steps: int, shift: float, sampler: str) -> Tensor:
    """SIGMAS of the official schedule of that sampler, or of one of the host's schedulers at that shift."""
    if name == SCHEDULE_NAME:
        solver = sampler.removeprefix(OFFICIAL) if sampler in SOLVER_NAMES else "unipc"
        return schedule.sigmas(steps, shift, solver)
    if name not in scheduler_names():
        raise ValueError(
            f"this host has no scheduler {name!r}; choose another one, {SCHEDULE_NAME!r} is the official one"
        )
    schedule.sigmas(steps, shift)  # the same checks of steps and shift
    model_sampling = comfy.model_base.model_sampling(_ShiftOnly(shift), comfy.model_base.ModelType.FLOW)
    sigmas = None
    with suppress(ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):
        sigmas = comfy.samplers.calculate_sigmas(model_sampling, name, steps).cpu()
    if sigmas is None or len(sigmas) < 2 or not sigmas.isfinite().all():
        raise ValueError(
            f"the scheduler {name!r} has no schedule of {steps} steps at shift {shift:g}: choose other steps or "
            f"another scheduler, {SCHEDULE_NAME!r} is the official one"
        )
    return sigmas


class _ShiftOnly:
    """Stand-in for a model's configuration: the one part that the host's flow schedulers read."""

    def __init__(self, shift: float) -> None:
        self.sampling_settings = {"shift": shift}


def sub_range(sigmas: Tensor, start_step: int, end_step: int) -> Tensor:
    """The sigmas of steps start_step up to end_step; ValueError where no step is left."""
    part = sigmas[start_step : end_step + 1]
    if len(part) < 2:
        raise ValueError(
            f"no steps are left between start_step {start_step} and end_step {end_step}: the schedule has "
            f"{counted(len(sigmas) - 1, 'step')}"
        )
    return part


def make_noise(latent: Latent, seed: int, source: str) -> Tensor:
    """Noise of the latents' shape. "cpu": drawn as the host does; "gpu": on the device, as the official code does."""
    samples = latent["samples"]
    if source == "cpu":
        return comfy.sample.prepare_noise(samples, seed, latent.get("batch_index"))
    generator = torch.Generator(comfy.model_management.get_torch_device()).manual_seed(seed)
    rows = latent.get("batch_index") or range(samples.shape[0])
    one = (1, *samples.shape[1:])
    drawn = [torch.randn(one, generator=generator, device=generator.device) for _ in range(max(rows) + 1)]
    return torch.cat([drawn[row] for row in rows]).to(samples.device)
