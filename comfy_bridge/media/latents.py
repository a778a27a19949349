"""Video latents: empty, from frames, and back to frames, with any VAE of the host's kind."""

import comfy.model_management
import torch
from einops import rearrange
from torch import Tensor

from ...wan_models.config import VAEConfig
from ...wan_models.images.pixels import rgb
from ...wan_models.images.sizes import check_video_size
from ..host_types import Latent, Vae

PATCH = 2
"""The transformers join 2 x 2 latent cells, so sizes must divide by twice the VAE's scale."""
_DEFAULT = VAEConfig()


def _scale(vae: Vae | None) -> tuple[int, int]:
    """Channels of a VAE's latents, and pixels per latent cell; of the 2.1 VAE without one."""
    if vae is None:
        return _DEFAULT.z_dim, _DEFAULT.stride[1]
    return vae.latent_channels, vae.spacial_compression_decode()


def empty(width: int, height: int, frames: int, batch_size: int, vae: Vae | None = None) -> Latent:
    """LATENT of zeros [B, C, 1 + (frames - 1) / 4, H / scale, W / scale]."""
    channels, scale = _scale(vae)
    check_video_size(width, height, frames, scale * PATCH)
    shape = (batch_size, channels, (frames - 1) // 4 + 1, height // scale, width // scale)
    return {"samples": torch.zeros(shape, device=comfy.model_management.intermediate_device())}


def encode(frames: Tensor, vae: Vae) -> Latent:
    """IMAGE [T, H, W, 3] in 0..1 -> LATENT of one video."""
    count, height, width = frames.shape[:3]
    check_video_size(width, height, count, _scale(vae)[1] * PATCH)
    return {"samples": vae.encode(rgb(frames))}


def decode(latent: Latent, vae: Vae, tile_size: int = 0) -> Tensor:
    """LATENT -> IMAGE [B * T, H, W, 3] in 0..1. ValueError where latent and VAE do not belong together."""
    samples = latent["samples"]
    channels, scale = _scale(vae)
    if samples.ndim != 5 or samples.shape[1] != channels:
        raise ValueError(
            f"the latent has shape {tuple(samples.shape)} and the VAE decodes video latents of {channels} channels: "
            "they belong to different models. Load the VAE of the release that made the latent (2.1 for the 14B "
            "models, 2.2 for TI2V-5B)"
        )
    if tile_size:
        tile = max(8, tile_size // scale)
        frames = vae.decode_tiled(samples, tile_x=tile, tile_y=tile, overlap=tile // 4)
    else:
        frames = vae.decode(samples)
    return rearrange(frames, "... h w c -> (...) h w c")
