"""What the demos take in beside a prompt, drawn and spoken by the small world: files as a user would have them."""

import random
import wave
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from training.sizes import HEIGHT, TALK, WIDTH
from training.world.faces import SAMPLE_RATE, Face, loudness, voice
from training.world.objects import Objects
from training.world.words import Facts


def write_picture(file: Path, picture: Tensor) -> None:
    """A picture [H, W, 3] in 0..1 as a PNG."""
    Image.fromarray((picture * 255).round().to(torch.uint8).numpy()).save(file)


def write_voice(file: Path, opening: np.ndarray, rng: random.Random) -> None:
    """A voice that is as loud in each frame as `opening` says, as 16-bit WAV."""
    with wave.open(str(file), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(SAMPLE_RATE)
        sound.writeframes((voice(opening, rng) * 32767).astype("<i2").tobytes())


def write_start(folder: Path, facts: Facts, frames: int, rng: random.Random) -> Tensor:
    """example.png and end.png: the first and the last frame of a video of an object, which is returned."""
    video = Objects.of_facts(facts, rng).frames(frames, WIDTH, HEIGHT)
    write_picture(folder / "example.png", video[0])
    write_picture(folder / "end.png", video[-1])
    return video


def write_talk(folder: Path, facts: Facts, frames: int, rng: random.Random) -> np.ndarray:
    """example.png: a face with its mouth shut; talk.wav: what it is to say. Returns how far its mouth should be open in
    each frame, 0 to 1."""
    opening = loudness(rng, frames)
    opening[0] = 0
    write_picture(folder / "example.png", Face.of_facts(facts, rng, opening).frames(1, TALK, TALK)[0])
    write_voice(folder / "talk.wav", opening, rng)
    return opening
