"""Moving previews: all frames of the video being sampled, for the page that has queued it.

The host's own preview is the first frame alone. Ours is one JPEG of all latent frames side by side, in the colours
that the host gives to a latent format, which the page plays on the node.
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
from . import preflight

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
            compat.previews_wanted() and getattr(latent_format, "latent_rgb_factors", None) is not None
        )

    def show(self, latents: Tensor) -> None:
        """Sends the first video of denoised latents [B, C, T, H, W], in the model's own scale."""
        client = compat.page() if self._is_on and latents.ndim == 5 else None
        if client is None or time.monotonic() < self._next:
            return
        try:
            message = self._message(latents)
        except Exception:  # hours of sampling are not to end over a picture
            logging.exception("[Wan2.2] no moving preview")
            self._is_on = False
            return
        compat.prompt_server().send_sync(EVENT, message, client)
        self._next = time.monotonic() + EVERY_SECONDS

    def _message(self, latents: Tensor) -> dict:
        shown = pictures(latents[0], self._format)
        frames, height, width = shown.shape[:3]
        return {
            "node": compat.running_node(),
            "image": base64.b64encode(strip(shown)).decode(),
            "frames": frames,
            "width": width,
            "height": height,
            "seconds": latents.shape[2] * _FRAMES_PER_LATENT / self._fps,
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
    rgb = F.linear(latents.float().movedim(0, -1), factors.T, bias).movedim(-1, 1)
    scale = MAX_SIDE / max(rgb.shape[-2:])
    if scale < 1:
        rgb = F.interpolate(rgb, size=[max(1, round(n * scale)) for n in rgb.shape[-2:]], mode="area")
    return rgb.add(1).mul(127.5).clamp(0, 255).to("cpu", torch.uint8).movedim(1, -1)


def strip(frames: Tensor) -> bytes:
    """JPEG of uint8 [T, H, W, 3], the frames side by side; colours in full, as pixels are latent cells."""
    side_by_side = rearrange(frames, "t h w c -> h (t w) c")
    file = io.BytesIO()
    Image.fromarray(side_by_side.numpy()).save(file, "JPEG", quality=80, subsampling=0)
    return file.getvalue()
