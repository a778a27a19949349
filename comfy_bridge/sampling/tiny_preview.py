"""Previews by a tiny autoencoder, where models/vae_approx has one for the model's latents: pictures as they will be, in
at most a twentieth of the steps' time."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.model_management
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ...wan_models.checkpoints.loading import load_into
from ...wan_models.config import TinyVAEConfig
from ...wan_models.models import build_network, open_as
from ...wan_models.vae.tiny import TinyVAE
from .. import compat, folders

SHARE = 0.05
"""Share of the steps' time that may go into these previews."""


def file_for(latent_format: Any) -> Path | None:
    """The file that decodes latents of this format; LightX2V's before others. None where there is none, or where the
    user has chosen previews without one."""
    version = version_of(latent_format)
    if version is None or compat.preview_method() == "latent2rgb":
        return None
    sign = f"taew{version.replace('.', '_')}"
    names = [name for name in folders.tiny_vaes() if sign in name.lower()]
    names.sort(key=lambda name: "light" not in name.lower())
    try:
        return folders.resolve(names[0], folders.APPROXIMATE) if names else None
    except ValueError:  # it has gone since
        return None


def version_of(latent_format: Any) -> str | None:
    """Version of the Wan VAE that has this latent format; None of other models'."""
    if isinstance(latent_format, comfy.latent_formats.Wan22):
        return "2.2"
    return "2.1" if isinstance(latent_format, comfy.latent_formats.Wan21) else None


class Budget:
    """Seconds that previews may take: a share of what the steps have taken so far, less what was spent.

    What was spent and not there is made up for before there is more."""

    def __init__(self, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._share, self._clock = share, clock
        self._since: float | None = None
        self.seconds = 0.0

    def step_ends(self) -> None:
        """Adds to the budget; the first step's time, with all that is loaded in it, does not count."""
        if self._since is not None:
            self.seconds += self._share * (self._clock() - self._since)
        self._since = self._clock()

    def spend(self, work: Callable[[], Any]) -> tuple[Any, float]:
        """Result of the work, and the seconds it took, which are spent."""
        start = self._clock()
        try:
            out = work()
        finally:
            self._since = self._clock()
            self.seconds -= self._since - start
        return out, self._since - start


class _FrameByFrame(TinyVAE):
    """A decoder that takes little memory beside the model that is sampling."""

    def pieces(self, cells: int, pixels: int, device: torch.device) -> Iterator[tuple[int, int]]:
        yield from ((cell, cell + 1) for cell in range(cells))


class TinyPreview:
    """Decoder of previews from a file, which is read once there is time for it."""

    def __init__(self, file: Path, latent_format: Any) -> None:
        self.file = file
        self._format = latent_format
        self._vae: TinyVAE | None = None
        self._per_cell = 0.0  # seconds for each latent cell of a video
        self._budget = Budget(SHARE)

    def pictures(self, latents: Tensor, count: int, side: int) -> Tensor | None:
        """Denoised latents [C, T, H, W] in the model's scale, after a step -> uint8 [T', H', W', 3] on the CPU: `count`
        frames at most, evenly chosen, no side above `side`. None where there is no time for it yet.

        Raises whatever is wrong with the file, or the device."""
        self._budget.step_ends()
        if self._budget.seconds <= self._per_cell * latents[0].numel():
            return None
        if latents.device.type != "cpu":
            compat.synchronize(latents.device)  # the step's own work is not the preview's
        if self._vae is None:
            self._vae, _ = self._budget.spend(lambda: self._load(latents.device))
            for _ in range(2):  # a device is slow the first time
                self._decode(latents[:, :1], 1, side)
            return None
        return self._decode(latents, count, side)

    def _decode(self, latents: Tensor, count: int, side: int) -> Tensor:
        shown, seconds = self._budget.spend(lambda: self._frames(latents, count, side))
        self._per_cell = seconds / latents[0].numel()
        return shown

    @torch.no_grad()
    def _frames(self, latents: Tensor, count: int, side: int) -> Tensor:
        assert self._vae is not None
        total = 4 * (latents.shape[1] - 1) + 1
        indices = torch.linspace(0, total - 1, min(count, total)).round().long()
        shown, first = [], 0
        for _, frames in self._vae.decode_pieces(self._format.process_out(latents[None].float())):
            rows = indices[(indices >= first) & (indices < first + frames.shape[2])] - first
            first += frames.shape[2]
            chosen = rearrange(frames[0, :, rows.to(frames.device)], "c t h w -> t c h w")
            shown.append(to_pixels(chosen, side))
        return torch.cat(shown).cpu()

    def _load(self, device: torch.device) -> TinyVAE:
        checkpoint, info = open_as(self.file, "vae")
        version = version_of(self._format)
        if not isinstance(info.config, TinyVAEConfig) or info.config.version != version:
            raise ValueError(
                f"it is {info.description}, and not a tiny autoencoder for the Wan {version} VAE's latents"
            )
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        network = build_network(info.config, dtype=dtype, network=_FrameByFrame)
        load_into(network, checkpoint, convert=lambda name, weight: weight.to(device, dtype))
        network.encoder = None
        return network


def to_pixels(frames: Tensor, side: int) -> Tensor:
    """Frames [T, 3, H, W] in -1..1 -> uint8 [T, H', W', 3], no side above `side`."""
    scale = side / max(frames.shape[-2:])
    if scale < 1:
        frames = F.interpolate(
            frames, size=[max(1, round(n * scale)) for n in frames.shape[-2:]], mode="area"
        )
    levels = frames.add(1).mul(127.5).clamp(0, 255).to(torch.uint8)
    return rearrange(levels, "t c h w -> t h w c")
