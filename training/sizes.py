"""Shapes of the miniatures: official architectures, each as small as its part of the world allows."""

from dataclasses import replace
from typing import Any

from wan_models import config
from wan_models.config import CLIPConfig, DiTConfig, FaceConfig, SpeechConfig, T5Config, VAEConfig

WIDTH = HEIGHT = 96
FRAMES = 17
TALK = 64
"""Width and height of talking faces: those of S2V-14B are multiples of 64."""

VAE = VAEConfig(base_dim=8)
VAE_2_2 = replace(config.VAE_2_2, base_dim=12, dec_dim=12)
TEXT_DIM = 128


def side(vae: VAEConfig | config.TinyVAEConfig) -> int:
    """Width and height of the videos that an autoencoder learns from: twelve latent cells, so 96 or 192 pixels."""
    return 12 * vae.stride[1]


def text_encoder(vocabulary: int) -> T5Config:
    """Config for this many tokens."""
    return T5Config(
        vocab_size=vocabulary, dim=TEXT_DIM, dim_attn=TEXT_DIM, dim_ffn=256, num_heads=4, num_layers=2
    )


T2V = DiTConfig(dim=256, ffn_dim=512, num_heads=2, num_layers=3, text_dim=TEXT_DIM)
I2V = replace(T2V, family="i2v", in_dim=36)
TI2V = replace(T2V, family="ti2v", in_dim=48, out_dim=48)
S2V = replace(T2V, family="s2v", speech=SpeechConfig(audio_dim=64, audio_layers=3, inject_layers=(0, 2)))
IMAGE_ENCODER = CLIPConfig(image_size=112, dim=80, mlp_dim=160, num_heads=1, num_layers=2, out_dim=16)
ANIMATE = replace(
    T2V, family="animate", in_dim=36, num_layers=5, image_dim=IMAGE_ENCODER.dim,
    face=FaceConfig(channels=(16, 16, 32, 32, 64), style_dim=64, motion_dim=8, hidden_dim=64),
)  # fmt: skip
ANIMATE_2 = replace(
    I2V, family="animate2", num_layers=5, image_dim=IMAGE_ENCODER.dim, driven=config.DrivenConfig()
)
LISTENER: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128,
    "conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "conv_bias": True,
    "vocab_size": 33, "feat_extract_norm": "layer", "do_stable_layer_norm": True,
}  # fmt: skip
