"""The audio encoder inside S2V-14B: wav2vec2's features -> tokens for each latent frame.

Source: wan/modules/s2v/audio_utils.py and auxi_blocks.py of the official code, whose parameter names are kept.
"""

from types import ModuleType

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..config import SpeechConfig
from .layers import CausalConv1d, normed_silu


class MotionEncoder(nn.Module):
    """Audio features at the video's rate -> tokens at the latents' rate, four steps to one."""

    def __init__(self, speech: SpeechConfig, dim: int, ops: ModuleType) -> None:
        super().__init__()
        self.tokens = speech.audio_tokens
        self.conv1_local = CausalConv1d(speech.audio_dim, dim // 4 * self.tokens, 1, ops)
        self.conv1_global = CausalConv1d(speech.audio_dim, dim // 4, 1, ops)
        self.conv2 = CausalConv1d(dim // 4, dim // 2, 2, ops)
        self.conv3 = CausalConv1d(dim // 2, dim, 2, ops)
        self.final_linear = ops.Linear(dim, dim)
        self.padding_tokens = nn.Parameter(torch.zeros(1, 1, 1, dim))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, audio_dim] -> for the whole frame [B, F, C], and tokens [B, F, audio_tokens + 1, C]."""
        local = rearrange(self.conv1_local(x), "b t (n c) -> (b n) t c", n=self.tokens)
        local = rearrange(self._downsample(local), "(b n) t c -> b t n c", n=self.tokens)
        padding = self.padding_tokens.to(local).expand(*local.shape[:2], -1, -1)
        whole = self.final_linear(self._downsample(self.conv1_global(x)))
        return whole, torch.cat([local, padding], dim=2)

    def _downsample(self, x: Tensor) -> Tensor:
        """[B, T, C] -> [B, T / 4, 4 C], twice halved in time."""
        x = self.conv2(normed_silu(x))
        return normed_silu(self.conv3(normed_silu(x)))


class CausalAudioEncoder(nn.Module):
    """A learnt mean of wav2vec2's layers, then `MotionEncoder`; in float32 as in the official code."""

    def __init__(self, speech: SpeechConfig, dim: int, ops: ModuleType) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.full((1, speech.audio_layers, 1, 1), 0.01))
        self.encoder = MotionEncoder(speech, dim, ops)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """[B, layers, audio_dim, T] -> as `MotionEncoder`."""
        weights = F.silu(self.weights.to(features))
        mean = ((features * weights) / weights.sum(dim=1, keepdim=True)).sum(dim=1)
        return self.encoder(rearrange(mean, "b c t -> b t c"))
