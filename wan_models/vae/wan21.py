"""The Wan 2.1 video autoencoder (16 channels, 4 x 8 x 8 pixels per latent cell), used by all A14B and 14B models.

Source: wan/modules/vae2_1.py of the official code, whose parameter names are kept. Latents are raw here;
`normalize` and `denormalize` convert to and from what the diffusion models work on.
"""

import itertools
from collections.abc import Iterator
from types import ModuleType

from torch import nn

from ..config import VAEConfig
from .base import Decoder, Encoder, VideoVAE
from .causal import Downsample2d, Downsample3d, ResidualBlock, Upsample2d, Upsample3d
from .streaming import LatentStatistics

LATENT_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
LATENT_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip

STATISTICS = LatentStatistics(LATENT_MEAN, LATENT_STD)
normalize, denormalize = STATISTICS.normalize, STATISTICS.denormalize


class Encoder21(Encoder):
    """Pixels -> two values (mean, log variance) per latent channel."""

    def levels(self, config: VAEConfig, dims: list[int], ops: ModuleType) -> Iterator[nn.Module]:
        for i, (dim, out_dim) in enumerate(itertools.pairwise(dims)):
            yield ResidualBlock(dim, out_dim, ops)
            yield from (ResidualBlock(out_dim, out_dim, ops) for _ in range(config.num_res_blocks - 1))
            if i < len(config.temporal_downsample):
                yield (Downsample3d if config.temporal_downsample[i] else Downsample2d)(out_dim, ops)


class Decoder21(Decoder):
    """Latents -> pixels."""

    def levels(self, config: VAEConfig, dims: list[int], ops: ModuleType) -> Iterator[nn.Module]:
        for i, (dim, out_dim) in enumerate(itertools.pairwise(dims)):
            dim = dim // 2 if i else dim  # an upsampling layer before this level has halved the channels
            yield ResidualBlock(dim, out_dim, ops)
            yield from (ResidualBlock(out_dim, out_dim, ops) for _ in range(config.num_res_blocks))
            if i < len(config.temporal_downsample):
                kind = Upsample3d if config.temporal_downsample[::-1][i] else Upsample2d
                yield kind(out_dim, out_dim // 2, ops)


class WanVAE21(VideoVAE):
    """Encoder and decoder of the Wan 2.1 VAE; see `VideoVAE`."""

    encoder_class = Encoder21
    decoder_class = Decoder21
    statistics = STATISTICS
    maps = {"decode": (31.5, 6.5, 0.5), "encode": (20.9, 6.5, 0.5)}
