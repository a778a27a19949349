"""Which layout is fastest on these GPUs, by arithmetic: work over speed, bytes over bandwidth, and what fits.

Per forward of a row of L tokens, width d, N blocks: 2 L N (6 d^2 + 2 d ffn) + 4 L^2 d N + 4 L text d N operations.
Ulysses on P processes sends (P - 1) / P of 4 L d / P values per block from each; FSDP over W gathers (W - 1) / W of all
weights in each forward, while the blocks before compute; CFG-parallel sends nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..config import DiTConfig
from .mesh import Layout, layouts

# part of the memory of a device that is not planned for: communication buffers, kernels, fragmentation
_SPARE = 0.1


@dataclass(frozen=True)
class Job:
    """What is to be computed in a step. rows: 2 with guidance, 1 without."""

    config: DiTConfig
    weight_bytes: int
    tokens: int
    rows: int = 2
    item_bytes: int = 2

    @property
    def operations(self) -> float:
        """Of one row."""
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


def tokens_of(config: DiTConfig, shape: Sequence[int]) -> int:
    """Tokens of a latent [B, C, F, H, W]."""
    frames, height, width = (-(-n // p) for n, p in zip(shape[2:], config.patch_size, strict=True))
    return frames * height * width


def predict(layout: Layout, world: int, job: Job, measured: Sequence[Mapping[str, float]]) -> Prediction:
    """A layout on processes that were measured by `Worker.measure`; the slowest of them counts."""
    flops, bandwidth, free = (min(one[key] for one in measured) for key in ("flops", "bandwidth", "free"))
    config, degree = job.config, layout.ulysses
    rows = -(-job.rows // layout.cfg)
    compute = rows * job.operations / degree / flops
    sent = (
        rows
        * config.num_layers
        * 4
        * job.tokens
        * config.dim
        / degree
        * job.item_bytes
        * (degree - 1)
        / degree
    )
    gathered = job.weight_bytes * (world - 1) / world if layout.fsdp else 0.0
    # weights travel from host memory first, at a rate that is taken to be that between devices
    gathered += job.weight_bytes / world if layout.offload else 0.0
    seconds = max(compute, gathered / bandwidth) + sent / bandwidth

    block = job.weight_bytes / config.num_layers
    weights = job.weight_bytes / world + 2 * block if layout.fsdp else job.weight_bytes
    weights -= job.weight_bytes / world if layout.offload else 0
    # as `activation_bytes` of the single-device path: the fp32 stream twice, and the widest part of a block
    per_token = 8 * config.dim + max(
        4 * config.dim * job.item_bytes + 8 * config.dim, 2 * config.ffn_dim * job.item_bytes + 4 * config.dim
    )
    # the whole sequence exists before it is split and after it is gathered
    activations = rows * job.tokens * (per_token / degree + 8 * config.dim)
    needed = weights + activations
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
    candidates = candidates or plain
    known = [predict(layout, world, job, measured) for layout in candidates]
    fitting = [one for one in known if one.fits]
    best = min(fitting or known, key=lambda one: one.seconds if fitting else one.bytes)
    free, bandwidth = (min(one[key] for one in measured) for key in ("free", "bandwidth"))
    others = "; ".join(
        f"{one.layout}: {_seconds(one.seconds)}" if one.fits else f"{one.layout}: does not fit"
        for one in known
        if one is not best and not one.layout.offload and one.layout.fsdp == best.layout.fsdp
    )
    reason = (
        f"{best.layout}: {_seconds(best.seconds)} per step predicted, {best.bytes / 2**30:.1f} GiB on each of {world} "
        f"(free {free / 2**30:.1f} GiB, {bandwidth / 1e9:.3g} GB/s between them)"
    )
    if not fitting:
        reason += "; nothing is sure to fit, this is the smallest"
    return best.layout, f"{reason}; {others}" if others else reason


def _seconds(value: float) -> str:
    return f"{value:.3g} s"
