"""Decoding of a video by several processes, each of which makes a strip of its columns.

The layers at the smallest size look at whole frames and are cheap, so every process runs them on all columns. All that
follows are small convolutions: a process runs them on its strip and as many columns on either side as they can reach,
and cuts those off. The strips together equal the video decoded at once.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..vae.base import VideoVAE
from ..vae.causal import Upsample2d


def reach(decoder: nn.Module) -> int:
    """Latent columns beyond a strip that its pixels depend on: what the kernels of all layers after the smallest size
    reach to one side. 13 for the released decoders (6.5, 3.25, 1.625 and 0.875 at their four sizes)."""
    columns, width = 0.0, 1.0  # width of a column at this size, in latent columns
    layers = (*decoder.upsamples.modules(), *decoder.head.modules())  # type: ignore[union-attr]
    for layer in layers:
        if isinstance(layer, Upsample2d):
            width /= 2
        elif isinstance(layer, (nn.Conv2d, nn.Conv3d)):
            columns += layer.kernel_size[-1] // 2 * width
    return math.ceil(columns)


def strip(rank: int, world: int, width: int) -> tuple[int, int]:
    """Latent columns that process `rank` of `world` makes."""
    return rank * width // world, (rank + 1) * width // world


def decode_strip(
    vae: VideoVAE, latents: Tensor, rank: int, world: int, device: torch.device, heartbeat: Callable[[], None]
) -> Tensor:
    """Raw latents [B, z, t, h, w] -> this process's columns of the video [B, 3, T, H, W'] on the CPU; W' may be 0."""
    width = latents.shape[-1]
    first, last = strip(rank, world, width)
    beyond = reach(vae.decoder)
    low, high = max(0, first - beyond), min(width, last + beyond)
    scale = vae.config.stride[2]

    def crop(_module: nn.Module, _args: Any, out: Tensor) -> Tensor:
        return out[..., low:high].contiguous()

    if first == last:
        time, height, _ = vae.config.stride
        return latents.new_zeros(
            latents.shape[0], 3, time * (latents.shape[2] - 1) + 1, latents.shape[3] * height, 0
        )
    hook = list(vae.decoder.middle)[-1].register_forward_hook(crop)  # type: ignore[arg-type]
    try:
        pieces = []
        for _, frames in vae.decode_pieces(latents.to(device)):
            heartbeat()
            pieces.append(frames[..., (first - low) * scale : (last - low) * scale].float().cpu())
    finally:
        hook.remove()
    return torch.cat(pieces, dim=2)
