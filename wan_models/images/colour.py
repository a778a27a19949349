"""Colours of one video brought to those of another: mean and deviation of each channel."""

from typing import NamedTuple

import torch
from torch import Tensor

_FLAT = 1 / 255
"""Deviation below which a channel has no contrast that could be scaled."""


class Colours(NamedTuple):
    """Mean and standard deviation of each channel of a video, both [3]."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, frames: Tensor) -> "Colours":
        """Colours of frames [T, H, W, 3] in 0..1, the same wherever the frames lie in memory."""
        total = square = torch.zeros(3, dtype=torch.float64)
        for frame in frames:
            pixels = frame.to("cpu", torch.float64).contiguous()
            total, square = total + pixels.sum((0, 1)), square + pixels.square().sum((0, 1))
        count = frames[..., 0].numel()
        mean = total / count
        return cls(mean, (square / count - mean.square()).clamp(min=0).sqrt())


def recoloured(frames: Tensor, source: Colours, target: Colours) -> Tensor:
    """Frames [T, H, W, 3] in 0..1, scaled and shifted by channel so that colours `source` become `target`."""
    scale = torch.where(source.deviation > _FLAT, target.deviation / source.deviation, 1.0)
    shift = target.mean - source.mean * scale
    return frames.mul(scale.to(frames)).add_(shift.to(frames)).clamp_(0, 1)
