"""Training data of S2V-14B: faces that speak, in pieces of a longer video, with the voice and the frames before."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wan_models.audio.buckets import per_frame_of
from wan_models.dit.speech import MOTION_LATENTS, SpeechInputs
from wan_models.models import load_audio_encoder, load_vae

from .autoencoder import encode
from .clips import Batch
from .sizes import TALK
from .videos import to_bytes
from .world.faces import Face, voice
from .world.words import Facts

FRAMES = 105
"""Frames in each video."""
CLIP_LATENTS = 4
_SILENT = 0.1
"""Share of the clips without their voice, as the negative prompt goes without."""


@dataclass(frozen=True)
class Talks:
    """Talking faces: latents [N, C, F, h, w] and audio features [N, layers, C, frames] in half precision."""

    latents: Tensor
    audio: Tensor
    facts: Sequence[Facts]

    def draw(self, count: int, generator: torch.Generator) -> Batch:
        """First clips of videos, which follow on the picture alone, or later ones of them."""
        rows = torch.randint(len(self.latents), (count,), generator=generator)
        latents = self.latents[rows].float()
        is_first = bool(torch.rand((), generator=generator) < 0.4)
        last = self.audio.shape[-1] // 4 - CLIP_LATENTS
        start = 1 if is_first else int(torch.randint(MOTION_LATENTS, last + 1, (), generator=generator))
        # the last of a latent's four frames sounds first: the official pipeline drops the three before it from the
        # beginning of a video, and leaves the audio where it is
        frame = 4 * start
        audio = self.audio[rows, :, :, frame : frame + 4 * CLIP_LATENTS].float()
        audio[torch.rand(count, generator=generator) < _SILENT] = 0
        motion = None if is_first else latents[:, :, start - MOTION_LATENTS : start]
        return Batch(
            latents[:, :, start : start + CLIP_LATENTS],
            [self.facts[row] for row in rows],
            inputs=SpeechInputs(latents[:, :, :1], motion, None, audio),
        )


def make_talks(vae_file: Path, listener: Path, numbers: range) -> Talks:
    """Talking faces of these numbers."""
    vae, encoder = load_vae(vae_file), load_audio_encoder(listener)
    latents, audio, facts = [], [], []
    for number in numbers:
        rng = random.Random(number)
        face = Face.draw(rng, FRAMES)
        video = to_bytes(face.frames(FRAMES, TALK, TALK))
        latents.append(vae.statistics.normalize(encode(vae, video[None])).half())
        features = torch.cat(encoder.encode(torch.from_numpy(voice(face.loudness, rng))))
        audio.append(per_frame_of(features, FRAMES, FRAMES)[..., :FRAMES].half())
        facts.append(face.facts)
    return Talks(torch.cat(latents), torch.cat(audio), facts)
