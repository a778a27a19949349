"""The official noise schedules, and the whole timesteps that the models are given.

A sigma is the share of noise in the latents, 1 to 0. Source: FlowUniPCMultistepScheduler and get_sampling_sigmas
of the official code, whose float64 arithmetic is followed to the bit.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .solvers import solver_class


def _exact(steps: int, shift: float, first: float) -> np.ndarray:
    """The sigmas but the last in float64; first: where they begin before the shift."""
    if steps < 1:
        raise ValueError(f"steps must be 1 or more, not {steps}")
    if not 0 < shift < math.inf:
        raise ValueError(f"shift must be above 0 and finite, not {shift}")
    uniform = np.linspace(first, 0, steps + 1)[:-1]
    return shift * uniform / (1 + (shift - 1) * uniform)


def _sigmas(steps: int, shift: float, first: float) -> Tensor:
    return torch.from_numpy(np.append(_exact(steps, shift, first), 0.0).astype(np.float32))


def _timesteps(steps: int, shift: float, first: float) -> Tensor:
    return torch.from_numpy((_exact(steps, shift, first) * 1000).astype(np.int64))


def sigmas(steps: int, shift: float, solver: str = "unipc") -> Tensor:
    """The official sigmas of a solver, float32 [steps + 1], the last one 0.

    shift above 1 spends more of the steps at high noise. Raises ValueError on steps < 1, shift <= 0 or an
    unknown solver."""
    return _sigmas(steps, shift, solver_class(solver).first_sigma)


def timesteps(steps: int, shift: float, solver: str = "unipc") -> Tensor:
    """The official timesteps int(1000 * sigma), int64 [steps]; same errors as `sigmas`."""
    return _timesteps(steps, shift, solver_class(solver).first_sigma)


def timestep_of(sigma: Tensor, schedule: Tensor | None = None) -> Tensor:
    """Timesteps int(1000 * sigma), int64, of float32 sigmas; `schedule` is the whole run's sigmas where known.

    The official code takes the whole part in float64, before sigmas are rounded to float32. For UniPC's schedules
    the same number comes out of float32 sigmas. For those that begin at 1, as DPM++'s, it does not where 1000 * sigma
    is whole (874.999... has become 875): such a schedule is recognised and its official timesteps are looked up."""
    plain = (sigma.float() * 1000).long()
    official = None if schedule is None else _timesteps_from_one(tuple(schedule.tolist()))
    if official is None:
        return plain
    exact = [
        official.get(s, int(t))
        for s, t in zip(sigma.flatten().tolist(), plain.flatten().tolist(), strict=True)
    ]
    return torch.tensor(exact, device=sigma.device).view(sigma.shape)


@lru_cache(maxsize=4)
def _timesteps_from_one(schedule: tuple[float, ...]) -> dict[float, int] | None:
    """Sigma -> timestep where `schedule` is a whole official one from 1 on, of any steps and shift; else None."""
    steps = len(schedule) - 1
    if steps < 2 or schedule[0] != 1.0 or not 0 < schedule[-2] < 1:
        return None
    last, uniform = schedule[-2], 1 / steps  # the last step tells the shift best: sigmas crowd near 1
    shift = round(last * (1 - uniform) / (uniform * (1 - last)), 3)
    if shift <= 0 or tuple(_sigmas(steps, shift, 1.0).tolist()) != schedule:
        return None
    return dict(zip(schedule, _timesteps(steps, shift, 1.0).tolist(), strict=False))
