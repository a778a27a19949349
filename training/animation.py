"""Training data of Animate-14B: a character that moves as somebody else does, in its own picture or in theirs."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from wan_models.dit.animate import AnimateInputs
from wan_models.images.conditioning import reference_mask_channels, replaced_frames
from wan_models.models import load_image_encoder, load_vae
from wan_models.pose.mask import augment_blocks, dilate
from wan_models.random_weights import random_state_dict
from wan_models.vision.clip import VisionTransformer, preprocess

from .autoencoder import encode
from .clips import Batch
from .sizes import FRAMES, HEIGHT, IMAGE_ENCODER, WIDTH
from .videos import to_bytes
from .world.figures import Figure, somebody_else
from .world.words import Facts

_CARRIED = (0, 0, 0, 1, 5)
"""Frames that a clip begins with, one of these by chance."""
_REPLACED = 0.4
"""Share of the clips that put the character into the driving video."""
_GROWN = 7
"""Pixels by which masks are dilated."""
_BOXES = 0.5
"""Share of the masks that are boxes, as the official preprocessing makes them."""
_WITHOUT_FACE = 0.1
"""Share of the batches that go without a face."""


@dataclass(frozen=True)
class Moves:
    """Characters that move, in half precision: latents [N, C, F, h, w], first that of the reference; conditioning
    channels [N, C_y, F, h, w]; latents of the poses [N, C, F - 1, h, w]; CLIP features of the references [N, rows, C].
    faces: driving faces [N, T, size, size, 3] of bytes."""

    latents: Tensor
    y: Tensor
    pose: Tensor
    image: Tensor
    faces: Tensor
    facts: Sequence[Facts]

    def draw(self, count: int, generator: torch.Generator) -> Batch:
        """Some of them by chance."""
        rows = torch.randint(len(self.latents), (count,), generator=generator)
        faces = rearrange(self.faces[rows].float() / 127.5 - 1, "b t h w c -> b c t h w")
        if torch.rand((), generator=generator) < _WITHOUT_FACE:
            faces = torch.full_like(faces, -1)  # as the negative prompt goes
        return Batch(
            self.latents[rows].float(),
            [self.facts[row] for row in rows],
            self.y[rows].float(),
            AnimateInputs(self.pose[rows].float(), faces),
            self.image[rows].float(),
        )


def make_image_encoder(file: Path) -> None:
    """A CLIP tower with random weights: features of a picture need only differ from those of another."""
    tower = random_state_dict(lambda: VisionTransformer(IMAGE_ENCODER), 9)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({f"visual.{name}": weight.half() for name, weight in tower.items()}, file)


def make_moves(vae_file: Path, tower_file: Path, numbers: range) -> Moves:
    """Moving characters of these numbers."""
    vae, tower = load_vae(vae_file), load_image_encoder(tower_file, dtype=torch.float32)

    def latents(videos: list[Tensor]) -> Tensor:
        return vae.statistics.normalize(encode(vae, torch.stack([to_bytes(video) for video in videos])))

    drawn = [_draw(random.Random(number)) for number in numbers]
    references = latents([scene.reference for scene in drawn])
    masks = torch.stack([
        reference_mask_channels(scene.known, HEIGHT // 8, WIDTH // 8) for scene in drawn
    ])  # fmt: skip
    conditions = torch.cat([references, latents([scene.given for scene in drawn])], dim=2)
    pictures = torch.cat([scene.reference for scene in drawn])
    features = tower(preprocess(pictures, IMAGE_ENCODER.image_size))[0]
    return Moves(
        latents=torch.cat([references, latents([scene.video for scene in drawn])], dim=2).half(),
        y=torch.cat([masks, conditions], dim=1).half(),
        pose=latents([scene.pose for scene in drawn]).half(),
        image=features.half(),
        faces=torch.stack([to_bytes(scene.faces) for scene in drawn]),
        facts=[scene.facts for scene in drawn],
    )


@dataclass(frozen=True)
class _Scene:
    """Frames [T, H, W, 3] in 0..1: what is to come, the character, the driving pose and face, what is given of the
    video, and where that is known [T, h, w]."""

    facts: Facts
    video: Tensor
    reference: Tensor
    pose: Tensor
    faces: Tensor
    given: Tensor
    known: Tensor


def _draw(rng: random.Random) -> _Scene:
    driving = Figure.draw(rng)
    replaces = rng.random() < _REPLACED
    facts = somebody_else(driving, rng)
    # the character as it is seen once, in a pose of its own
    reference = Figure.of_facts(facts, rng).frames(1, WIDTH, HEIGHT)
    background = mask = None
    if replaces:
        facts["background"] = driving.facts["background"]
        mask = dilate(driving.masks(FRAMES, WIDTH, HEIGHT), _GROWN, 1)
        if rng.random() < _BOXES:
            mask = augment_blocks(mask)
        background = driving.backgrounds(FRAMES, WIDTH, HEIGHT) * (1 - mask[..., None])
    video = replace(driving, facts=facts).frames(FRAMES, WIDTH, HEIGHT)
    count = rng.choice(_CARRIED)
    given, known = replaced_frames(
        FRAMES, (WIDTH, HEIGHT), video[:count] if count else None, background, mask
    )
    return _Scene(
        facts=facts,
        video=video,
        reference=reference,
        pose=driving.poses(FRAMES, WIDTH, HEIGHT),
        faces=driving.faces(FRAMES),
        given=given,
        known=known,
    )
