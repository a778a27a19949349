"""Noise to latent video: the official loop over a schedule, with one model or two that take turns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..progress import OnProgress
from . import schedule
from .guidance import guide, is_high_noise
from .solvers import solver_class

Velocity = Callable[..., Tensor]
"""model(x, t, **inputs): latents and conditioning channels [B, C + C_y, F, H, W] at timesteps [B] or [B, F] -> velocity
[B, C, F, H, W]; a `WanModel` is one."""


@dataclass(frozen=True)
class Experts:
    """The models of a run: one, or two of which `high` takes the noise levels from the boundary up."""

    low: Velocity
    high: Velocity | None = None


@dataclass(frozen=True)
class SamplingSettings:
    """Settings of a run.

    guidance: CFG scale of the low-noise and of the high-noise expert, in the official order. solver: a name of
    `SOLVERS`. boundary: noise level in 0..1 from which the high-noise expert runs, where there is one."""

    steps: int
    shift: float
    guidance: tuple[float, float]
    solver: str
    boundary: float | None


def denoise(
    experts: Experts,
    noise: Tensor,
    positive: Mapping[str, Any],
    negative: Mapping[str, Any],
    settings: SamplingSettings,
    *,
    y: Tensor | None = None,
    known: Tensor | None = None,
    on_progress: OnProgress | None = None,
) -> Tensor:
    """Noise [B, C, F, H, W] -> normalised latents of the same shape.

    positive, negative: inputs of the models beside x and t, with the prompt and with the negative one. y: conditioning
    channels [B, C_y, F, H, W] that follow those of x. known: the first latent frames [B, C, n, H, W], which are kept
    and have timestep 0 (TI2V-5B). One solver state runs through the switch of experts. on_progress(done, total) is
    called after each step.
    Raises ValueError on steps < 1, shift <= 0, an unknown solver or a boundary outside 0..1."""
    steps, shift, solver = settings.steps, settings.shift, settings.solver
    sigmas = schedule.sigmas(steps, shift, solver)
    state = solver_class(solver)(sigmas)
    first = 0 if known is None else known.shape[2]

    def keep(x: Tensor) -> Tensor:
        return x if known is None else torch.cat([known, x[:, :, first:]], dim=2)

    x = keep(noise)  # the official run starts from the noise itself, not from sigma_0 * noise
    for i, timestep in enumerate(schedule.timesteps(steps, shift, solver).tolist()):
        model, scale = _expert_at(timestep, experts, settings)
        t = x.new_full((x.shape[0],), timestep)
        if first:
            t = t[:, None].repeat(1, x.shape[2])
            t[:, :first] = 0
        latents = x if y is None else torch.cat([x, y], dim=1)
        velocity = model(latents, t, **positive)
        if scale != 1:
            velocity = guide(velocity, model(latents, t, **negative), scale)
        x = keep(state.step(x, x - sigmas[i].item() * velocity, i))
        if on_progress is not None:
            on_progress(i + 1, steps)
    return x


def _expert_at(timestep: int, experts: Experts, settings: SamplingSettings) -> tuple[Velocity, float]:
    """The model that runs at a timestep, and its CFG scale."""
    low, high = settings.guidance
    if (
        experts.high is not None
        and settings.boundary is not None
        and is_high_noise(timestep, settings.boundary)
    ):
        return experts.high, high
    return experts.low, low
