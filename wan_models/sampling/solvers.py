"""The official solvers by name. Another one is a file beside `unipc` and `dpm` and a line in the table."""

from typing import TYPE_CHECKING, ClassVar, Protocol

from ..registry import resolve

if TYPE_CHECKING:  # the command line has the names from here, without torch
    from torch import Tensor


class Solver(Protocol):
    """State of one run over sigmas, which works on predictions of x0 and lives outside of the model."""

    first_sigma: ClassVar[float]
    """Start of the solver's official schedule before its shift, in 0..1."""

    def __init__(self, sigmas: "Tensor") -> None: ...

    def step(self, x: "Tensor", x0: "Tensor", i: int) -> "Tensor":
        """Point x at sigmas[i] and the model's x0 there -> point at sigmas[i + 1]."""
        ...


SOLVERS: dict[str, str] = {
    "unipc": "sampling.unipc.UniPC",
    "dpm++": "sampling.dpm.DPMpp2M",
}
"""Classes of solvers by their path in this package."""


def solver_class(name: str) -> type[Solver]:
    """The solver of that name; ValueError with the names there are on another one."""
    if name not in SOLVERS:
        raise ValueError(f"unknown solver {name!r}; choose one of {', '.join(SOLVERS)}")
    return resolve(SOLVERS[name])
