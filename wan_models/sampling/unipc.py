"""UniPC, order 2 with B2(h), as the official code runs it (Zhao et al., arXiv 2302.04867).

A predictor-corrector: each model call first corrects the point it was made at, then predicts the next one. Works
on x0 predictions; for the flow x = (1 - s) * x0 + s * noise, lambda = log(1 - s) - log(s).
"""

import math
from typing import ClassVar

import numpy as np
from torch import Tensor

INF = math.inf


def log_snr(sigma: float) -> float:
    """lambda of the flow at a sigma in 0..1; infinite at the ends."""
    if sigma <= 0:
        return INF
    return -INF if sigma >= 1 else math.log1p(-sigma) - math.log(sigma)


class UniPC:
    """State of one run over `sigmas` [N + 1]; any decreasing schedule, also one that stops above 0."""

    # the official scheduler keeps its training sigmas in float32, and starts from the largest of them
    first_sigma: ClassVar[float] = float(np.float32(0.999))

    def __init__(self, sigmas: Tensor) -> None:
        self.sigmas: list[float] = sigmas.tolist()
        self.x0: list[Tensor] = []  # predictions of this and the previous step
        self.last: Tensor | None = None  # corrected point of the previous step
        self.order = 1

    def step(self, x: Tensor, x0: Tensor, i: int) -> Tensor:
        """Point x at sigmas[i] and the model's x0 there -> point at sigmas[i + 1]."""
        if self.last is not None:
            x = self._correct(x0, i)
        self.x0 = [*self.x0[-1:], x0]
        self.order = 1 if self.sigmas[i + 1] == 0 else min(2, len(self.x0))
        self.last = x
        return self._update(x, x0, i, [0.5] if self.order == 2 else [], i - 1, self.x0[0])

    def _correct(self, x0: Tensor, i: int) -> Tensor:
        """The point at sigmas[i] again, now that the model has been asked there."""
        assert self.last is not None
        previous = self.x0[-1]
        h = log_snr(self.sigmas[i]) - log_snr(self.sigmas[i - 1])
        if self.order == 1:
            weights, correction = [], 0.5
        else:
            r = (log_snr(self.sigmas[i - 2]) - log_snr(self.sigmas[i - 1])) / h
            b1, b2 = _b(h)
            older = (b2 - b1) / (r - 1)
            weights, correction = [older], b1 - older
        out = self._update(self.last, previous, i - 1, weights, i - 2, self.x0[0])
        scale = -(1 - self.sigmas[i]) * math.expm1(-h)
        return out.add(x0 - previous, alpha=scale * correction)

    def _update(self, x: Tensor, x0: Tensor, i: int, weights: list[float], j: int, older: Tensor) -> Tensor:
        """Step from sigmas[i] to sigmas[i + 1]; `older` is the x0 at sigmas[j], used where weights has one."""
        sigma, target = self.sigmas[i], self.sigmas[i + 1]
        h = log_snr(target) - log_snr(sigma)
        scale = -(1 - target) * math.expm1(-h)
        out = (x * (target / sigma)).add_(x0, alpha=scale)
        if weights:
            r = (log_snr(self.sigmas[j]) - log_snr(sigma)) / h
            out.add_(older - x0, alpha=scale * weights[0] / r)
        return out


def _b(h: float) -> tuple[float, float]:
    """The right-hand sides of the order conditions for B2(h) = expm1(-h)."""
    hh, b = -h, math.expm1(-h)
    first = b / hh - 1
    second = first / hh - 0.5
    return first / b, 2 * second / b
