"""Decoding of a video by several processes, each of which makes a strip of its columns.

The layers at the smallest size look at whole frames and are cheap, so every process runs them on all columns. All that
follows are small convolutions: a process runs them on its strip and as many columns on either side as they can reach,
and cuts those off. The strips together equal the video decoded at once.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..vae.base import VideoVAE


def strip(rank: int, world: int, width: int) -> tuple[int, int]:
    """Latent columns that process `rank` of `world` makes."""
    return rank * width // world, (rank + 1) * width // world


def decode_strip(
    vae: VideoVAE, latents: Tensor, rank: int, world: int, device: torch.device, heartbeat: Callable[[], None]
) -> Tensor:
    """Raw latents [B, z, t, h, w] -> this process's columns of the video [B, 3, T, H, W'] on the CPU; W' may be 0."""
    width = latents.shape[-1]
    first, last = strip(rank, world, width)
    low, high = max(0, first - vae.decoder.reach), min(width, last + vae.decoder.reach)
    scale = vae.config.stride[2]
    if first == last:
        time, height, _ = vae.config.stride
        return latents.new_zeros(
            latents.shape[0], 3, time * (latents.shape[2] - 1) + 1, latents.shape[3] * height, 0
        )
    pieces = []
    for _, frames in vae.decode_pieces(latents.to(device), slice(low, high)):
        heartbeat()
        pieces.append(frames[..., (first - low) * scale : (last - low) * scale].float().cpu())
    return torch.cat(pieces, dim=2)
