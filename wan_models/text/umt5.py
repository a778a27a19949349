"""The encoder of UMT5 (arXiv 2304.09151), which turns prompts into text features for all Wan models.

A T5 encoder whose every block has relative position biases of its own. Parameters have the official names.
Source: wan/modules/t5.py of the official code.
"""

import math
from types import ModuleType

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .. import ops as default_ops
from ..config import T5Config
from ..progress import OnProgress

MAX_DISTANCE = 128
"""Tokens further apart than this share the last position bucket."""


def position_buckets(length: int, num_buckets: int, device: torch.device) -> Tensor:
    """T5's buckets of the relative positions of `length` tokens, [L, L]: exact when near, logarithmic when far."""
    position = torch.arange(length, device=device)
    distance = position[None, :] - position[:, None]
    half = num_buckets // 2
    exact = half // 2
    away = distance.abs()
    far = exact + (torch.log(away.float() / exact) / math.log(MAX_DISTANCE / exact) * (half - exact)).long()
    return (distance > 0).long() * half + torch.where(away < exact, away, far.clamp(max=half - 1))


class Attention(nn.Module):
    """Multi-head self-attention without scaling, as T5 has it."""

    def __init__(self, config: T5Config, ops: ModuleType) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.q = ops.Linear(config.dim, config.dim_attn, bias=False)
        self.k = ops.Linear(config.dim, config.dim_attn, bias=False)
        self.v = ops.Linear(config.dim, config.dim_attn, bias=False)
        self.o = ops.Linear(config.dim_attn, config.dim, bias=False)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x [B, L, C], bias [B, H, L, L] added to the scores -> [B, L, C]."""
        q, k, v = (
            rearrange(layer(x), "b l (h d) -> b h l d", h=self.num_heads)
            for layer in (self.q, self.k, self.v)
        )
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
        return self.o(rearrange(out, "b h l d -> b l (h d)"))


class FeedForward(nn.Module):
    """Gated feed-forward: fc2(fc1(x) * gelu(gate(x)))."""

    def __init__(self, config: T5Config, ops: ModuleType) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            ops.Linear(config.dim, config.dim_ffn, bias=False), nn.GELU(approximate="tanh")
        )
        self.fc1 = ops.Linear(config.dim, config.dim_ffn, bias=False)
        self.fc2 = ops.Linear(config.dim_ffn, config.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, L, C] -> the same shape."""
        return self.fc2(self.fc1(x) * self.gate(x))


class RelativePositions(nn.Module):
    """A learnt bias per head and position bucket."""

    def __init__(self, config: T5Config, ops: ModuleType) -> None:
        super().__init__()
        self.embedding = ops.Embedding(config.num_buckets, config.num_heads)

    def forward(self, buckets: Tensor, dtype: torch.dtype) -> Tensor:
        """[L, L] -> [1, H, L, L]."""
        return rearrange(self.embedding(buckets, out_dtype=dtype), "q k h -> 1 h q k")


class Block(nn.Module):
    """norm, attention, norm, feed-forward, each beside the residual stream."""

    def __init__(self, config: T5Config, ops: ModuleType) -> None:
        super().__init__()
        self.norm1 = ops.RMSNorm(config.dim, eps=1e-6)
        self.attn = Attention(config, ops)
        self.norm2 = ops.RMSNorm(config.dim, eps=1e-6)
        self.ffn = FeedForward(config, ops)
        self.pos_embedding = RelativePositions(config, ops)

    def forward(self, x: Tensor, buckets: Tensor, pad_mask: Tensor) -> Tensor:
        """x [B, L, C], position buckets [L, L] and pad_mask [B, 1, 1, L], true at padding -> [B, L, C]."""
        bias = self.pos_embedding(buckets, x.dtype).masked_fill(pad_mask, torch.finfo(x.dtype).min)
        x = _finite(x + self.attn(self.norm1(x), bias))
        return _finite(x + self.ffn(self.norm2(x)))


def _finite(x: Tensor) -> Tensor:
    """float16 alone overflows in T5's residual stream; the official code clamps it there too."""
    return x if x.dtype != torch.float16 else x.clamp(-64504.0, 64504.0)


class UMT5Encoder(nn.Module):
    """Token ids -> text features, computed in `compute_dtype`, which may be set to another dtype than the weights'."""

    def __init__(self, config: T5Config, ops: ModuleType = default_ops) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.get_default_dtype()
        self.token_embedding = ops.Embedding(config.vocab_size, config.dim)
        self.blocks = nn.ModuleList(Block(config, ops) for _ in range(config.num_layers))
        self.norm = ops.RMSNorm(config.dim, eps=1e-6)

    def forward(self, ids: Tensor, mask: Tensor, on_layer: OnProgress | None = None) -> Tensor:
        """ids and mask (1 for text, 0 for padding) int64 [B, L] -> features [B, L, dim] in the compute dtype."""
        x = self.token_embedding(ids, out_dtype=self.compute_dtype)
        buckets = position_buckets(ids.shape[1], self.config.num_buckets, ids.device)
        pad_mask = rearrange(mask == 0, "b l -> b 1 1 l")
        for index, block in enumerate(self.blocks):
            x = block(x, buckets, pad_mask)
            if on_layer is not None:
                on_layer(index + 1, len(self.blocks))
        return self.norm(x)

    def encode(self, ids: Tensor, mask: Tensor, on_layer: OnProgress | None = None) -> Tensor:
        """As `forward`, with rows past the text set to zero and text_len rows: what the Wan models attend to."""
        longest = max(1, int(mask.sum(dim=1).max()))  # padding changes nothing for the text, so leave it out
        features = self(ids[:, :longest], mask[:, :longest], on_layer)
        features = features * mask[:, :longest, None].to(features)
        return F.pad(features, (0, 0, 0, self.config.text_len - longest))
