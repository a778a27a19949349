"""Moving previews: all frames of the video being sampled, for the page that has queued it.

The host's own preview is the first frame alone. Ours is one JPEG of many frames side by side, which the page plays on
the node: decoded by a tiny autoencoder where there is one (`tiny_preview`), else all latent frames in the colours that
the host gives to a latent format.
"""

import base64
import io
import logging
import time
from collections.abc import Callable
from typing import Any

import latent_preview
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor

from ...wan_models.families import FAMILIES
from .. import compat
from ..host_types import Model
from ..listing import warn_once
from . import preflight, tiny_preview
from .tiny_preview import TinyPreview, to_pixels

EVENT = "wan22.preview"
MAX_SIDE = 256
MAX_FRAMES = 32
EVERY_SECONDS = 0.5
_FRAMES_PER_LATENT = 4


def callback(model: Model, steps: int) -> Callable[[int, Tensor, Tensor, int], None]:
    """Callback of a sampler, (step, denoised, x, steps): the host's bar and preview, and the moving one."""
    host = latent_preview.prepare_callback(model, steps)
    fps = FAMILIES[preflight.family(model) or "t2v"].release.fps
    show = MovingPreview(model.get_model_object("latent_format"), fps).show

    def both(step: int, denoised: Tensor, x: Tensor, total: int) -> None:
        show(denoised)  # first, so that the page knows that it need not show the host's as well
        host(step, denoised, x, total)

    return both


class MovingPreview:
    """Sender of previews of latents in this format, at most every EVERY_SECONDS; silent where nobody would look."""

    def __init__(self, latent_format: Any, fps: int) -> None:
        self._format, self._fps = latent_format, fps
        self._next = 0.0
        self._is_on = (
            compat.preview_method() != "none"
            and getattr(latent_format, "latent_rgb_factors", None) is not None
        )
        file = tiny_preview.file_for(latent_format) if self._is_on else None
        self._tiny = TinyPreview(file, latent_format) if file else None
        self._shows_tiny = False

    def show(self, latents: Tensor) -> None:
        """Sends the first video of denoised latents [B, C, T, H, W], in the model's own scale."""
        client = compat.page() if self._is_on and latents.ndim == 5 else None
        if client is None or time.monotonic() < self._next:
            return
        try:
            shown = self._pictures(latents[0])
            message = self._message(shown, latents.shape[2]) if shown is not None else None
        except Exception:  # hours of sampling are not to end over a picture
            logging.exception("[Wan2.2] no moving preview")
            self._is_on = False
            return
        if message is not None:
            compat.prompt_server().send_sync(EVENT, message, client)
            self._next = time.monotonic() + EVERY_SECONDS

    def _pictures(self, latents: Tensor) -> Tensor | None:
        """Pictures of a tiny autoencoder once there is time for them, and from then on no others; None where what is
        shown stays."""
        if self._tiny is not None:
            try:
                shown = self._tiny.pictures(latents, MAX_FRAMES, MAX_SIDE)
            except Exception as error:
                # a damaged file, another model's, no memory for it: hours of sampling are not to end over a picture
                warn_once(f"previews are made without {self._tiny.file.name}: {error}")
                self._tiny, self._shows_tiny = None, False
            else:
                self._shows_tiny = self._shows_tiny or shown is not None
                if self._shows_tiny:
                    return shown
        return pictures(latents, self._format)

    def _message(self, shown: Tensor, cells: int) -> dict:
        frames, height, width = shown.shape[:3]
        return {
            "node": compat.running_node(),
            "image": base64.b64encode(strip(shown)).decode(),
            "frames": frames,
            "width": width,
            "height": height,
            "seconds": cells * _FRAMES_PER_LATENT / self._fps,
        }


def pictures(latents: Tensor, latent_format: Any) -> Tensor:
    """Latents [C, T, H, W] -> uint8 [T, H, W, 3] on the CPU: at most MAX_FRAMES of them, no side above MAX_SIDE."""
    total = latents.shape[1]
    if total > MAX_FRAMES:
        rows = torch.linspace(0, total - 1, MAX_FRAMES).round().long()
        latents = latents[:, rows.to(latents.device)]
    factors = torch.tensor(latent_format.latent_rgb_factors, device=latents.device, dtype=torch.float32)
    bias = getattr(latent_format, "latent_rgb_factors_bias", None)
    if bias is not None:
        bias = torch.tensor(bias, device=latents.device, dtype=torch.float32)
    rgb = F.linear(rearrange(latents.float(), "c t h w -> t h w c"), factors.T, bias)
    return to_pixels(rearrange(rgb, "t h w c -> t c h w"), MAX_SIDE).cpu()


def strip(frames: Tensor) -> bytes:
    """JPEG of uint8 [T, H, W, 3], the frames side by side; colours in full, as pixels are latent cells."""
    side_by_side = rearrange(frames, "t h w c -> h (t w) c")
    file = io.BytesIO()
    Image.fromarray(side_by_side.numpy()).save(file, "JPEG", quality=80, subsampling=0)
    return file.getvalue()
