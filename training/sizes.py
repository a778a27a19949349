"""Shapes of the miniatures: official architectures, each as small as its part of the world allows."""

from dataclasses import replace

from wan_models import config
from wan_models.config import DiTConfig, T5Config, VAEConfig

WIDTH = HEIGHT = 96
FRAMES = 17

VAE = VAEConfig(base_dim=8)
VAE_2_2 = replace(config.VAE_2_2, base_dim=12, dec_dim=12)
TEXT_DIM = 128


def text_encoder(vocabulary: int) -> T5Config:
    """Of this many tokens."""
    return T5Config(
        vocab_size=vocabulary, dim=TEXT_DIM, dim_attn=TEXT_DIM, dim_ffn=256, num_heads=4, num_layers=2
    )


T2V = DiTConfig(dim=256, ffn_dim=512, num_heads=2, num_layers=3, text_dim=TEXT_DIM)
I2V = replace(T2V, family="i2v", in_dim=36)
