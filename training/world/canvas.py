"""Pictures drawn with smooth edges: everything is drawn larger and reduced."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

Colour = tuple[float, float, float]
"""Red, green and blue in 0..1."""
Point = tuple[float, float]
_SCALE = 3


def shaded(colour: Colour, factor: float) -> Colour:
    """A colour made darker (factor below 1) or mixed with white (above)."""
    if factor <= 1:
        return tuple(value * factor for value in colour)  # type: ignore[return-value]
    return tuple(value + (1 - value) * (factor - 1) for value in colour)  # type: ignore[return-value]


class Canvas:
    """A picture of `width` x `height` pixels; positions and lengths are in pixels, y goes down."""

    def __init__(self, width: int, height: int, background: Colour) -> None:
        self.width, self.height = width, height
        self._image = Image.new("RGB", (width * _SCALE, height * _SCALE), _bytes(background))
        self._draw = ImageDraw.Draw(self._image)

    def ellipse(self, centre: Point, radii: Point, colour: Colour) -> None:
        (x, y), (across, down) = centre, radii
        box = [(x - across) * _SCALE, (y - down) * _SCALE, (x + across) * _SCALE, (y + down) * _SCALE]
        self._draw.ellipse(box, fill=_bytes(colour))

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        self._draw.polygon([(x * _SCALE, y * _SCALE) for x, y in points], fill=_bytes(colour))

    def limb(self, start: Point, end: Point, thickness: float, colour: Colour) -> None:
        """A line with round ends."""
        (x0, y0), (x1, y1) = start, end
        length = math.hypot(x1 - x0, y1 - y0) or 1.0
        across, down = (y0 - y1) / length * thickness / 2, (x1 - x0) / length * thickness / 2
        corners = [
            (x0 + across, y0 + down),
            (x1 + across, y1 + down),
            (x1 - across, y1 - down),
            (x0 - across, y0 - down),
        ]
        self.polygon(corners, colour)
        for x, y in (start, end):
            self.ellipse((x, y), (thickness / 2, thickness / 2), colour)

    def pixels(self) -> Tensor:
        """[H, W, 3] in 0..1."""
        return torch.from_numpy(np.array(self._image.reduce(_SCALE))).float() / 255


def _bytes(colour: Colour) -> tuple[int, ...]:
    return tuple(round(255 * min(1.0, max(0.0, value))) for value in colour)
