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

Cache = dict[nn.Module, tuple[Tensor, ...]]
"""Last frames that went into each causal layer, [B, C, 1, H, W] each."""

# bytes of the frames that a convolution puts together at a time where memory is short
_STRIP_BYTES = 48 << 20


def _has_fast_kernel(x: Tensor) -> bool:
    """Whether oneDNN convolves it: 16-bit numbers only on CPUs that have instructions for them."""
    if x.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    support = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
    return x.dtype == torch.float32 or (x.dtype in support and getattr(torch.ops.mkldnn, support[x.dtype])())


def _is_short(device: torch.device) -> bool:
    """Whether a device's memory is: a CPU has more of it, and large calls are faster on it."""
    return device.type != "cpu"


@functools.cache
def causal_conv3d(ops: ModuleType) -> type:
    """`ops.Conv3d` that sees only this frame and the ones before it."""

    class CausalConv3d(ops.Conv3d):  # type: ignore[misc, name-defined]
        def __init__(self, in_dim: int, out_dim: int, kernel: Any, stride: Any = 1, padding: int = 0) -> None:
            super().__init__(in_dim, out_dim, kernel, stride=stride, padding=(0, padding, padding))

        def forward(self, x: Tensor, cache: Cache) -> Tensor:
            """x [B, C, T, H, W], the frames that follow the last call's -> [B, C_out, T, H, W]."""
            past = self.kernel_size[0] - 1
            if not past:
                return self.slide(x)
            before = cache.get(self) or (x.new_zeros(*x.shape[:2], 1, *x.shape[3:]),) * past
            recent = (*before, *x[:, :, -past:].split(1, dim=2))[-past:]
            # copies of several, as views of them would keep all frames of x in memory
            cache[self] = recent if x.shape[2] == 1 else tuple(frame.clone() for frame in recent)
            return self._in_strips(x, before)

        def _in_strips(self, x: Tensor, before: tuple[Tensor, ...]) -> Tensor:
            """The kernel over the frames before and x, which are put together only some rows at a time."""
            height, halo = x.shape[3], self.padding[1]
            together = sum(part.nbytes for part in (*before, x))
            rows = max(1, height * _STRIP_BYTES // together)
            if rows >= height or not _is_short(x.device):
                return self.slide(torch.cat([*before, x], dim=2))
            out = x.new_empty(x.shape[0], self.out_channels, *x.shape[2:])
            for top in range(0, height, rows):
                bottom = min(top + rows, height)
                above = min(halo, top)
                strip = [part[:, :, :, top - above : bottom + halo] for part in (*before, x)]
                out[:, :, :, top:bottom] = self.slide(torch.cat(strip, dim=2))[
                    :, :, :, above : above + bottom - top
                ]
            return out

        def slide(self, x: Tensor) -> Tensor:
            """The kernel over these very frames, none before them: [B, C, T, H, W] -> T / stride less its ends."""
            return super().forward(x)

        def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None, **options: Any) -> Tensor:
            # left to itself torch takes its slow kernel for narrow layers on a CPU, up to 17 times slower
            if _has_fast_kernel(x):
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
        """x [B, C, ...] -> the same shape."""
        if x.device.type == "cpu" and x.dtype == torch.float32:
            # torch's own norm takes position by position there, up to 35 times slower
            norm = x.square().sum(dim=1, keepdim=True).clamp_min_(1e-24).sqrt_()
        else:
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
        """x [B, C, T, H, W], the frames that follow the last call's -> [B, C_out, T, H, W]."""
        norm1, _, conv1, norm2, _, _, conv2 = self.residual
        h = conv1(F.silu(norm1(x), inplace=True), cache)
        h = norm2(h)  # by itself, so that what went in is gone before the convolution
        h = conv2(F.silu(h, inplace=True), cache)
        return h.add_(x if self.shortcut is None else self.shortcut(x, cache))


class AttentionBlock(nn.Module):
    """Self-attention with one head over the positions of each frame."""

    def __init__(self, dim: int, ops: ModuleType) -> None:
        super().__init__()
        self.norm = RMSNorm(dim, 2)
        self.to_qkv = ops.Conv2d(dim, dim * 3, 1)
        self.proj = ops.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        """x [B, C, T, H, W] -> the same shape; the cache is not used."""
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
        """x [B, C, T, H, W] -> [B, C_out, T, 2 H, 2 W]; the cache is not used."""
        frames = per_frame(x)
        together = max(1, _STRIP_BYTES // (4 * frames[0].nbytes)) if _is_short(x.device) else len(frames)
        if together >= len(frames):
            return per_video(self._doubled(frames), x.shape[0])
        height, width = frames.shape[2:]
        channels: int = self.resample[1].out_channels  # type: ignore[assignment]
        out = x.new_empty(len(frames), channels, 2 * height, 2 * width)
        for start in range(0, len(frames), together):
            out[start : start + together] = self._doubled(frames[start : start + together])
        return per_video(out, x.shape[0])

    def _doubled(self, frames: Tensor) -> Tensor:
        return self.resample[1](F.interpolate(frames, scale_factor=2.0, mode="nearest-exact"))


class Upsample3d(Upsample2d):
    """The same, and every frame but the video's first becomes two."""

    def __init__(self, dim: int, out_dim: int, ops: ModuleType) -> None:
        super().__init__(dim, out_dim, ops)
        self.time_conv = causal_conv3d(ops)(dim, dim * 2, (3, 1, 1))

    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        """x [B, C, T, H, W], the frames that follow the last call's -> [B, C_out, 2 T, 2 H, 2 W].

        The video's first call gives 2 T - 1 frames."""
        if self not in cache:  # the very first frame stays single, and is no past for the others
            cache[self] = ()
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
        """x [B, C, T, H, W] -> [B, C, T, H / 2, W / 2]; the cache is not used."""
        return per_video(self.resample[1](F.pad(per_frame(x), (0, 1, 0, 1))), x.shape[0])


class Downsample3d(Downsample2d):
    """The same, and every two frames after the video's first become one."""

    def __init__(self, dim: int, ops: ModuleType) -> None:
        super().__init__(dim, ops)
        self.time_conv = causal_conv3d(ops)(dim, dim, (3, 1, 1), stride=(2, 1, 1))

    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        """x [B, C, T, H, W], the frames that follow the last call's -> [B, C, T / 2, H / 2, W / 2], T even.

        The video's first call takes an odd T and gives (T + 1) / 2 frames."""
        x = super().forward(x, cache)
        before = cache.get(self)
        cache[self] = (x[:, :, -1:].clone(),)
        if before is not None:
            return self.time_conv.slide(torch.cat([*before, x], dim=2))
        first = x[:, :, :1]
        return torch.cat([first, self.time_conv.slide(x)], dim=2) if x.shape[2] > 1 else first


def keeps_frames(layer: nn.Module) -> bool:
    """Whether as many frames come out of a layer as go in."""
    return not any(isinstance(part, Upsample3d | Downsample3d) for part in layer.modules())


def per_frame(x: Tensor) -> Tensor:
    """[B, C, T, H, W] -> [B * T, C, H, W]."""
    return rearrange(x, "b c t h w -> (b t) c h w")


def per_video(x: Tensor, batch: int) -> Tensor:
    """[B * T, C, H, W] -> [B, C, T, H, W]."""
    return rearrange(x, "(b t) c h w -> b c t h w", b=batch)
