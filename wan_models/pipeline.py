"""Noise to latent video without a host: the whole official sampling in one function, for scripts and tests."""

from collections.abc import Callable

import torch
from torch import Tensor

from .sampling import schedule
from .sampling.guidance import guide, is_high_noise
from .sampling.solvers import solver_class

Velocity = Callable[..., Tensor]
"""(latents [B, C, F, H, W], timesteps [B] or [B, F], text) -> velocity; a `WanModel` is one."""


def video_latents(
    high: Velocity,
    low: Velocity,
    context: Tensor | list[Tensor],
    context_null: Tensor | list[Tensor],
    noise: Tensor,
    *,
    y: Tensor | None = None,
    first: Tensor | None = None,
    steps: int = 40,
    shift: float = 12.0,
    guidance: tuple[float, float] = (3.0, 4.0),
    boundary: float = 0.875,
    solver: str = "unipc",
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Noise [B, C, F, H, W] -> normalised latents of the same shape.

    y: image conditioning [B, C_y, F, H, W] of I2V models. first: known first latent frames [B, C, n, H, W] of
    TI2V-5B, which are kept, and have timestep 0. guidance: CFG scale of the (low, high) noise expert, in the
    official order; one solver state runs through the switch of experts. A boundary of 0 is a model of one expert.
    Raises ValueError on steps < 1, shift <= 0, an unknown solver or a boundary outside 0..1."""
    sigmas = schedule.sigmas(steps, shift, solver)
    state = solver_class(solver)(sigmas)
    known = 0 if first is None else first.shape[2]

    def keep(x: Tensor) -> Tensor:
        return x if first is None else torch.cat([first, x[:, :, known:]], dim=2)

    x = keep(noise)  # the official run starts from the noise itself, not from sigma_0 * noise
    for i, timestep in enumerate(schedule.timesteps(steps, shift, solver).tolist()):
        at_high = is_high_noise(timestep, boundary)
        model = high if at_high else low
        t = x.new_full((x.shape[0],), timestep)
        if known:
            t = t[:, None].repeat(1, x.shape[2])
            t[:, :known] = 0
        given = x if y is None else torch.cat([x, y.to(x)], dim=1)
        velocity = guide(model(given, t, context), model(given, t, context_null), guidance[at_high])
        x = keep(state.step(x, x - sigmas[i].item() * velocity, i))
        if on_step is not None:
            on_step(i + 1, steps)
    return x
