"""Layers of the Wan video autoencoders: causal in time, so that a video streams through in pieces.

Whatever a layer must remember of the frames before lies in a `Cache` that the caller owns; the modules hold
weights only. A video in pieces gives the same result as in one: where nothing was seen yet, zeros stand.
"""

import functools
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

Cache = dict[nn.Module, Tensor]
"""Last frames that went into each causal layer, [B, C, k, H, W]."""


@functools.cache
def causal_conv3d(ops: ModuleType) -> type:
    """`ops.Conv3d` that sees only this frame and the ones before it."""

    class CausalConv3d(ops.Conv3d):  # type: ignore[misc, name-defined]
        def __init__(self, in_dim: int, out_dim: int, kernel: Any, stride: Any = 1, padding: int = 0) -> None:
            super().__init__(in_dim, out_dim, kernel, stride=stride, padding=(0, padding, padding))

        def forward(self, x: Tensor, cache: Cache) -> Tensor:
            """x [B, C, T, H, W], the frames that follow the last call's -> [B, C_out, T, H, W]."""
            past = self.kernel_size[0] - 1
            if past:
                before = cache.get(self)
                if before is None:
                    before = x.new_zeros(*x.shape[:2], past, *x.shape[3:])
                x = torch.cat([before, x], dim=2)
                cache[self] = x[:, :, -past:].clone()  # a view would keep the whole piece in memory
            return self.slide(x)

        def slide(self, x: Tensor) -> Tensor:
            """The kernel over these very frames, none before them: [B, C, T, H, W] -> T / stride less its ends."""
            return super().forward(x)

        def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None, **options: Any) -> Tensor:
            # left to itself torch takes its slow kernel for narrow layers on a CPU, up to 17 times slower
            if x.device.type == "cpu" and torch.backends.mkldnn.is_available():
                return torch.mkldnn_convolution(x, weight, bias, self.padding, self.stride, self.dilation, 1)
            # newer hosts' layers have options of their own
            return super()._conv_forward(x, weight, bias, **options)

    return CausalConv3d


class RMSNorm(nn.Module):
    """Scales each position's channels to unit RMS, times a learnt factor per channel. [B, C, ...] in and out."""

    def __init__(self, dim: int, spatial_dims: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim, *[1] * spatial_dims))

    def forward(self, x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(1e-12)
        return (x * (norm.reciprocal() * x.shape[1] ** 0.5)).mul_(self.gamma.to(x))


class ResidualBlock(nn.Module):
    """norm, SiLU, conv, norm, SiLU, conv, beside a shortcut."""

    def __init__(self, in_dim: int, out_dim: int, ops: ModuleType) -> None:
        super().__init__()
        conv = causal_conv3d(ops)
        # places 1, 4 and 5 hold what has no weights, so that the others get the official numbers
        self.residual = nn.Sequential(
            RMSNorm(in_dim, 3),
            nn.Identity(),
            conv(in_dim, out_dim, 3, padding=1),
            RMSNorm(out_dim, 3),
            nn.Identity(),
            nn.Identity(),
            conv(out_dim, out_dim, 3, padding=1),
        )
        self.shortcut = conv(in_dim, out_dim, 1) if in_dim != out_dim else None

    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        norm1, _, conv1, norm2, _, _, conv2 = self.residual
        h = conv1(F.silu(norm1(x), inplace=True), cache)
        h = conv2(F.silu(norm2(h), inplace=True), cache)
        return h.add_(x if self.shortcut is None else self.shortcut(x, cache))


class AttentionBlock(nn.Module):
    """Self-attention with one head over the positions of each frame."""

    def __init__(self, dim: int, ops: ModuleType) -> None:
        super().__init__()
        self.norm = RMSNorm(dim, 2)
        self.to_qkv = ops.Conv2d(dim, dim * 3, 1)
        self.proj = ops.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        frames = per_frame(x)
        qkv = rearrange(self.to_qkv(self.norm(frames)), "n c h w -> n 1 (h w) c")
        out = F.scaled_dot_product_attention(*qkv.chunk(3, dim=-1))
        out = self.proj(rearrange(out, "n 1 (h w) c -> n c h w", h=x.shape[3]))
        return x + per_video(out, x.shape[0])


class Upsample2d(nn.Module):
    """Height and width doubled, frame by frame."""

    def __init__(self, dim: int, out_dim: int, ops: ModuleType) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.Identity(), ops.Conv2d(dim, out_dim, 3, padding=1))

    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        wide = F.interpolate(per_frame(x), scale_factor=2.0, mode="nearest-exact")
        return per_video(self.resample[1](wide), x.shape[0])


class Upsample3d(Upsample2d):
    """The same, and every frame but the video's first becomes two."""

    def __init__(self, dim: int, out_dim: int, ops: ModuleType) -> None:
        super().__init__(dim, out_dim, ops)
        self.time_conv = causal_conv3d(ops)(dim, dim * 2, (3, 1, 1))

    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        if self not in cache:  # the very first frame stays single, and is no past for the others
            cache[self] = x.new_empty(0)
            first, x = x[:, :, :1], x[:, :, 1:]
            return super().forward(
                torch.cat([first, self._double(x, cache)], 2) if x.shape[2] else first, cache
            )
        return super().forward(self._double(x, cache), cache)

    def _double(self, x: Tensor, cache: Cache) -> Tensor:
        return rearrange(self.time_conv(x, cache), "b (k c) t h w -> b c (t k) h w", k=2)


class Downsample2d(nn.Module):
    """Height and width halved, frame by frame."""

    def __init__(self, dim: int, ops: ModuleType) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.Identity(), ops.Conv2d(dim, dim, 3, stride=2))

    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        return per_video(self.resample[1](F.pad(per_frame(x), (0, 1, 0, 1))), x.shape[0])


class Downsample3d(Downsample2d):
    """The same, and every two frames after the video's first become one."""

    def __init__(self, dim: int, ops: ModuleType) -> None:
        super().__init__(dim, ops)
        self.time_conv = causal_conv3d(ops)(dim, dim, (3, 1, 1), stride=(2, 1, 1))

    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        x = super().forward(x, cache)
        before = cache.get(self)
        cache[self] = x[:, :, -1:].clone()
        if before is not None:
            return self.time_conv.slide(torch.cat([before, x], dim=2))
        first = x[:, :, :1]
        return torch.cat([first, self.time_conv.slide(x)], dim=2) if x.shape[2] > 1 else first


def per_frame(x: Tensor) -> Tensor:
    """[B, C, T, H, W] -> [B * T, C, H, W]."""
    return rearrange(x, "b c t h w -> (b t) c h w")


def per_video(x: Tensor, batch: int) -> Tensor:
    """[B * T, C, H, W] -> [B, C, T, H, W]."""
    return rearrange(x, "(b t) c h w -> b c t h w", b=batch)
