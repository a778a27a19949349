"""The image tower of CLIP ViT-H/14, through which Animate-14B and Wan2.1's image-to-video models see a picture.

Source: wan/modules/animate/clip.py of the official code, whose parameter names are kept.
"""

from types import ModuleType

import torch
from einops import rearrange
from torch import Tensor, nn

from .. import ops as default_ops
from ..attention import get_attention
from ..config import CLIPConfig
from ..images.resize import resize

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class SelfAttention(nn.Module):
    """Multi-head attention over the patches of a picture."""

    def __init__(self, config: CLIPConfig, ops: ModuleType) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.to_qkv = ops.Linear(config.dim, config.dim * 3)
        self.proj = ops.Linear(config.dim, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, C] -> [B, L, C]."""
        q, k, v = self.to_qkv(x).chunk(3, dim=-1)
        return self.proj(get_attention()(q, k, v, self.num_heads))


class Block(nn.Module):
    """Attention and feed-forward, each after a norm in float32."""

    def __init__(self, config: CLIPConfig, ops: ModuleType) -> None:
        super().__init__()
        dim = config.dim
        self.norm1 = ops.LayerNorm(dim)
        self.attn = SelfAttention(config, ops)
        self.norm2 = ops.LayerNorm(dim)
        self.mlp = nn.Sequential(ops.Linear(dim, config.mlp_dim), nn.GELU(), ops.Linear(config.mlp_dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, C] -> [B, L, C]."""
        x = x + self.attn(self.norm1(x.float()).to(x.dtype))
        return x + self.mlp(self.norm2(x.float()).to(x.dtype))


class VisionTransformer(nn.Module):
    """Pictures -> a row of features for the whole and for each patch."""

    def __init__(self, config: CLIPConfig, ops: ModuleType = default_ops) -> None:
        super().__init__()
        self.config = config
        dim, patch = config.dim, config.patch_size
        self.patch_embedding = ops.Conv2d(3, dim, patch, stride=patch, bias=False)
        self.cls_embedding = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embedding = nn.Parameter(torch.zeros(1, config.rows, dim))
        self.pre_norm = ops.LayerNorm(dim)
        self.transformer = nn.Sequential(*(Block(config, ops) for _ in range(config.num_layers)))
        self.post_norm = ops.LayerNorm(dim)
        self.head = nn.Parameter(torch.zeros(dim, config.out_dim))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised pictures [B, 3, size, size] -> features [B, 1 + patches, C] after the last block but one, which
        are what Wan's models look at, and after the last one."""
        x = rearrange(self.patch_embedding(pictures), "b c h w -> b (h w) c")
        x = torch.cat([self.cls_embedding.to(x).expand(x.shape[0], -1, -1), x], dim=1)
        x = self.pre_norm((x + self.pos_embedding.to(x)).float()).to(x.dtype)
        *blocks, last = self.transformer
        for block in blocks:
            x = block(x)
        return x, last(x)

    def embed(self, features: Tensor) -> Tensor:
        """Features after the last block -> CLIP's embedding of the pictures [B, out_dim], in float32."""
        return self.post_norm(features[:, 0].float()) @ self.head.float().to(features.device)


def preprocess(pictures: Tensor, size: int = 224) -> Tensor:
    """Pictures [B, H, W, 3] in 0..1 -> [B, 3, size, size] in CLIP's range, stretched (bicubic) as in Wan's training."""
    from kornia.enhance import normalize  # as in images/resize.py: imported when it is first used

    resized = rearrange(resize(pictures, size, size), "b h w c -> b c h w")
    return normalize(resized, torch.tensor(MEAN), torch.tensor(STD))
