"""Types of the host's objects: of each as much as this pack uses, for readers and the type checker."""

from typing import Any, Protocol

import torch
from torch import Tensor

Conditioning = list[tuple[Tensor, dict[str, Any]]]
"""CONDITIONING: encoded texts, each with options by name."""
Latent = dict[str, Any]
"""LATENT: "samples" [B, C, F, h, w], and where there is one "noise_mask"."""
Audio = dict[str, Any]
"""AUDIO: "waveform" [1, channels, N] and "sample_rate"."""
Keypoints = list[dict[str, Any]]
"""POSE_KEYPOINT: people in OpenPose's form, one entry per frame."""


class Model(Protocol):
    """MODEL: a network (`model.diffusion_model`) with all that nodes have put on it."""

    model: Any
    model_options: dict[str, Any]
    patches: dict[str, Any]
    load_device: torch.device

    def get_model_object(self, name: str) -> Any: ...


class Vae(Protocol):
    """VAE of videos. Pixels are [T, H, W, 3] or [B, T, H, W, 3] in 0..1, latents [B, C, F, h, w]."""

    latent_channels: int

    def encode(self, pixels: Tensor) -> Tensor: ...

    def decode(self, samples: Tensor) -> Tensor: ...

    def decode_tiled(self, samples: Tensor, tile_x: int, tile_y: int, overlap: int) -> Tensor: ...

    def spacial_compression_decode(self) -> int: ...


class ClipVision(Protocol):
    """CLIP_VISION: a picture [1, H, W, 3] -> CLIP_VISION_OUTPUT."""

    def encode_image(self, image: Tensor, crop: bool) -> Any: ...


class AudioEncoder(Protocol):
    """AUDIO_ENCODER: sound [1, channels, N] -> AUDIO_ENCODER_OUTPUT."""

    def encode_audio(self, audio: Tensor, sample_rate: int) -> dict[str, Any]: ...
