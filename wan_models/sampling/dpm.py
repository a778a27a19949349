"""DPM-Solver++ 2M with the midpoint rule, as the official code runs it (Lu et al., arXiv 2211.01095)."""

import math
from typing import ClassVar

from torch import Tensor

from .unipc import log_snr


class DPMpp2M:
    """State of one run over `sigmas` [N + 1]; works on x0 predictions, first order at the start and into 0."""

    first_sigma: ClassVar[float] = 1.0

    def __init__(self, sigmas: Tensor) -> None:
        self.sigmas: list[float] = sigmas.tolist()
        self.previous: Tensor | None = None

    def step(self, x: Tensor, x0: Tensor, i: int) -> Tensor:
        """Point x at sigmas[i] and the model's x0 there -> point at sigmas[i + 1]."""
        sigma, target = self.sigmas[i], self.sigmas[i + 1]
        h = log_snr(target) - log_snr(sigma)
        scale = -(1 - target) * math.expm1(-h)
        out = (x * (target / sigma)).add_(x0, alpha=scale)
        if self.previous is not None and target != 0:
            r = (log_snr(sigma) - log_snr(self.sigmas[i - 1])) / h
            out.add_(x0 - self.previous, alpha=0.5 * scale / r)
        self.previous = x0
        return out
