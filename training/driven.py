"""Training data of Animate-2-14B: a character that moves as somebody else does in a raw video."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from wan_models.dit.animate2 import Animate2Inputs
from wan_models.images.conditioning import reference_mask_channels, replaced_frames
from wan_models.models import load_image_encoder, load_vae
from wan_models.vision.clip import preprocess

from .autoencoder import encode
from .clips import Batch
from .sizes import FRAMES, HEIGHT, IMAGE_ENCODER, WIDTH
from .videos import to_bytes
from .world.figures import Figure, somebody_else
from .world.words import Facts

_CARRIED = (0, 0, 1)
"""Frames that a clip begins with, one of these by chance."""


@dataclass(frozen=True)
class Driven:
    """Characters and who moves them, in half precision: latents [N, C, F, h, w], first that of the reference;
    conditioning channels [N, C_y, F, h, w]; latents of the driving videos [N, C, F - 1, h, w]; CLIP features [N, rows,
    C] of the references and of the first driving frames."""

    latents: Tensor
    y: Tensor
    driving: Tensor
    image: Tensor
    driving_image: Tensor
    facts: Sequence[Facts]

    def draw(self, count: int, generator: torch.Generator) -> Batch:
        """Some of them by chance."""
        rows = torch.randint(len(self.latents), (count,), generator=generator)
        return Batch(
            self.latents[rows].float(),
            [self.facts[row] for row in rows],
            self.y[rows].float(),
            Animate2Inputs(
                self.driving[rows].float(), driving_image=self.driving_image[rows].float(), keep="off"
            ),
            self.image[rows].float(),
        )


@dataclass(frozen=True)
class _Scene:
    """Frames [T, H, W, 3] in 0..1: what is to come, the character, the driving video, and what is given of the video;
    where that is known [T, h, w]."""

    facts: Facts
    video: Tensor
    reference: Tensor
    driving: Tensor
    given: Tensor
    known: Tensor


def _draw(rng: random.Random) -> _Scene:
    driving = Figure.draw(rng)
    facts = somebody_else(driving, rng)
    video = replace(driving, facts=facts).frames(FRAMES, WIDTH, HEIGHT)
    count = rng.choice(_CARRIED)
    given, known = replaced_frames(FRAMES, (WIDTH, HEIGHT), video[:count] if count else None, None, None)
    return _Scene(
        facts=facts,
        video=video,
        # the character as it is seen once, in a pose of its own
        reference=Figure.of_facts(facts, rng).frames(1, WIDTH, HEIGHT),
        driving=driving.frames(FRAMES, WIDTH, HEIGHT),
        given=given,
        known=known,
    )


def make_driven(vae_file: Path, tower_file: Path, numbers: range) -> Driven:
    """Moving characters of these numbers."""
    vae, tower = load_vae(vae_file), load_image_encoder(tower_file, dtype=torch.float32)

    def latents(videos: list[Tensor]) -> Tensor:
        pixels = torch.stack([to_bytes(video) for video in videos])
        return vae.statistics.normalize(encode(vae, pixels)).half()

    def features(pictures: list[Tensor]) -> Tensor:
        return tower(preprocess(torch.cat(pictures), IMAGE_ENCODER.image_size))[0].half()

    drawn = [_draw(random.Random(number)) for number in numbers]
    references = latents([scene.reference for scene in drawn])
    masks = torch.stack([
        reference_mask_channels(scene.known, HEIGHT // 8, WIDTH // 8).half() for scene in drawn
    ])  # fmt: skip
    conditions = torch.cat([references, latents([scene.given for scene in drawn])], dim=2)
    return Driven(
        latents=torch.cat([references, latents([scene.video for scene in drawn])], dim=2),
        y=torch.cat([masks, conditions], dim=1),
        driving=latents([scene.driving for scene in drawn]),
        image=features([scene.reference for scene in drawn]),
        driving_image=features([scene.driving[:1] for scene in drawn]),
        facts=[scene.facts for scene in drawn],
    )
