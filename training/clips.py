"""Training data of diffusion models: videos of the world as latents, with what is true of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wan_models.dit.tokens import Inputs
from wan_models.images.conditioning import known_frames, mask_channels
from wan_models.models import load_vae

from .autoencoder import encode
from .sizes import FRAMES, HEIGHT, WIDTH, side
from .videos import objects, rendered, spread
from .world.words import Facts

_WITH_END = 3
"""Number of ten image-to-video clips that end with an image too."""


@dataclass(frozen=True)
class Batch:
    """Clips to learn from in one step: latents [B, C, F, h, w], what is true of each, conditioning channels
    [B, C_y, F, h, w], the inputs of families that have them, and CLIP features [B, rows, C]."""

    latents: Tensor
    facts: Sequence[Facts]
    y: Tensor | None = None
    inputs: Inputs | None = None
    image: Tensor | None = None


@dataclass(frozen=True)
class Clips:
    """Normalised latents [N, C, F, h, w] in half precision, the facts of each video, and the conditioning channels
    [N, C_y, F, h, w] of an image-to-video model."""

    latents: Tensor
    facts: Sequence[Facts]
    y: Tensor | None = None

    def draw(self, count: int, generator: torch.Generator) -> Batch:
        """Some of them by chance."""
        rows = torch.randint(len(self.latents), (count,), generator=generator)
        y = None if self.y is None else self.y[rows].float()
        return Batch(self.latents[rows].float(), [self.facts[row] for row in rows], y)


def make_clips(make: Callable[[range], Any], numbers: range, file: Path, kind: type = Clips) -> Any:
    """The clips of these numbers, kept in `file`; kind: their class, a dataclass of tensors and lists."""
    if not file.exists():
        parts = [vars(part) for part in spread(make, numbers)]
        whole: dict[str, Any] = {}
        for name, first in parts[0].items():
            values = [part[name] for part in parts]
            if isinstance(first, list):
                whole[name] = [value for part in values for value in part]
            else:
                whole[name] = first if first is None else torch.cat(values)
        torch.save(whole, file)
    return kind(**torch.load(file, weights_only=True))


def text_clips(vae_file: Path, numbers: range) -> Clips:
    """Objects that cross the picture."""
    vae = load_vae(vae_file)
    videos, facts = _objects(numbers, side(vae.config))
    return Clips(vae.statistics.normalize(encode(vae, videos)).half(), facts)


def image_clips(vae_file: Path, numbers: range) -> Clips:
    """The same, of which the first frame is known, and sometimes the last one too."""
    vae = load_vae(vae_file)
    videos, facts = _objects(numbers, WIDTH)
    seen, masks = [], []
    for number, video in zip(numbers, videos.float() / 255, strict=True):
        video, known = known_frames(video[:1], video[-1:] if number % 10 < _WITH_END else None, FRAMES)
        seen.append((video * 255).round().to(torch.uint8))
        masks.append(mask_channels(known, HEIGHT // 8, WIDTH // 8))
    latents, images = (
        vae.statistics.normalize(encode(vae, part)).half() for part in (videos, torch.stack(seen))
    )
    return Clips(latents, facts, torch.cat([torch.stack(masks).half(), images], dim=1))


def _objects(numbers: range, size: int) -> tuple[Tensor, list[Facts]]:
    return rendered(partial(objects, frames=FRAMES, width=size, height=size), numbers)
