"""The official solvers by name. Another one is a file beside `unipc` and `dpm` and a line in the table."""

from typing import ClassVar, Protocol

from torch import Tensor

from .dpm import DPMpp2M
from .unipc import UniPC


class Solver(Protocol):
    """State of one run over sigmas, which works on predictions of x0 and lives outside of the model."""

    first_sigma: ClassVar[float]
    """Where the solver's official schedule begins before its shift, in 0..1."""

    def __init__(self, sigmas: Tensor) -> None: ...

    def step(self, x: Tensor, x0: Tensor, i: int) -> Tensor:
        """Point x at sigmas[i] and the model's x0 there -> point at sigmas[i + 1]."""
        ...


SOLVERS: dict[str, type[Solver]] = {"unipc": UniPC, "dpm++": DPMpp2M}


def solver_class(name: str) -> type[Solver]:
    """The solver of that name; ValueError with the names there are on another one."""
    if name not in SOLVERS:
        raise ValueError(f"unknown solver {name!r}; choose one of {', '.join(SOLVERS)}")
    return SOLVERS[name]
