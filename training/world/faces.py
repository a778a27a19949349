"""A face whose mouth opens with its voice."""

import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .canvas import Canvas, Point, shaded
from .objects import BACKGROUNDS, COLOURS
from .words import Facts

FPS = 16
SAMPLE_RATE = 16000
MOUTH = (0.22, 0.02, 0.05)
"""Its colour."""


@dataclass(frozen=True)
class Face:
    """A talking face. facts: its colour and background. centre: as shares of width and height; radius: of the smaller
    of them. loudness: how far the mouth is open in each frame, 0 to 1."""

    facts: Facts
    centre: Point
    radius: float
    loudness: np.ndarray

    @classmethod
    def draw(cls, rng: random.Random, frames: int) -> "Face":
        colour = rng.choice(list(COLOURS))
        background = rng.choice([name for name in BACKGROUNDS if name != colour])
        facts = {"kind": "face", "colour": colour, "background": background, "motion": "talk"}
        return cls.of_facts(facts, rng, loudness(rng, frames))

    @classmethod
    def of_facts(cls, facts: Facts, rng: random.Random, opening: np.ndarray) -> "Face":
        """A face that all these facts are true of; where it is and how large, is left to chance."""
        radius = rng.uniform(0.3, 0.38)
        return cls(facts, (rng.uniform(0.42, 0.58), rng.uniform(0.44, 0.56)), radius, opening)

    def frames(self, count: int, width: int, height: int, first: int = 0) -> Tensor:
        """`count` frames from number `first` on, [count, height, width, 3] in 0..1; past the end the mouth is shut."""
        openings = np.pad(self.loudness, (0, max(0, first + count - len(self.loudness))))[
            first : first + count
        ]
        return torch.stack([self._frame(float(opening), width, height) for opening in openings])

    def _frame(self, opening: float, width: int, height: int) -> Tensor:
        canvas = Canvas(width, height, BACKGROUNDS[self.facts["background"]])
        centre, radius = (self.centre[0] * width, self.centre[1] * height), self.radius * min(width, height)
        draw_face(canvas, centre, radius, self.facts["colour"], opening)
        return canvas.pixels()


def draw_face(canvas: Canvas, centre: Point, radius: float, colour: str, opening: float) -> None:
    """A round face with hair, eyes and a mouth that is open by `opening`, 0 to 1."""
    x, y = centre
    skin = COLOURS[colour]
    canvas.ellipse((x, y - 0.12 * radius), (radius, radius), shaded(skin, 0.35))
    canvas.ellipse((x, y + 0.06 * radius), (0.9 * radius, 0.94 * radius), skin)
    for side in (-1, 1):
        eye = (x + side * 0.36 * radius, y - 0.22 * radius)
        canvas.ellipse(eye, (0.17 * radius, 0.17 * radius), (0.96, 0.96, 0.96))
        canvas.ellipse(eye, (0.09 * radius, 0.09 * radius), (0.05, 0.05, 0.05))
    mouth = (x, y + 0.48 * radius)
    canvas.ellipse(mouth, (0.34 * radius, (0.05 + 0.27 * opening) * radius), MOUTH)


def loudness(rng: random.Random, frames: int) -> np.ndarray:
    """Loudness of a voice in each frame, 0 to 1: syllables of different lengths, and pauses between them."""
    out = np.zeros(frames)
    at = rng.randint(0, 3)
    while at < frames:
        length, peak = rng.randint(3, 6), rng.uniform(0.55, 1.0)
        shape = np.sin(np.linspace(0, np.pi, length + 2)[1:-1]) ** 0.8 * peak
        end = min(frames, at + length)
        out[at:end] = shape[: end - at]
        at += length + (rng.randint(0, 1) if rng.random() < 0.7 else rng.randint(3, 7))
    return out


def voice(opening: np.ndarray, rng: random.Random, fps: int = FPS) -> np.ndarray:
    """The sound of it at `SAMPLE_RATE`, [samples] in -1..1: a buzz with two formants, as loud as `opening` says."""
    count = len(opening) * SAMPLE_RATE // fps
    time = np.arange(count) / SAMPLE_RATE
    pitch = rng.uniform(95, 220) * (1 + 0.03 * np.sin(2 * np.pi * rng.uniform(3, 6) * time))
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    sound = np.zeros(count)
    first, second = rng.uniform(400, 800), rng.uniform(1100, 2000)
    for harmonic in range(1, 24):
        tone = harmonic * pitch.mean()
        level = np.exp(-(((tone - first) / 250) ** 2)) + 0.5 * np.exp(-(((tone - second) / 350) ** 2)) + 0.03
        sound += level * np.sin(harmonic * phase)
    frame_times = (np.arange(len(opening)) + 0.5) / fps
    envelope = np.interp(time, frame_times, opening)
    sound = sound / np.abs(sound).max() * envelope
    noise = np.random.default_rng(rng.getrandbits(32)).normal(size=count)
    return (0.8 * sound + 0.003 * noise).astype(np.float32)
