"""Classifier-free guidance, and which of two experts a noise level belongs to."""

from torch import Tensor

from ..wording import counted


def guide(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (arXiv 2207.12598): uncond + scale * (cond - uncond)."""
    return uncond + scale * (cond - uncond)


def is_high_noise(timestep: int, boundary: float) -> bool:
    """Whether the high-noise expert runs at a whole timestep in 0..1000; boundary in 0..1.

    The official rule, per model call and never by step number. ValueError on a boundary outside 0..1."""
    check_boundary(boundary)
    return timestep >= boundary * 1000


def check_base_steps(base_steps: int, at_high: int) -> None:
    """ValueError where a base model shall take more steps than are the high-noise expert's, or fewer than 0."""
    if base_steps < 0:
        raise ValueError(f"base_steps must be 0 or more, not {base_steps}")
    if base_steps > at_high:
        raise ValueError(
            f"base_steps {base_steps} goes past the boundary: at these settings the high-noise expert has "
            f"{counted(at_high, 'step')} to share, so give {at_high} at most"
        )


def check_boundary(boundary: float) -> None:
    """ValueError on a boundary outside 0..1."""
    if not 0 <= boundary <= 1:
        raise ValueError(f"boundary must lie in 0..1 (0.875 for T2V, 0.9 for I2V), not {boundary}")
