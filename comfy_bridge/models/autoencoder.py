"""A Wan video autoencoder as the host's VAE, with everything the host's VAE nodes expect of one."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.sd
import comfy.utils
import torch
from torch import Tensor

from ...wan_models.checkpoints.files.stamp import Stamp
from ...wan_models.checkpoints.loading import load_into
from ...wan_models.config import TinyVAEConfig, VAEConfig
from ...wan_models.models import build_network, open_as
from ...wan_models.vae.base import VideoVAE
from ...wan_models.vae.streaming import Autoencoder
from ...wan_models.vae.tiny import TinyVAE
from ...wan_models.vae.wan21 import WanVAE21
from ...wan_models.vae.wan22 import WanVAE22
from .. import compat
from ..progress import progress
from .hints import check_mapped, loader_hints
from .packed.layers import ops

# the official code runs the autoencoder in float32; half precision is the user's choice
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Hosted(Autoencoder):
    """Our networks under the two calls the host makes; latents are raw, the host's latent format normalises them."""

    remote: Callable[[Tensor], Tensor] | None = None
    """Slot for what decodes elsewhere: raw latents to the video, as `decode`."""
    bands = 1
    """In how many bands of rows a video is decoded: more take less memory and more time."""
    _compute: torch.dtype | None = None

    @property
    def dtype(self) -> torch.dtype:
        return self._compute or super().dtype

    @contextmanager
    def decoding(self, dtype: torch.dtype, bands: int) -> Iterator[None]:
        """Decodes in a precision and in bands while it lasts: the host hands over nothing but latents."""
        self._compute, self.bands = dtype, bands
        try:
            yield
        finally:
            self._compute, self.bands = None, 1

    def encode(self, video: Tensor, **options: Any) -> Tensor:  # type: ignore[override]
        # the host's own Wan VAE leaves out the frames past 4n+1, and its nodes count on that
        return super().encode(video[:, :, : (video.shape[2] - 1) // 4 * 4 + 1], on_frames=progress())

    def decode(self, z: Tensor, **options: Any) -> Tensor:  # type: ignore[override]
        if self.remote is not None:
            return self.remote(z).to(z.device, self.dtype)
        if self.bands > 1:
            return self.decode_in_bands(z, self.bands, progress())  # type: ignore[attr-defined]
        return super().decode(z, on_frames=progress())


class HostVAE21(Hosted, WanVAE21):
    """`WanVAE21` for the host."""


class HostVAE22(Hosted, WanVAE22):
    """`WanVAE22` for the host."""


class HostTinyVAE(Hosted, TinyVAE):
    """`TinyVAE` for the host."""


_NETWORKS: dict[str, type[Hosted]] = {"2.1": HostVAE21, "2.2": HostVAE22}


class WanVAE(comfy.sd.VAE):
    """The host's VAE class around one of our networks."""

    def __init__(self, network: Hosted, config: VAEConfig | TinyVAEConfig, dtype: torch.dtype) -> None:
        # sets the defaults of this host's version and stops before choosing a network, of which it warns
        with compat.unlogged("No VAE weights detected"):
            super().__init__(sd={})
        stride, space = config.stride[0], config.stride[1]
        self.upscale_ratio = (lambda frames: max(0, frames * stride - stride + 1), space, space)
        self.downscale_ratio = (
            lambda frames: max(0, math.floor((frames + stride - 1) / stride)),
            space,
            space,
        )
        self.upscale_index_formula = self.downscale_index_formula = config.stride
        self.latent_dim = 3
        self.latent_channels = config.z_dim
        self.output_channels = 3
        self.working_dtypes = list(DTYPES.values())
        self.memory_used_encode = lambda shape, dtype: network.peak_bytes(
            "encode", shape[2], shape[3] * shape[4], dtype.itemsize
        )
        self.memory_used_decode = lambda shape, dtype: self._need(shape, dtype, network.bands)

        self.first_stage_model = network
        self.device = comfy.model_management.vae_device()
        self.vae_dtype = dtype
        self.output_device = comfy.model_management.intermediate_device()
        offload_device = comfy.model_management.vae_offload_device()
        self.patcher = compat.make_patcher(network, self.device, offload_device)
        self.stamps: tuple[Stamp, ...] = ()

    def decode(self, samples_in: Tensor, *args: Any, **options: Any) -> Tensor:
        """As the host's; where the device has too little memory for that, in two bands of rows, or in bfloat16 in the
        place of float32, or both: the host would decode in tiles."""
        network, own = self.first_stage_model, self.vae_dtype
        dtypes = (own, torch.bfloat16) if own == torch.float32 else (own,)
        bands = (1, 2) if isinstance(network, VideoVAE) else (1,)
        needs = {(dtype, n): self._need(samples_in.shape, dtype, n) for dtype in dtypes for n in bands}
        room = comfy.model_management.get_total_memory(self.device) - self.patcher.model_size()
        usual = own, 1
        chosen = next((way for way, need in needs.items() if need <= room), usual)
        if chosen != usual:
            ways = ["in two bands of rows"] * (chosen[1] > 1) + ["in bf16"] * (chosen[0] != own)
            logging.info(
                "[Wan2.2] this video is decoded %s: otherwise it takes %.1f GB at once, more than the device has",
                " and ".join(ways),
                needs[usual] / 1e9,
            )
        self.vae_dtype, count = chosen
        try:
            with network.decoding(self.vae_dtype, count):
                return super().decode(samples_in, *args, **options)
        finally:
            self.vae_dtype = own

    def _need(self, shape: torch.Size, dtype: torch.dtype, bands: int) -> int:
        """Bytes that decoding a latent in a precision takes beside the weights."""
        network: Hosted = self.first_stage_model
        if network.remote is not None:
            return 1  # the host divides by it
        stretch, *space = self.upscale_ratio
        frames, height, width = stretch(shape[2]), shape[3] * space[0], shape[4] * space[1]
        if bands > 1:
            return network.peak_bytes_in_bands(frames, height, width, dtype.itemsize, bands)  # type: ignore[attr-defined]
        return network.peak_bytes("decode", frames, height * width, dtype.itemsize)

    def throw_exception_if_invalid(self) -> None:
        """Called by the host before it loads the weights for an encode or decode."""
        super().throw_exception_if_invalid()
        check_mapped(self.stamps)


def load_vae(path: str | Path, dtype: str = "fp32") -> WanVAE:
    """Loads a Wan 2.1 or 2.2 video autoencoder, or a tiny one, as a VAE; `dtype` is one of `DTYPES`.

    Raises CheckpointError (a ValueError) where the file is broken or holds something else."""
    with loader_hints():
        checkpoint, info = open_as(path, "vae")
    stored = DTYPES[dtype]
    tiny = isinstance(info.config, TinyVAEConfig)
    network = build_network(info.config, ops, stored, HostTinyVAE if tiny else _NETWORKS[info.config.version])
    vae = WanVAE(network, info.config, stored)
    load_into(network, checkpoint, convert=lambda name, w: w.to(stored))
    vae.stamps = checkpoint.stamps
    compat.archive_dtypes(network)
    vae.model_size()
    return vae
