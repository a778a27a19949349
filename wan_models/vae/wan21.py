"""The Wan 2.1 video autoencoder (16 channels, 4 x 8 x 8 pixels per latent cell), used by all A14B and 14B models.

Source: wan/modules/vae2_1.py of the official code, whose parameter names are kept. Latents are raw here;
`normalize` and `denormalize` convert to and from what the diffusion models work on.
"""

import itertools
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops as default_ops
from ..config import VAEConfig
from .causal import (
    AttentionBlock,
    Cache,
    Downsample2d,
    Downsample3d,
    ResidualBlock,
    RMSNorm,
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

OnFrames = Callable[[int, int], None]
# bytes of one full-size feature map worked on at a time: enough to keep a device busy, no more
_PIECE_BYTES = {"cpu": 32 << 20, "cuda": 512 << 20}


def _per_channel(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device, dtype=like.dtype).view(1, -1, 1, 1, 1)


def normalize(mu: Tensor) -> Tensor:
    """Raw latents [B, 16, T, H, W] -> zero mean and unit variance per channel."""
    return (mu - _per_channel(LATENT_MEAN, mu)) / _per_channel(LATENT_STD, mu)


def denormalize(z: Tensor) -> Tensor:
    """The inverse of `normalize`."""
    return z * _per_channel(LATENT_STD, z) + _per_channel(LATENT_MEAN, z)


def _middle(dim: int, ops: ModuleType, **factory: Any) -> nn.Sequential:
    return nn.Sequential(
        ResidualBlock(dim, dim, ops, **factory),
        AttentionBlock(dim, ops, **factory),
        ResidualBlock(dim, dim, ops, **factory),
    )


def _head(dim: int, out_dim: int, ops: ModuleType, **factory: Any) -> nn.Sequential:
    conv = causal_conv3d(ops)(dim, out_dim, 3, padding=1, **factory)
    return nn.Sequential(RMSNorm(dim, 3, **factory), nn.Identity(), conv)


def _apply_head(head: nn.Sequential, x: Tensor, cache: Cache) -> Tensor:
    norm, _, conv = head.children()
    return conv(F.silu(norm(x), inplace=True), cache)


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
        self.middle = _middle(dims[-1], ops, **factory)
        self.head = _head(dims[-1], config.z_dim * 2, ops, **factory)

    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        x = self.conv1(x, cache)
        for layer in (*self.downsamples, *self.middle):
            x = layer(x, cache)
        return _apply_head(self.head, x, cache)


class Decoder(nn.Module):
    """Latents -> pixels."""

    def __init__(self, config: VAEConfig, ops: ModuleType, **factory: Any) -> None:
        super().__init__()
        mult = config.dim_mult[::-1]
        dims = [config.base_dim * m for m in (mult[0], *mult)]
        self.conv1 = causal_conv3d(ops)(config.z_dim, dims[0], 3, padding=1, **factory)
        self.middle = _middle(dims[0], ops, **factory)
        levels: list[nn.Module] = []
        for i, (dim, out_dim) in enumerate(itertools.pairwise(dims)):
            dim = dim // 2 if i else dim  # an upsampling layer before this level has halved the channels
            levels += [ResidualBlock(dim, out_dim, ops, **factory)]
            levels += [ResidualBlock(out_dim, out_dim, ops, **factory) for _ in range(config.num_res_blocks)]
            if i < len(config.temporal_downsample):
                kind = Upsample3d if config.temporal_downsample[::-1][i] else Upsample2d
                levels.append(kind(out_dim, ops, **factory))
        self.upsamples = nn.Sequential(*levels)
        self.head = _head(dims[-1], 3, ops, **factory)

    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        x = self.conv1(x, cache)
        for layer in (*self.middle, *self.upsamples):
            x = layer(x, cache)
        return _apply_head(self.head, x, cache)


class WanVAE21(nn.Module):
    """Encoder and decoder of the Wan 2.1 VAE, streaming: memory does not grow with the length of the video."""

    def __init__(
        self,
        config: VAEConfig,
        ops: ModuleType = default_ops,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        conv = causal_conv3d(ops)
        self.config = config
        self.dtype = dtype or torch.get_default_dtype()
        self.encoder = Encoder(config, ops, **factory)
        self.conv1 = conv(config.z_dim * 2, config.z_dim * 2, 1, **factory)
        self.conv2 = conv(config.z_dim, config.z_dim, 1, **factory)
        self.decoder = Decoder(config, ops, **factory)

    def encode(self, video: Tensor, on_frames: OnFrames | None = None) -> Tensor:
        """Video [B, 3, T, H, W] in -1..1 -> raw latents [B, z, 1 + (T - 1) / 4, H / 8, W / 8].

        on_frames(done, total) is called after each piece; an error raised in it ends the work and leaves nothing
        behind. Raises ValueError where T is not 4n + 1, or H or W does not divide by 8."""
        time, height, width = self.config.stride
        frames = video.shape[2]
        if frames % time != 1 or video.shape[3] % height or video.shape[4] % width:
            raise ValueError(
                f"the VAE encodes {time}n + 1 frames of a size that divides by {height}, not {frames} frames of "
                f"{video.shape[4]}x{video.shape[3]}"
            )
        cells = (frames + time - 1) // time
        out = video.new_empty(
            video.shape[0],
            self.config.z_dim,
            cells,
            video.shape[3] // height,
            video.shape[4] // width,
            dtype=self.dtype,
        )
        cache: Cache = {}
        for start, end in self._pieces(cells, video.shape[0] * video.shape[3] * video.shape[4], video.device):
            piece = video[:, :, max(0, time * (start - 1) + 1) : time * (end - 1) + 1].to(self.dtype)
            moments = self.conv1(self.encoder(piece, cache), cache)
            out[:, :, start:end] = moments[:, : self.config.z_dim]
            if on_frames is not None:
                on_frames(end, cells)
        return out

    def decode(self, z: Tensor, on_frames: OnFrames | None = None) -> Tensor:
        """Raw latents [B, z, t, h, w] -> video [B, 3, 1 + 4 * (t - 1), 8 * h, 8 * w] in -1..1.

        on_frames as in `encode`."""
        time, height, width = self.config.stride
        cells = z.shape[2]
        out = z.new_empty(
            z.shape[0], 3, time * (cells - 1) + 1, z.shape[3] * height, z.shape[4] * width, dtype=self.dtype
        )
        done = 0
        for end, frames in self.decode_pieces(z):
            out[:, :, done : done + frames.shape[2]] = frames
            done += frames.shape[2]
            if on_frames is not None:
                on_frames(end, cells)
        return out

    def decode_pieces(self, z: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The frames of `decode` piece by piece, each with the number of latent frames done so far."""
        _, height, width = self.config.stride
        cache: Cache = {}
        pixels = z.shape[0] * z.shape[3] * height * z.shape[4] * width
        for start, end in self._pieces(z.shape[2], pixels, z.device):
            x = self.conv2(z[:, :, start:end].to(self.dtype), cache)
            yield end, self.decoder(x, cache).clamp_(-1, 1)

    def _pieces(self, cells: int, pixels: int, device: torch.device) -> Iterator[tuple[int, int]]:
        """Ranges of latent frames to work on at a time; the first frame, which stands for one only, goes alone."""
        per_cell = self.config.stride[0] * pixels * self.config.base_dim * self.dtype.itemsize
        size = max(1, _PIECE_BYTES.get(device.type, _PIECE_BYTES["cuda"]) // per_cell)
        yield 0, 1
        for start in range(1, cells, size):
            yield start, min(start + size, cells)
