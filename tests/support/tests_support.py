"""What several test files share: the distance two results are compared by, and weights that hide nothing."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def rel_l2(a: Tensor, b: Tensor) -> float:
    """||a - b|| / ||b|| in float64; infinite where the shapes differ or a number is not finite."""
    if a.shape != b.shape or not torch.isfinite(a).all():
        return float("inf")
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm())


@torch.no_grad()
def randomize_(module: nn.Module, std: float = 0.05, generator: torch.Generator | None = None) -> nn.Module:
    """Fills every parameter with noise, the ones that official code starts at zero too: zeros hide errors."""
    for name, param in module.named_parameters():
        noise = torch.randn(param.shape, generator=generator)
        centre = 1.0 if param.dim() == 1 and name.endswith(("weight", "gamma")) else 0.0
        param.copy_(centre + noise * std)
    return module


def on_meta(make: Callable[..., nn.Module], *arguments: object) -> nn.Module:
    """make(*arguments), without memory for its weights."""
    with torch.device("meta"):
        return make(*arguments)


def in_bfloat16(model: nn.Module) -> nn.Module:
    """A transformer of ours with its weights and its computation in bfloat16."""
    model = type(model)(model.config).bfloat16()
    model.compute_dtype = torch.bfloat16
    return model
