"""The Wan 2.2 video autoencoder (48 channels, 4 x 16 x 16 pixels per latent cell) of TI2V-5B.

Beside the 2.1 VAE it works on patches of 2 x 2 pixels, and each level has a shortcut without weights: values
are averaged in groups on the way down and repeated on the way up. Source: wan/modules/vae2_2.py of the official
code, whose parameter names are kept. Latents are raw here, as in `wan21`.
"""

import itertools
import math
from collections.abc import Iterator
from types import ModuleType

import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from torch import Tensor, nn

from ..config import VAEConfig
from .base import Decoder, Encoder, VideoVAE
from .causal import Cache, Downsample2d, Downsample3d, ResidualBlock, Upsample2d, Upsample3d
from .streaming import LatentStatistics

PATCH = 2
STATISTICS = LatentStatistics(
    mean=(
        -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
        0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
        -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723,
        -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
    ),
    std=(
        0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
        0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
        0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
        0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
    ),
)  # fmt: skip
LATENT_MEAN, LATENT_STD = STATISTICS.mean, STATISTICS.std
normalize, denormalize = STATISTICS.normalize, STATISTICS.denormalize


def average_down(x: Tensor, out_dim: int, time: int, space: int) -> Tensor:
    """[B, C, T, H, W] -> [B, out_dim, T / time, H / space, W / space]: each cell of time x space x space values of
    each channel becomes channels, which are averaged in groups. A missing first frame counts as zeros."""
    x = F.pad(x, (0, 0, 0, 0, -x.shape[2] % time, 0))
    values = rearrange(x, "b c (t p) (h q) (w r) -> b (c p q r) t h w", p=time, q=space, r=space)
    return reduce(values, "b (o g) t h w -> b o t h w", "mean", o=out_dim)


def repeat_up(x: Tensor, out_dim: int, time: int, space: int, first: bool) -> Tensor:
    """The way back, each value repeated: [B, C, T, H, W] -> [B, out_dim, T * time, H * space, W * space].

    The `first` frame of a video stands for one frame, not for `time`."""
    values = repeat(x, "b c t h w -> b (c k) t h w", k=out_dim * time * space**2 // x.shape[1])
    out = rearrange(values, "b (c p q r) t h w -> b c (t p) (h q) (w r)", p=time, q=space, r=space)
    return out[:, :, time - 1 :] if first else out


class DownLevel(nn.Module):
    """Residual blocks and a halving, beside averages in groups."""

    def __init__(
        self, in_dim: int, out_dim: int, blocks: int, time: bool, space: bool, ops: ModuleType
    ) -> None:
        super().__init__()
        self.out_dim, self.factors = out_dim, (2 if time else 1, 2 if space else 1)
        dims = (in_dim, *[out_dim] * blocks)
        layers: list[nn.Module] = [ResidualBlock(a, b, ops) for a, b in itertools.pairwise(dims)]
        if space:
            layers.append((Downsample3d if time else Downsample2d)(out_dim, ops))
        self.downsamples = nn.Sequential(*layers)

    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        """x [B, C, T, H, W], the frames that follow the last call's -> [B, out_dim, T / 2, H / 2, W / 2].

        A level that does not halve time or space leaves T, or H and W, as they are; one that halves time gives
        (T + 1) / 2 frames in the video's first call."""
        shortcut = average_down(x, self.out_dim, *self.factors)
        for layer in self.downsamples:
            x = layer(x, cache)
        return x.add_(shortcut)


class UpLevel(nn.Module):
    """Residual blocks and a doubling, beside repeated values; the last level neither doubles nor repeats."""

    def __init__(
        self, in_dim: int, out_dim: int, blocks: int, time: bool, space: bool, ops: ModuleType
    ) -> None:
        super().__init__()
        self.out_dim, self.factors = out_dim, (2 if time else 1, 2) if space else None
        dims = (in_dim, *[out_dim] * blocks)
        layers: list[nn.Module] = [ResidualBlock(a, b, ops) for a, b in itertools.pairwise(dims)]
        if space:
            layers.append((Upsample3d if time else Upsample2d)(out_dim, out_dim, ops))
        self.upsamples = nn.Sequential(*layers)

    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        """x [B, C, T, H, W], the frames that follow the last call's -> [B, out_dim, 2 T, 2 H, 2 W].

        A level that does not double time or space leaves T, or H and W, as they are; one that doubles time gives
        2 T - 1 frames in the video's first call."""
        first = self not in cache
        cache[self] = ()
        out = x
        for layer in self.upsamples:
            out = layer(out, cache)
        if self.factors:  # by groups of channels: so many repeated values take much memory
            groups = math.gcd(4, x.shape[1], self.out_dim)
            width = out.shape[1] // groups
            for group, some in enumerate(x.chunk(groups, dim=1)):
                into = out.narrow(
                    1, group * width, width
                )  # gradients may flow back through it, unlike through chunks
                into.add_(repeat_up(some, width, *self.factors, first))
        return out


class Encoder22(Encoder):
    """Patches -> two values (mean, log variance) per latent channel."""

    in_dim = 3 * PATCH**2

    def levels(self, config: VAEConfig, dims: list[int], ops: ModuleType) -> Iterator[nn.Module]:
        time = (*config.temporal_downsample, False)
        for i, (dim, out_dim) in enumerate(itertools.pairwise(dims)):
            yield DownLevel(dim, out_dim, config.num_res_blocks, time[i], i < len(dims) - 2, ops)


class Decoder22(Decoder):
    """Latents -> patches."""

    out_dim = 3 * PATCH**2

    def levels(self, config: VAEConfig, dims: list[int], ops: ModuleType) -> Iterator[nn.Module]:
        time = (*config.temporal_downsample[::-1], False)
        for i, (dim, out_dim) in enumerate(itertools.pairwise(dims)):
            yield UpLevel(dim, out_dim, config.num_res_blocks + 1, time[i], i < len(dims) - 2, ops)


class WanVAE22(VideoVAE):
    """Encoder and decoder of the Wan 2.2 VAE; see `VideoVAE`."""

    encoder_class = Encoder22
    decoder_class = Decoder22
    statistics = STATISTICS
    maps = {"decode": (38.8, 12.7, 0.65), "encode": (25.6, 9.0, 0.6)}

    @property
    def values_per_pixel(self) -> float:
        return max(self.config.base_dim, self.config.dec_dim or 0) / PATCH**2

    def from_pixels(self, video: Tensor) -> Tensor:
        """[B, 3, T, H, W] -> [B, 12, T, H / 2, W / 2]: the four pixels of a patch column by column."""
        return rearrange(video, "b c t (h q) (w r) -> b (c r q) t h w", q=PATCH, r=PATCH)

    def to_pixels(self, x: Tensor) -> Tensor:
        """[B, 12, T, H, W] -> [B, 3, T, 2 H, 2 W]: the inverse of `from_pixels`."""
        return rearrange(x, "b (c r q) t h w -> b c t (h q) (w r)", q=PATCH, r=PATCH)
