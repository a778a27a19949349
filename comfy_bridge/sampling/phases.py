"""Which expert of a run answers at which noise level."""

import math
from dataclasses import dataclass

from torch import Tensor

from ...wan_models.sampling.guidance import check_base_steps, is_high_noise
from ...wan_models.sampling.schedule import timestep_of

BASE, HIGH, LOW = "base", "high", "low"
_ROUNDING = 1e-6  # of a noise level that a sampler has computed once more; steps lie further apart


@dataclass(frozen=True)
class Phases:
    """Which expert answers at which noise level of a run. schedule: its sigmas, on the CPU. base_until: the noise level
    above which the base answers, infinite where there is none."""

    schedule: Tensor
    boundary: float
    base_until: float

    @classmethod
    def of(cls, sigmas: Tensor, boundary: float, base_steps: int = 0) -> "Phases":
        """base_steps: the first of these sigmas' steps, which are the base's. ValueError where they go past the
        boundary."""
        schedule = sigmas.cpu()
        until = math.inf
        if base_steps:
            check_base_steps(base_steps, int((timestep_of(schedule[:-1], schedule) >= boundary * 1000).sum()))
            until = schedule[base_steps].item() * (1 + _ROUNDING)
        return cls(schedule, boundary, until)

    def at(self, sigma: Tensor) -> str:
        """BASE, HIGH or LOW."""
        if sigma.flatten()[0].item() > self.base_until:
            return BASE
        return HIGH if is_high(sigma, self.schedule, self.boundary) else LOW

    def in_turn(self) -> list[str]:
        """The experts of the run, in the order in which they are first asked."""
        return list(dict.fromkeys(self.at(sigma) for sigma in self.schedule.split(1)))


def is_high(sigma: Tensor, schedule: Tensor, boundary: float) -> bool:
    """Whether the high-noise expert answers at this noise level: the official rule on whole timesteps."""
    return is_high_noise(int(timestep_of(sigma.flatten()[:1].cpu(), schedule)), boundary)
