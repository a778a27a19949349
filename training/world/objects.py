"""Objects that cross the picture: a shape of one colour before a plain background."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .canvas import Canvas, Colour, Point, shaded
from .words import DIRECTIONS, WORDS, Facts

COLOURS: dict[str, Colour] = {
    "red": (0.86, 0.10, 0.12), "orange": (0.97, 0.52, 0.08), "yellow": (0.96, 0.90, 0.16), "green": (0.12, 0.62, 0.20),
    "blue": (0.12, 0.25, 0.85), "purple": (0.58, 0.18, 0.72),
}  # fmt: skip
BACKGROUNDS: dict[str, Colour] = {
    "black": (0.06, 0.06, 0.07), "white": (0.94, 0.94, 0.93), "grey": (0.52, 0.52, 0.53), "green": (0.45, 0.75, 0.45),
    "blue": (0.50, 0.68, 0.93),
}  # fmt: skip
SHAPES = ("ball", "square", "triangle")
_GRID = 12
"""Middles of ways lie on a grid of so many cells in each direction: those of the latents of a picture of 96 pixels. In
17 frames an object then goes half a cell or a whole one in each latent frame, and is the same pattern of latents
wherever it is; between cells it would be another one everywhere, which is too much for small models to learn."""
_TRAVEL = {"slow": 2 / _GRID, "fast": 4 / _GRID}
"""Way of an object in a video, as a share of the picture."""
_RADIUS = {"small": 0.2, "large": 0.28}
_STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


def is_held_out(facts: Facts) -> bool:
    """Whether these facts together are kept from training, for tests: about one of twenty-one. Any three of kind,
    colour and motion are still seen together, so that none of them speaks against another."""
    kind, colour, motion = (
        list(words).index(facts[aspect])
        for aspect, words in (("kind", SHAPES), ("colour", COLOURS), ("motion", DIRECTIONS))
    )
    others = sum(list(WORDS[aspect]).index(facts[aspect]) for aspect in ("background", "speed", "size"))
    return (kind + 2 * colour + 3 * motion) % 7 == 0 and others % 3 == 0


def held_out(rng: random.Random) -> Facts:
    """All facts of a video that is held out."""
    while not is_held_out(facts := _any_facts(rng)):
        pass
    return facts


def _any_facts(rng: random.Random) -> dict[str, str]:
    colour = rng.choice(list(COLOURS))
    return {
        "kind": rng.choice(SHAPES),
        "colour": colour,
        "background": rng.choice([name for name in BACKGROUNDS if name != colour]),
        "motion": rng.choice(DIRECTIONS),
        "speed": rng.choice(list(WORDS["speed"])),
        "size": rng.choice(list(WORDS["size"])),
    }


@dataclass(frozen=True)
class Objects:
    """A video of an object that crosses the picture.

    facts: all aspects. start: centre in the middle of the way, as shares of width and height."""

    facts: Facts
    middle: Point

    @classmethod
    def draw(cls, rng: random.Random) -> "Objects":
        """One by chance, of those that are not held out."""
        while is_held_out(facts := _any_facts(rng)):
            pass
        return cls.of_facts(facts, rng)

    @classmethod
    def of_facts(cls, facts: Facts, rng: random.Random) -> "Objects":
        """A video that all these facts are true of; where the object is, is left to chance."""
        radius, travel = _RADIUS[facts["size"]], _TRAVEL[facts["speed"]]
        along, across = max(0.02, 0.48 - radius - travel / 2), max(0.02, 0.46 - radius)
        shift = {True: _on_grid(along, rng), False: _on_grid(across, rng)}
        is_across = facts["motion"] in ("left", "right")
        return cls(facts, (0.5 + shift[is_across], 0.5 + shift[not is_across]))

    def frames(self, count: int, width: int, height: int) -> Tensor:
        """[count, height, width, 3] in 0..1."""
        return torch.stack(list(self._frames(count, width, height)))

    def _frames(self, count: int, width: int, height: int) -> Iterator[Tensor]:
        facts = self.facts
        across, down = _STEPS[facts["motion"]]
        for i in range(count):
            way = _TRAVEL[facts["speed"]] * (i / max(1, count - 1) - 0.5)
            centre = (self.middle[0] + across * way) * width, (self.middle[1] + down * way) * height
            canvas = Canvas(width, height, BACKGROUNDS[facts["background"]])
            draw_shape(
                canvas,
                facts["kind"],
                centre,
                _RADIUS[facts["size"]] * min(width, height),
                COLOURS[facts["colour"]],
            )
            yield canvas.pixels()


def _on_grid(reach: float, rng: random.Random) -> float:
    """A shift by whole cells, at most by `reach` to either side."""
    cells = int(reach * _GRID)
    return rng.randint(-cells, cells) / _GRID


def draw_shape(canvas: Canvas, kind: str, centre: Point, radius: float, colour: Colour) -> None:
    """One of `SHAPES` that reaches about `radius` pixels from its centre."""
    x, y = centre
    if kind == "ball":
        canvas.ellipse(centre, (radius, radius), colour)
        light = radius * 0.35
        canvas.ellipse((x - light, y - light), (radius * 0.22, radius * 0.22), shaded(colour, 1.6))
        return
    corners = {"square": 4, "triangle": 3}[kind]
    points = []
    for i in range(corners):
        angle = 2 * math.pi * (i + 0.5 * (kind == "square")) / corners - math.pi / 2
        points.append((x + 1.2 * radius * math.cos(angle), y + 1.2 * radius * math.sin(angle)))
    canvas.polygon(points, colour)
