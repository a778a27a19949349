"""From pictures of a face to tokens of its expression, for Animate-14B.

`MotionEncoder` describes each picture by a mixture of learnt directions of motion, `FaceEncoder` joins four pictures
to the tokens of one latent frame. Source: wan/modules/animate/motion_encoder.py and face_blocks.py of the official
code (the former is LIA's encoder), whose parameter names are kept.
"""

import math
from itertools import pairwise
from types import ModuleType

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..config import FaceConfig
from .layers import CausalConv1d, normed_silu

_BLUR = (1.0, 3.0, 3.0, 1.0)


class Blur(nn.Module):
    """A small fixed blur before a layer that halves the size."""

    def __init__(self, padding: int, stride: int) -> None:
        super().__init__()
        # a buffer because the official checkpoints hold it
        self.register_buffer("kernel", torch.tensor([[a * b / 64 for b in _BLUR] for a in _BLUR]))
        self.padding, self.stride = padding, stride

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H', W']."""
        kernel = self.kernel.to(x).expand(x.shape[1], 1, -1, -1)  # type: ignore[operator]
        return F.conv2d(x, kernel, stride=self.stride, padding=self.padding, groups=x.shape[1])


class LeakyReLU(nn.Module):
    """A bias, then a leaky ReLU scaled to keep the variance."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        return F.leaky_relu(x + self.bias.to(x), 0.2).mul_(math.sqrt(2))


class ConvLayer(nn.Sequential):
    """Convolution and activation; `halve` blurs before, and halves the size. Weights are learnt at unit variance and
    scaled by their fan-in here."""

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        kernel: int,
        ops: ModuleType,
        halve: bool = False,
        activate: bool = True,
    ) -> None:
        # a 1x1 convolution only looks at every other blurred pixel, so only those are made
        early = halve and kernel == 1
        stride, padding = (2 if halve and not early else 1), (0 if halve else kernel // 2)
        super().__init__(
            *([Blur((kernel + 1) // 2, 2 if early else 1)] if halve else []),
            ops.Conv2d(in_dim, out_dim, kernel, stride=stride, padding=padding, bias=False),
            *([LeakyReLU(out_dim)] if activate else []),
        )
        self.scale = 1 / math.sqrt(in_dim * kernel**2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C_out, H, W], or half of it."""
        for layer in self:
            x = layer(x).mul_(self.scale) if isinstance(layer, nn.Conv2d) else layer(x)
        return x


class ResBlock(nn.Module):
    """Two convolutions and a shortcut, to half the size."""

    def __init__(self, in_dim: int, out_dim: int, ops: ModuleType) -> None:
        super().__init__()
        self.conv1 = ConvLayer(in_dim, in_dim, 3, ops)
        self.conv2 = ConvLayer(in_dim, out_dim, 3, ops, halve=True)
        self.skip = ConvLayer(in_dim, out_dim, 1, ops, halve=True, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C_out, H / 2, W / 2], rounded down."""
        return self.conv2(self.conv1(x)).add_(self.skip(x)).div_(math.sqrt(2))


class AppearanceNet(nn.Module):
    """A face's picture -> one vector."""

    def __init__(self, face: FaceConfig, ops: ModuleType) -> None:
        super().__init__()
        self.convs = nn.ModuleList([ConvLayer(3, face.channels[0], 1, ops)])
        self.convs.extend(ResBlock(a, b, ops) for a, b in pairwise(face.channels))
        self.convs.append(ops.Conv2d(face.channels[-1], face.style_dim, 4, bias=False))
        self.scale = 1 / math.sqrt(face.channels[-1] * 4**2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, size, size] in -1..1 -> [B, style_dim]."""
        for layer in self.convs:
            x = layer(x)
        return x.flatten(1) * self.scale


class Encoder(nn.Module):
    """A face's picture -> how far it goes along each direction of motion."""

    def __init__(self, face: FaceConfig, ops: ModuleType) -> None:
        super().__init__()
        self.net_app = AppearanceNet(face, ops)
        widths = [face.style_dim] * 5 + [face.motion_dim]
        self.fc = nn.Sequential(*(ops.Linear(a, b) for a, b in pairwise(widths)))

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, size, size] in -1..1 -> [B, motion_dim]."""
        x = self.net_app(x)
        for layer in self.fc:
            x = layer(x / math.sqrt(x.shape[1]))
        return x


class Direction(nn.Module):
    """Learnt directions of motion, made orthonormal."""

    def __init__(self, face: FaceConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(face.style_dim, face.motion_dim))

    def forward(self, amounts: Tensor) -> Tensor:
        """[B, motion_dim] -> [B, style_dim], both in float32."""
        directions, _ = torch.linalg.qr(self.weight.to(amounts) + 1e-8)
        return amounts @ directions.T


class MotionEncoder(nn.Module):
    """Pictures of a face -> what is moved in them and how much, one vector per picture."""

    BATCH = 8
    """Pictures that are encoded at once, as in the official code."""

    def __init__(self, face: FaceConfig, ops: ModuleType) -> None:
        super().__init__()
        self.enc = Encoder(face, ops)
        self.dec = nn.ModuleDict({"direction": Direction(face)})

    def forward(self, faces: Tensor) -> Tensor:
        """[B, 3, size, size] in -1..1, in the compute dtype -> [B, style_dim] float32."""
        amounts = torch.cat([self.enc(part) for part in faces.split(self.BATCH)])
        return self.dec["direction"](amounts.float())


class FaceEncoder(nn.Module):
    """Motion of each frame -> tokens of each latent frame."""

    def __init__(self, face: FaceConfig, dim: int, ops: ModuleType) -> None:
        super().__init__()
        hidden = face.hidden_dim
        self.tokens = face.tokens
        self.conv1_local = CausalConv1d(face.style_dim, hidden * face.tokens, 1, ops)
        self.conv2 = CausalConv1d(hidden, hidden, 2, ops)
        self.conv3 = CausalConv1d(hidden, hidden, 2, ops)
        self.out_proj = ops.Linear(hidden, dim)
        self.padding_tokens = nn.Parameter(torch.zeros(1, 1, 1, dim))

    def forward(self, motion: Tensor) -> Tensor:
        """[B, 4 F + 1, style_dim] -> [B, F + 1, tokens + 1, dim]; the last token is the same for all."""
        x = rearrange(self.conv1_local(motion), "b t (n c) -> (b n) t c", n=self.tokens)
        x = normed_silu(self.conv3(normed_silu(self.conv2(normed_silu(x)))))
        x = rearrange(self.out_proj(x), "(b n) t c -> b t n c", n=self.tokens)
        return torch.cat([x, self.padding_tokens.to(x).expand(*x.shape[:2], -1, -1)], dim=2)
