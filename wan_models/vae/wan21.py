"""The Wan 2.1 video autoencoder (16 channels, 4 x 8 x 8 pixels per latent cell), used by all A14B and 14B models.

Source: wan/modules/vae2_1.py of the official code, whose parameter names are kept. Latents are raw here;
`normalize` and `denormalize` convert to and from what the diffusion models work on.
"""

import itertools
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from .. import ops as default_ops
from ..config import VAEConfig
from .base import LatentStatistics, VideoVAE, apply_head, head, middle
from .causal import (
    Cache,
    Downsample2d,
    Downsample3d,
    ResidualBlock,
    Upsample2d,
    Upsample3d,
    causal_conv3d,
)

LATENT_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
LATENT_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip

_STATISTICS = LatentStatistics(LATENT_MEAN, LATENT_STD)
normalize, denormalize = _STATISTICS.normalize, _STATISTICS.denormalize


class Encoder(nn.Module):
    """Pixels -> two values (mean, log variance) per latent channel."""

    def __init__(self, config: VAEConfig, ops: ModuleType, **factory: Any) -> None:
        super().__init__()
        dims = [config.base_dim * m for m in (1, *config.dim_mult)]
        self.conv1 = causal_conv3d(ops)(3, dims[0], 3, padding=1, **factory)
        levels: list[nn.Module] = []
        for i, (dim, out_dim) in enumerate(itertools.pairwise(dims)):
            levels += [ResidualBlock(dim, out_dim, ops, **factory)]
            levels += [
                ResidualBlock(out_dim, out_dim, ops, **factory) for _ in range(config.num_res_blocks - 1)
            ]
            if i < len(config.temporal_downsample):
                kind = Downsample3d if config.temporal_downsample[i] else Downsample2d
                levels.append(kind(out_dim, ops, **factory))
        self.downsamples = nn.Sequential(*levels)
        self.middle = middle(dims[-1], ops, **factory)
        self.head = head(dims[-1], config.z_dim * 2, ops, **factory)

    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        x = self.conv1(x, cache)
        for layer in (*self.downsamples, *self.middle):
            x = layer(x, cache)
        return apply_head(self.head, x, cache)


class Decoder(nn.Module):
    """Latents -> pixels."""

    def __init__(self, config: VAEConfig, ops: ModuleType, **factory: Any) -> None:
        super().__init__()
        mult = config.dim_mult[::-1]
        dims = [config.base_dim * m for m in (mult[0], *mult)]
        self.conv1 = causal_conv3d(ops)(config.z_dim, dims[0], 3, padding=1, **factory)
        self.middle = middle(dims[0], ops, **factory)
        levels: list[nn.Module] = []
        for i, (dim, out_dim) in enumerate(itertools.pairwise(dims)):
            dim = dim // 2 if i else dim  # an upsampling layer before this level has halved the channels
            levels += [ResidualBlock(dim, out_dim, ops, **factory)]
            levels += [ResidualBlock(out_dim, out_dim, ops, **factory) for _ in range(config.num_res_blocks)]
            if i < len(config.temporal_downsample):
                kind = Upsample3d if config.temporal_downsample[::-1][i] else Upsample2d
                levels.append(kind(out_dim, out_dim // 2, ops, **factory))
        self.upsamples = nn.Sequential(*levels)
        self.head = head(dims[-1], 3, ops, **factory)

    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        x = self.conv1(x, cache)
        for layer in (*self.middle, *self.upsamples):
            x = layer(x, cache)
        return apply_head(self.head, x, cache)


class WanVAE21(VideoVAE):
    """Encoder and decoder of the Wan 2.1 VAE; see `VideoVAE`."""

    def __init__(
        self,
        config: VAEConfig,
        ops: ModuleType = default_ops,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(config, ops, dtype, device=device)
        self.encoder = Encoder(config, ops, device=device, dtype=dtype)
        self.decoder = Decoder(config, ops, device=device, dtype=dtype)
