"""The optimizer Muon (Jordan et al. 2024): momentum whose steps turn all directions of a matrix equally far.

torch's own takes matrices only; here the kernels of convolutions are matrices too, of one row per channel out.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""The polynomial that brings singular values towards 1."""


def orthogonalized(matrix: Tensor, rounds: int = 5) -> Tensor:
    """The matrix [m, n] with all its singular values near 1, by Newton and Schulz's iteration."""
    a, b, c = _COEFFICIENTS
    x = (matrix / (matrix.norm() + 1e-7)).bfloat16()  # precise enough, and several times as fast
    is_tall = x.shape[0] > x.shape[1]
    x = x.T if is_tall else x
    for _ in range(rounds):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if is_tall else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov's momentum for parameters of two dimensions or more. lr: length of a step, relative to the
    size of a fresh weight."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                buffer = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                direction = parameter.grad.lerp(buffer, group["momentum"]).flatten(1)
                # each row's step is as long as its input is wide, so that one rate fits all layers
                length = group["lr"] * max(1, direction.shape[0] / direction.shape[1]) ** 0.5
                parameter.add_(orthogonalized(direction).view_as(parameter), alpha=-length)
