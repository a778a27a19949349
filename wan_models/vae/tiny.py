"""Tiny autoencoders (TAE) for the latents of the Wan VAEs: a small part of the work, for previews and drafts.

All layers work on single frames, [B, T, C, H, W] here; what one remembers of the frame before lies in a `Cache` that
the caller owns, as in `causal`. Source: TAEHV by Ollin Boer Bohan (github.com/madebyollin/taehv, MIT), whose parameter
names are kept; LightX2V has trained weights of its own for it, on raw latents.
"""

from collections.abc import Iterator
from types import ModuleType

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .. import ops as default_ops
from ..config import TinyVAEConfig
from .streaming import Autoencoder
from .wan21 import STATISTICS as STATISTICS_21
from .wan22 import STATISTICS as STATISTICS_22

Cache = dict[nn.Module, Tensor]
"""The last frame that went into each block with a memory, [B, 1, C, H, W] each."""

_STATISTICS = {"2.1": STATISTICS_21, "2.2": STATISTICS_22}
# frames that become one at each halving of the encoder, and that one becomes at each doubling of the decoder
_JOINED, _MADE = (2, 2, 1), (1, 2, 2)
# full-size feature maps alive at the widest point, for each frame of a piece
_MAPS = 3.5


class Limit(nn.Module):
    """Keeps latents within -3..3, softly."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return torch.tanh(x / 3) * 3


class MemoryBlock(nn.Module):
    """Three convolutions over each frame and the one before it, beside a shortcut."""

    def __init__(self, dim: int, ops: ModuleType) -> None:
        super().__init__()
        # places 1 and 3 hold what has no weights, so that the others get the official numbers
        self.conv = nn.Sequential(
            ops.Conv2d(2 * dim, dim, 3, padding=1),
            nn.ReLU(inplace=True),
            ops.Conv2d(dim, dim, 3, padding=1),
            nn.ReLU(inplace=True),
            ops.Conv2d(dim, dim, 3, padding=1),
        )

    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        """x [B, T, C, H, W], the frames that follow the last call's -> the same shape."""
        before = cache.get(self)
        past = torch.cat([torch.zeros_like(x[:, :1]) if before is None else before, x[:, :-1]], dim=1)
        cache[self] = x[:, -1:].clone()  # a view would keep all frames of x in memory
        out = self.conv(rearrange(torch.cat([x, past], dim=2), "b t c h w -> (b t) c h w"))
        return F.relu(out.view_as(x).add_(x), inplace=True)


class Join(nn.Module):
    """Makes one frame of each `frames`."""

    def __init__(self, dim: int, frames: int, ops: ModuleType) -> None:
        super().__init__()
        self.frames = frames
        self.conv = ops.Conv2d(dim * frames, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [B * T, C, H, W] -> [B * T / frames, C, H, W]."""
        return self.conv(rearrange(x, "(n s) c h w -> n (s c) h w", s=self.frames))


class Spread(nn.Module):
    """Makes so many `frames` of each one."""

    def __init__(self, dim: int, frames: int, ops: ModuleType) -> None:
        super().__init__()
        self.frames = frames
        self.conv = ops.Conv2d(dim, dim * frames, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [B * T, C, H, W] -> [B * T * frames, C, H, W]."""
        return rearrange(self.conv(x), "n (s c) h w -> (n s) c h w", s=self.frames)


def encoder(config: TinyVAEConfig, ops: ModuleType) -> nn.Sequential:
    """The layers from pixels in 0..1, patch x patch of them as channels, to latents."""
    dim = config.enc_dim
    layers: list[nn.Module] = [ops.Conv2d(3 * config.patch**2, dim, 3, padding=1), nn.ReLU(inplace=True)]
    for frames in _JOINED:
        layers += [Join(dim, frames, ops), ops.Conv2d(dim, dim, 3, stride=2, padding=1, bias=False)]
        layers += [MemoryBlock(dim, ops) for _ in range(3)]
    return nn.Sequential(*layers, ops.Conv2d(dim, config.z_dim, 3, padding=1))


def decoder(config: TinyVAEConfig, ops: ModuleType) -> nn.Sequential:
    """The layers from latents to pixels, as `encoder` takes them."""
    dims = config.dec_dims
    layers: list[nn.Module] = [
        Limit(),
        ops.Conv2d(config.z_dim, dims[0], 3, padding=1),
        nn.ReLU(inplace=True),
    ]
    for dim, out_dim, frames in zip(dims, dims[1:], _MADE, strict=False):
        layers += [MemoryBlock(dim, ops) for _ in range(3)]
        layers += [nn.Upsample(scale_factor=2), Spread(dim, frames, ops)]
        layers.append(ops.Conv2d(dim, out_dim, 3, padding=1, bias=False))
    return nn.Sequential(
        *layers, nn.ReLU(inplace=True), ops.Conv2d(dims[-1], 3 * config.patch**2, 3, padding=1)
    )


def _run(layers: nn.Sequential, x: Tensor, cache: Cache) -> Tensor:
    """Frames [B, T, C, H, W] through layers that take single ones, and through blocks with a memory."""
    batch = x.shape[0]
    for layer in layers:
        if isinstance(layer, MemoryBlock):
            x = layer(x, cache)
        else:
            frames = layer(rearrange(x, "b t c h w -> (b t) c h w"))
            x = rearrange(frames, "(b t) c h w -> b t c h w", b=batch)
    return x


class TinyVAE(Autoencoder):
    """Encoder, where the file has one, and decoder of a tiny autoencoder; see `Autoencoder`."""

    config: TinyVAEConfig

    def __init__(self, config: TinyVAEConfig, ops: ModuleType = default_ops) -> None:
        super().__init__(config)
        self.statistics = _STATISTICS[config.version]
        self.encoder = encoder(config, ops) if config.enc_dim else None
        self.decoder = decoder(config, ops)

    @property
    def dtype(self) -> torch.dtype:
        return self.decoder[1].weight.dtype  # type: ignore[return-value]

    @property
    def values_per_pixel(self) -> float:
        return max((*self.config.dec_dims[-2:], self.config.enc_dim)) / self.config.patch**2

    def peak_bytes(self, task: str, frames: int, pixels: int, itemsize: int) -> int:
        """As of `Autoencoder`: a bound."""
        pieces = self.pieces((frames + 3) // 4, pixels, torch.device("cuda"))
        cells = max(end - start for start, end in pieces)
        return (
            int(_MAPS * 4 * cells * pixels * self.values_per_pixel * itemsize)
            + 3 * frames * pixels * itemsize
        )

    def encode_pieces(self, video: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Pieces as of `Autoencoder`; the last frame is repeated to the four that make a latent frame. Raises
        ValueError where the file has no encoder."""
        if self.encoder is None:
            raise ValueError(
                "this tiny autoencoder has a decoder only, and cannot encode: encode with the Wan "
                f"{self.config.version} VAE, whose latents are the same"
            )
        cache: Cache = {}
        pixels = video.shape[0] * video.shape[3] * video.shape[4]
        for start, end in self.pieces((video.shape[2] + 3) // 4, pixels, video.device):
            frames = rearrange(video[:, :, 4 * start : 4 * end], "b c t h w -> b t c h w").to(self.dtype)
            missing = 4 * (end - start) - frames.shape[1]
            frames = torch.cat([frames, frames[:, -1:].expand(-1, missing, -1, -1, -1)], dim=1)
            x = F.pixel_unshuffle((frames + 1) / 2, self.config.patch)
            z = rearrange(_run(self.encoder, x, cache), "b t c h w -> b c t h w")
            yield end, z if self.config.raw else self.statistics.denormalize(z)

    def decode_pieces(self, z: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Pieces as of `Autoencoder`; of the four frames that the first latent frame gives the last one counts."""
        cache: Cache = {}
        pixels = z.shape[0] * z.shape[3] * z.shape[4] * self.config.stride[1] * self.config.stride[2]
        for start, end in self.pieces(z.shape[2], pixels, z.device):
            part = z[:, :, start:end].to(self.dtype)
            part = part if self.config.raw else self.statistics.normalize(part)
            x = _run(self.decoder, rearrange(part, "b c t h w -> b t c h w"), cache)
            frames = rearrange(F.pixel_shuffle(x, self.config.patch), "b t c h w -> b c t h w")
            yield end, (frames if start else frames[:, :, 3:]).mul(2).sub_(1).clamp_(-1, 1)
