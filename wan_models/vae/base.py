"""What the Wan video autoencoders have in common: streaming over pieces of a video, and latent statistics."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import VAEConfig
from .causal import AttentionBlock, Cache, ResidualBlock, RMSNorm, causal_conv3d

OnFrames = Callable[[int, int], None]
# bytes of one full-size feature map worked on at a time: enough to keep a device busy, no more
_PIECE_BYTES = {"cpu": 32 << 20, "cuda": 512 << 20}


@dataclass(frozen=True)
class LatentStatistics:
    """Mean and standard deviation of each latent channel over the training data."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalize(self, mu: Tensor) -> Tensor:
        """Raw latents [B, C, T, H, W] -> zero mean and unit variance per channel."""
        return (mu - _per_channel(self.mean, mu)) / _per_channel(self.std, mu)

    def denormalize(self, z: Tensor) -> Tensor:
        """The inverse of `normalize`."""
        return z * _per_channel(self.std, z) + _per_channel(self.mean, z)


def _per_channel(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device, dtype=like.dtype).view(1, -1, 1, 1, 1)


def middle(dim: int, ops: ModuleType, **factory: Any) -> nn.Sequential:
    """The layers at the smallest size."""
    return nn.Sequential(
        ResidualBlock(dim, dim, ops, **factory),
        AttentionBlock(dim, ops, **factory),
        ResidualBlock(dim, dim, ops, **factory),
    )


def head(dim: int, out_dim: int, ops: ModuleType, **factory: Any) -> nn.Sequential:
    """The last layers; see `apply_head`."""
    conv = causal_conv3d(ops)(dim, out_dim, 3, padding=1, **factory)
    return nn.Sequential(RMSNorm(dim, 3, **factory), nn.Identity(), conv)


def apply_head(layers: nn.Sequential, x: Tensor, cache: Cache) -> Tensor:
    norm, _, conv = layers.children()
    return conv(F.silu(norm(x), inplace=True), cache)


class VideoVAE(nn.Module):
    """Encoder and decoder of a Wan VAE, streaming: memory does not grow with the length of the video.

    A version sets `encoder` and `decoder`, and overrides the conversions between pixels and what its layers take."""

    encoder: nn.Module
    decoder: nn.Module

    def __init__(self, config: VAEConfig, ops: ModuleType, dtype: torch.dtype | None, **factory: Any) -> None:
        super().__init__()
        conv = causal_conv3d(ops)
        self.config = config
        self.dtype = dtype or torch.get_default_dtype()
        self.conv1 = conv(config.z_dim * 2, config.z_dim * 2, 1, dtype=dtype, **factory)
        self.conv2 = conv(config.z_dim, config.z_dim, 1, dtype=dtype, **factory)

    def from_pixels(self, video: Tensor) -> Tensor:
        """Pixels -> input of the first layer."""
        return video

    def to_pixels(self, x: Tensor) -> Tensor:
        """Output of the last layer -> pixels."""
        return x

    @property
    def values_per_pixel(self) -> float:
        """Size of the widest feature map, per pixel of video."""
        return self.config.base_dim

    def encode(self, video: Tensor, on_frames: OnFrames | None = None) -> Tensor:
        """Video [B, 3, T, H, W] in -1..1 -> raw latents [B, z, 1 + (T - 1) / 4, H / stride, W / stride].

        on_frames(done, total) is called after each piece; an error raised in it ends the work and leaves nothing
        behind. Raises ValueError where T is not 4n + 1, or H or W does not divide by the stride."""
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
            moments = self.conv1(self.encoder(self.from_pixels(piece), cache), cache)
            out[:, :, start:end] = moments[:, : self.config.z_dim]
            if on_frames is not None:
                on_frames(end, cells)
        return out

    def decode(self, z: Tensor, on_frames: OnFrames | None = None) -> Tensor:
        """Raw latents [B, z, t, h, w] -> video [B, 3, 1 + 4 * (t - 1), stride * h, stride * w] in -1..1.

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
            yield end, self.to_pixels(self.decoder(x, cache)).clamp_(-1, 1)

    def _pieces(self, cells: int, pixels: int, device: torch.device) -> Iterator[tuple[int, int]]:
        """Ranges of latent frames to work on at a time; the first frame, which stands for one only, goes alone."""
        per_cell = self.config.stride[0] * pixels * self.values_per_pixel * self.dtype.itemsize
        size = max(1, int(_PIECE_BYTES.get(device.type, _PIECE_BYTES["cuda"]) // per_cell))
        yield 0, 1
        for start in range(1, cells, size):
            yield start, min(start + size, cells)
