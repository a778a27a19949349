"""What diffusion models learn from: videos of the world as latents, with what is true of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from wan_models.images.conditioning import known_frames, mask_channels
from wan_models.models import load_vae

from .autoencoder import encode
from .sizes import FRAMES, HEIGHT, WIDTH
from .videos import objects, rendered, spread
from .world.words import Facts

_WITH_END = 3
"""Of ten image-to-video clips, those that end with an image too."""


@dataclass(frozen=True)
class Clips:
    """Normalised latents [N, C, F, h, w] in half precision, the facts of each video, and the conditioning channels
    [N, C_y, F, h, w] of an image-to-video model."""

    latents: Tensor
    facts: Sequence[Facts]
    y: Tensor | None = None


def make_clips(make: Callable[[range], Clips], numbers: range, file: Path) -> Clips:
    """The clips of these numbers, kept in `file`."""
    if not file.exists():
        parts = spread(make, numbers)
        latents = torch.cat([part.latents for part in parts])
        given = [part.y for part in parts if part.y is not None]
        y = torch.cat(given) if given else None
        facts = [facts for part in parts for facts in part.facts]
        torch.save({"latents": latents, "facts": facts, "y": y}, file)
    return Clips(**torch.load(file, weights_only=True))


def text_clips(vae_file: Path, numbers: range) -> Clips:
    """Objects that cross the picture."""
    vae = load_vae(vae_file)
    videos, facts = _objects(numbers)
    return Clips(vae.statistics.normalize(encode(vae, videos)).half(), facts)


def image_clips(vae_file: Path, numbers: range) -> Clips:
    """The same, of which the first frame is known, and sometimes the last one too."""
    vae = load_vae(vae_file)
    videos, facts = _objects(numbers)
    seen, masks = [], []
    for number, video in zip(numbers, videos.float() / 255, strict=True):
        video, known = known_frames(video[:1], video[-1:] if number % 10 < _WITH_END else None, FRAMES)
        seen.append((video * 255).round().to(torch.uint8))
        masks.append(mask_channels(known, HEIGHT // 8, WIDTH // 8))
    latents, images = (
        vae.statistics.normalize(encode(vae, part)).half() for part in (videos, torch.stack(seen))
    )
    return Clips(latents, facts, torch.cat([torch.stack(masks).half(), images], dim=1))


def _objects(numbers: range) -> tuple[Tensor, list[Facts]]:
    return rendered(partial(objects, frames=FRAMES, width=WIDTH, height=HEIGHT), numbers)
