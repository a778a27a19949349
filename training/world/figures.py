"""A jointed figure that moves, seen as a video, as a skeleton, as a mask, and by its face."""

import itertools
import math
import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wan_models.pose.draw import draw
from wan_models.pose.skeleton import BODY, FACE, HAND, PoseTrack

from .canvas import Canvas, Point, shaded
from .faces import draw_face
from .objects import BACKGROUNDS, COLOURS
from .words import Facts

FACE_SIZE = 64
_JOINT = {name: i for i, name in enumerate(BODY)}
_SIDES = ("right", "left")
# what turns, with its angle at rest in degrees from straight down, outwards
_REST = {"shoulder": 25.0, "elbow": 10.0, "hip": 10.0, "knee": 0.0}


@dataclass(frozen=True)
class _Swing:
    """Swing of an angle about its rest, in degrees; rate: times per video."""

    middle: float
    reach: float
    rate: float
    phase: float

    def at(self, share: float) -> float:
        return self.middle + self.reach * math.sin(2 * math.pi * (self.rate * share + self.phase))


@dataclass(frozen=True)
class Figure:
    """A figure that dances or waves. facts: its colour, background and motion. centre: of the hips, as shares of width
    and height; size: of the whole figure, as a share of the height. swings: of each side's limbs."""

    facts: Facts
    centre: Point
    size: float
    swings: dict[str, _Swing]

    @classmethod
    def draw(cls, rng: random.Random) -> "Figure":
        colour = rng.choice(list(COLOURS))
        facts = {
            "kind": "figure", "colour": colour, "background": rng.choice([n for n in BACKGROUNDS if n != colour]),
            "motion": rng.choice(["dance", "wave"]),
        }  # fmt: skip
        return cls.of_facts(facts, rng)

    @classmethod
    def of_facts(cls, facts: Facts, rng: random.Random) -> "Figure":
        """A figure that all these facts are true of; the rest is left to chance."""
        is_dance = facts["motion"] == "dance"
        swings = {}
        waving = rng.choice(_SIDES)
        for side in _SIDES:
            for part in ("shoulder", "elbow", "hip", "knee"):
                moves = is_dance or (side == waving and part in ("shoulder", "elbow"))
                middle = _REST[part] + (
                    rng.uniform(0, 60) if is_dance and part in ("shoulder", "elbow") else 0
                )
                if not is_dance and moves:
                    middle = {"shoulder": 100.0, "elbow": 60.0}[part]
                reach = rng.uniform(10, 35) if moves else 0.0
                if part in ("hip", "knee"):
                    reach *= 0.6
                swings[f"{side} {part}"] = _Swing(middle, reach, rng.uniform(0.8, 2.0), rng.random())
        swings["sway"] = _Swing(0.0, 0.06 if is_dance else 0.0, rng.uniform(0.6, 1.4), rng.random())
        swings["mouth"] = _Swing(0.5, 0.5, rng.uniform(1.0, 3.0), rng.random())
        return cls(facts, (rng.uniform(0.44, 0.56), rng.uniform(0.54, 0.58)), rng.uniform(0.78, 0.88), swings)

    def joints(self, share: float, width: int, height: int) -> np.ndarray:
        """Points of `BODY` in pixels [20, 2] at a share of the video, 0 to 1."""
        unit = self.size * height
        hips = np.array([(self.centre[0] + self.swings["sway"].at(share)) * width, self.centre[1] * height])
        points = np.zeros((len(BODY), 2))
        neck = hips + np.array([0, -0.30 * unit])
        points[_JOINT["neck"]] = neck
        head = neck + np.array([0, -0.13 * unit])
        points[_JOINT["nose"]] = head

        def turned(
            sign: int, joint: str, start: np.ndarray, length: float, base: float = 0.0
        ) -> tuple[np.ndarray, float]:
            """The end of a limb, and its angle in degrees."""
            angle = base + self.swings[joint].at(share)
            across, down = sign * math.sin(math.radians(angle)), math.cos(math.radians(angle))
            return start + np.array([across, down]) * length * unit, angle

        for sign, side in zip((-1, 1), _SIDES, strict=True):
            across = np.array([sign, 0.0]) * unit

            shoulder, hip = neck + 0.085 * across, hips + 0.05 * across
            elbow, angle = turned(sign, f"{side} shoulder", shoulder, 0.17)
            wrist, _ = turned(sign, f"{side} elbow", elbow, 0.15, angle)
            knee, angle = turned(sign, f"{side} hip", hip, 0.22)
            ankle, _ = turned(sign, f"{side} knee", knee, 0.20, angle)
            for name, point in (
                ("shoulder", shoulder), ("elbow", elbow), ("wrist", wrist),
                ("hip", hip), ("knee", knee), ("ankle", ankle),
                ("eye", head + 0.03 * across - [0, 0.02 * unit]), ("ear", head + 0.065 * across),
            ):  # fmt: skip
                points[_JOINT[f"{side} {name}"]] = point
            points[_JOINT[f"{side} toe"]] = ankle + 0.04 * across + [0, 0.02 * unit]
        return points

    def frames(self, count: int, width: int, height: int) -> Tensor:
        """The video, [count, height, width, 3] in 0..1."""
        return torch.stack(
            [
                self._frame(i / max(1, count - 1), width, height, self.facts["background"])
                for i in range(count)
            ]
        )

    def backgrounds(self, count: int, width: int, height: int) -> Tensor:
        """The video without the figure."""
        canvas = Canvas(width, height, BACKGROUNDS[self.facts["background"]])
        return canvas.pixels().expand(count, -1, -1, -1)

    def masks(self, count: int, width: int, height: int) -> Tensor:
        """[count, height, width], 1 where the figure is."""
        return (
            (self.frames(count, width, height) - self.backgrounds(count, width, height)).abs().amax(-1) > 0.02
        ).float()

    def track(self, count: int, width: int, height: int) -> PoseTrack:
        """The joints in each frame, as a detector would find them; neither hands nor points of the face."""
        body = np.ones((count, len(BODY), 3))
        for i in range(count):
            body[i, :, :2] = self.joints(i / max(1, count - 1), width, height)
        nothing = np.zeros((count, HAND, 3))
        return PoseTrack(width, height, body, nothing, nothing, np.zeros((count, FACE, 3)))

    def poses(self, count: int, width: int, height: int) -> Tensor:
        """The skeleton as Animate-14B reads it, [count, height, width, 3] in 0..1."""
        return drawn_poses([self.track(count, width, height)])

    def faces(self, count: int) -> Tensor:
        """The face from near, [count, `FACE_SIZE`, `FACE_SIZE`, 3] in 0..1."""
        out = []
        for i in range(count):
            canvas = Canvas(FACE_SIZE, FACE_SIZE, BACKGROUNDS[self.facts["background"]])
            middle = FACE_SIZE / 2
            draw_face(
                canvas,
                (middle, middle),
                0.42 * FACE_SIZE,
                self.facts["colour"],
                self._mouth(i / max(1, count - 1)),
            )
            out.append(canvas.pixels())
        return torch.stack(out)

    def _mouth(self, share: float) -> float:
        return self.swings["mouth"].at(share)

    def _frame(self, share: float, width: int, height: int, background: str) -> Tensor:
        canvas = Canvas(width, height, BACKGROUNDS[background])
        at = {name: tuple(point) for name, point in zip(BODY, self.joints(share, width, height), strict=True)}
        unit, colour = self.size * height, COLOURS[self.facts["colour"]]
        for side in _SIDES:
            for a, b in (("hip", "knee"), ("knee", "ankle")):
                canvas.limb(at[f"{side} {a}"], at[f"{side} {b}"], 0.07 * unit, shaded(colour, 0.55))
        trunk = [at[name] for name in ("right shoulder", "left shoulder", "left hip", "right hip")]
        canvas.polygon(trunk, colour)
        for start, end in itertools.pairwise([*trunk, trunk[0]]):
            canvas.limb(start, end, 0.07 * unit, colour)
        for side in _SIDES:
            for a, b in (("shoulder", "elbow"), ("elbow", "wrist")):
                canvas.limb(at[f"{side} {a}"], at[f"{side} {b}"], 0.055 * unit, shaded(colour, 1.25))
        draw_face(canvas, at["nose"], 0.1 * unit, self.facts["colour"], self._mouth(share))
        return canvas.pixels()


def somebody_else(driving: Figure, rng: random.Random) -> dict[str, str]:
    """Facts of another figure that moves as the driving one does: its colour and its background are its own."""
    colour = rng.choice([name for name in COLOURS if name != driving.facts["background"]])
    background = rng.choice([name for name in BACKGROUNDS if name != colour])
    return {**driving.facts, "colour": colour, "background": background}


def drawn_poses(tracks: list[PoseTrack]) -> Tensor:
    """Everybody's skeletons in one video, [T, H, W, 3] in 0..1."""
    frames = [torch.from_numpy(draw(tracks, i, hands=False)) for i in range(len(tracks[0]))]
    return torch.stack(frames).float() / 255
