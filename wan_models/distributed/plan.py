"""Choice of the layout that is fastest on these GPUs, by arithmetic: work over speed, bytes over bandwidth.

Per forward of a row of L tokens, width d, N blocks: 2 L N (6 d^2 + 2 d ffn) + 4 L^2 d N + 4 L text d N operations.
Ulysses on P processes sends (P - 1) / P of 4 L d / P values per block from each; FSDP over W gathers (W - 1) / W of all
weights in each forward, while the blocks before compute; CFG-parallel sends nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from ..config import DiTConfig
from ..memory import activation_bytes, tokens_of
from .mesh import Layout, layouts

# part of the memory of a device that is not planned for: communication buffers, kernels, fragmentation
_SPARE = 0.1


@dataclass(frozen=True)
class Job:
    """The forward of one step, for latents of `shape` [B, C, F, H, W], B 2 with guidance and 1 without."""

    config: DiTConfig
    weight_bytes: int
    shape: tuple[int, ...]
    compute_dtype: torch.dtype = torch.bfloat16

    @property
    def tokens(self) -> int:
        """Tokens of one row."""
        return tokens_of(self.config, self.shape)

    @property
    def operations(self) -> float:
        """Floating-point operations of one row."""
        c, tokens = self.config, self.tokens
        linear = 2 * tokens * c.num_layers * (6 * c.dim**2 + 2 * c.dim * c.ffn_dim)
        attention = 4 * (tokens + c.text_len) * tokens * c.dim * c.num_layers
        return linear + attention


@dataclass(frozen=True)
class Prediction:
    """Seconds of a step, and bytes on each device, in a layout."""

    layout: Layout
    seconds: float
    bytes: float
    fits: bool


def predict(layout: Layout, world: int, job: Job, measured: Sequence[Mapping[str, float]]) -> Prediction:
    """A layout on processes that were measured by `Worker.measure`; the slowest of them counts."""
    flops, bandwidth, free = (
        min(process[key] for process in measured) for key in ("flops", "bandwidth", "free")
    )
    config, degree = job.config, layout.ulysses
    rows = -(-job.shape[0] // layout.cfg)
    shard = job.weight_bytes / world

    compute = rows * job.operations / degree / flops
    values = rows * config.num_layers * 4 * job.tokens * config.dim / degree
    sent = values * job.compute_dtype.itemsize * (degree - 1) / degree
    gathered = job.weight_bytes * (world - 1) / world if layout.fsdp else 0.0
    # weights travel from host memory first, at a rate that is taken to be that between devices
    gathered += shard if layout.offload else 0.0
    seconds = max(compute, gathered / bandwidth) + sent / bandwidth

    block = job.weight_bytes / config.num_layers
    weights = shard + 2 * block if layout.fsdp else job.weight_bytes
    weights -= shard if layout.offload else 0
    needed = weights + activation_bytes(config, (rows, *job.shape[1:]), job.compute_dtype, degree)
    return Prediction(layout, seconds, needed, needed < (1 - _SPARE) * free)


def choose(
    world: int,
    job: Job,
    measured: Sequence[Mapping[str, float]],
    degrees: tuple[int, int] | None = None,
    fsdp: bool | None = None,
) -> tuple[Layout, str]:
    """The fastest layout that fits, and why, in a sentence. Where none fits: the smallest one.

    degrees: (cfg, ulysses) where they are given. fsdp: whether weights are shared, None where that is left open."""
    plain = list(dict.fromkeys([Layout(), *layouts(world, job.config.num_heads)]))
    if degrees is not None:
        plain = [Layout(*degrees)]
    candidates = [] if fsdp else [one for one in plain if degrees is None or one.size == world]
    if fsdp is not False and world > 1:
        candidates += [replace(one, fsdp=True) for one in plain]
        candidates += [replace(one, fsdp=True, offload=True) for one in plain]
    predictions = [predict(layout, world, job, measured) for layout in candidates or plain]
    fitting = [one for one in predictions if one.fits]
    best = min(fitting or predictions, key=lambda one: one.seconds if fitting else one.bytes)
    free, bandwidth = (min(process[key] for process in measured) for key in ("free", "bandwidth"))
    others = "; ".join(
        f"{one.layout}: {_seconds(one.seconds)}" if one.fits else f"{one.layout}: does not fit"
        for one in predictions
        if one is not best and not one.layout.offload and one.layout.fsdp == best.layout.fsdp
    )
    each, between = "", ""
    if world > 1:
        each, between = f" on each of {world}", f", {bandwidth / 1e9:.3g} GB/s between them"
    reason = (
        f"{best.layout}: {_seconds(best.seconds)} per step predicted, {best.bytes / 2**30:.1f} GiB{each} "
        f"(free {free / 2**30:.1f} GiB{between})"
    )
    if not fitting:
        reason += "; nothing is sure to fit, this is the smallest"
    return best.layout, f"{reason}; {others}" if others else reason


def _seconds(value: float) -> str:
    return f"{value:.3g} s"
