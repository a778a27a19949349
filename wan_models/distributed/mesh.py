"""Layouts of a group: how its processes share the work, as cfg x ulysses with or without sharded weights.

The batch rows (with and without guidance) are split over `cfg` groups; the tokens of a row over the `ulysses` processes
of each. FSDP shards weights over all processes, whatever the two degrees are.
"""

from dataclasses import dataclass

import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh


@dataclass(frozen=True)
class Layout:
    """Degrees of parallelism. `offload` keeps the shards of the weights in host memory between uses (FSDP only)."""

    cfg: int = 1
    ulysses: int = 1
    fsdp: bool = False
    offload: bool = False

    @property
    def size(self) -> int:
        """Processes that it takes."""
        return self.cfg * self.ulysses

    def __str__(self) -> str:
        degrees = (("CFG-parallel", self.cfg), ("Ulysses", self.ulysses))
        parts = [f"{name} {degree}" for name, degree in degrees if degree > 1]
        parts += ["FSDP"] if self.fsdp else []
        return (" x ".join(parts) or "one GPU") + (" with weights in host memory" if self.offload else "")


def layouts(world: int, heads: int) -> list[Layout]:
    """Every pair of degrees that `world` processes and `heads` attention heads allow, CFG-parallel first."""
    pairs = [Layout(cfg, world // cfg) for cfg in (2, 1) if world % cfg == 0]
    return [layout for layout in pairs if heads % layout.ulysses == 0]


def check(layout: Layout, world: int, heads: int) -> None:
    """ValueError, with the choices there are, where a layout does not fit a group or a model."""
    if layout.cfg not in (1, 2):
        raise ValueError(f"CFG-parallel is 1 or 2 (with guidance, without), not {layout.cfg}")
    if layout.ulysses < 1 or heads % layout.ulysses:
        divisors = [str(n) for n in range(1, heads + 1) if heads % n == 0]
        raise ValueError(
            f"ulysses {layout.ulysses} does not divide the model's {heads} attention heads; "
            f"choose one of {', '.join(divisors)}"
        )
    if layout.offload and not layout.fsdp:
        raise ValueError("weights can be kept in host memory with FSDP only: switch fsdp on")
    fits = layout.size == world or (layout.fsdp and world % layout.size == 0)
    if not fits:
        choices = ", ".join(
            f"CFG-parallel {one.cfg} x Ulysses {one.ulysses}" for one in layouts(world, heads)
        )
        there = "there is 1 GPU" if world == 1 else f"there are {world} GPUs"
        raise ValueError(
            f"CFG-parallel {layout.cfg} x Ulysses {layout.ulysses} makes {layout.size}, and {there}; "
            f"choose {choices or 'another number of GPUs'}"
        )


def make_mesh(layout: Layout, world: int, device_type: str) -> DeviceMesh:
    """The mesh with dimensions "spare" (processes that only hold weights), "cfg" and "ulysses"; all must call it."""
    shape = (world // layout.size, layout.cfg, layout.ulysses)
    return init_device_mesh(device_type, shape, mesh_dim_names=("spare", "cfg", "ulysses"))


def rows_of(group: int, groups: int, batch: int) -> slice:
    """The batch rows that group `group` of `groups` works on: equal runs, the last one shorter.

    A group that would be left idle repeats the last run, for all processes must run as many forwards where weights are
    shared."""
    size = -(-batch // groups)
    start = group * size
    return slice(start, min(start + size, batch)) if start < batch else slice(batch - size, batch)


def device_of(rank: int) -> torch.device:
    """The device of a process: a GPU of its own, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", rank % torch.cuda.device_count())
