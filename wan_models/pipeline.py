"""Text to latent video without a host: the whole official sampling in one function, for scripts and tests."""

from collections.abc import Callable

from torch import Tensor

from .sampling import schedule
from .sampling.dpm import make_solver
from .sampling.guidance import guide, is_high_noise

Velocity = Callable[[Tensor, Tensor, Tensor | list[Tensor]], Tensor]
"""(latents [B, C, F, H, W], timesteps [B], text) -> velocity of the latents' shape; a `WanModel` is one."""


def text_to_video_latents(
    high: Velocity,
    low: Velocity,
    context: Tensor | list[Tensor],
    context_null: Tensor | list[Tensor],
    noise: Tensor,
    *,
    steps: int = 40,
    shift: float = 12.0,
    guidance: tuple[float, float] = (3.0, 4.0),
    boundary: float = 0.875,
    solver: str = "unipc",
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Noise [B, C, F, H, W] -> normalised latents of the same shape.

    guidance: CFG scale of the (low, high) noise expert, in the official order. One solver state runs through the
    switch of experts. Raises ValueError on steps < 1, shift <= 0, an unknown solver or a boundary outside 0..1."""
    sigmas = schedule.sigmas(steps, shift, solver)
    state = make_solver(solver, sigmas)
    x = noise  # the official run starts from the noise itself, not from sigma_0 * noise
    for i, timestep in enumerate(schedule.timesteps(steps, shift, solver).tolist()):
        at_high = is_high_noise(timestep, boundary)
        model = high if at_high else low
        t = x.new_full((x.shape[0],), timestep)
        velocity = guide(model(x, t, context), model(x, t, context_null), guidance[at_high])
        x = state.step(x, x - sigmas[i].item() * velocity, i)
        if on_step is not None:
            on_step(i + 1, steps)
    return x
