"""Skeletons as Animate-14B was trained to read them: coloured bones, joints and fingers on black.

Source: draw_aapose_by_meta_new of wan/modules/animate/preprocess/human_visualization.py of the official code, which
draws with OpenCV. Here it is PIL, with each ellipse as the polygon of whole pixels that OpenCV makes of it.
"""

import colorsys
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from .skeleton import LIMBS, PoseTrack

THRESHOLD = 0.5
_HEAD = [0, 14, 15, 16, 17]
_COLOURS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0), (0, 255, 85),
    (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255),
    (255, 0, 170), (255, 0, 85), (200, 200, 0), (100, 100, 0),
)  # fmt: skip
_BONES = [tuple(int(c * 0.6) for c in colour) for colour in _COLOURS]
_FINGERS = [
    (4 * finger + joint if joint else 0, 4 * finger + joint + 1) for finger in range(5) for joint in range(4)
]
_FINGER_COLOURS = [
    tuple(round(255 * c) for c in colorsys.hsv_to_rgb(i / len(_FINGERS), 1, 1)) for i in range(len(_FINGERS))
]


def draw(
    tracks: PoseTrack | Sequence[PoseTrack],
    frame: int,
    hands: bool = True,
    head: bool = True,
    threshold: float = THRESHOLD,
) -> np.ndarray:
    """One frame of a track, or of several of one video, the first in front: [height, width, 3] of bytes. Points with
    lower scores than `threshold` are left out."""
    people = [tracks] if isinstance(tracks, PoseTrack) else tracks
    image = Image.new("RGB", (people[0].width, people[0].height))
    for track in reversed(people):
        _draw_person(ImageDraw.Draw(image), track, frame, hands=hands, head=head, threshold=threshold)
    return np.array(image)


def _draw_person(
    brush: ImageDraw.ImageDraw, track: PoseTrack, frame: int, *, hands: bool, head: bool, threshold: float
) -> None:
    thick = max(int(min(track.height, track.width) / 200) - 1, 1)
    body = track.body[frame]
    shown = body[:, 2] >= threshold
    if not head:
        shown[_HEAD] = False
    for (a, b), colour in zip(LIMBS, _BONES, strict=False):
        if shown[a] and shown[b]:
            brush.polygon(_ellipse(body[a, :2], body[b, :2], thick), fill=colour)
    for point, seen, colour in zip(body, shown, _COLOURS, strict=True):
        if seen:
            _dot(brush, point, thick, colour)
    if hands:
        for hand in (track.left[frame], track.right[frame]):
            _draw_hand(brush, hand, max(thick // 2, 1), threshold)


def _ellipse(a: np.ndarray, b: np.ndarray, thick: int) -> list[tuple[int, int]]:
    """A slim ellipse from a to b, as a polygon of whole pixels."""
    middle = [int(n) for n in (a + b) / 2]
    along, angle = (
        int(math.dist(a, b) / 2),
        math.radians(int(math.degrees(math.atan2(a[1] - b[1], a[0] - b[0])))),
    )
    turns = np.radians(np.arange(0, 361))
    x, y = along * np.cos(turns), thick * np.sin(turns)
    points = np.stack(
        [x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)], axis=1
    )
    return [(int(px), int(py)) for px, py in np.round(points + middle)]


def _dot(brush: ImageDraw.ImageDraw, point: np.ndarray, radius: int, colour: tuple[int, ...]) -> None:
    x, y = int(point[0]), int(point[1])
    brush.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _draw_hand(brush: ImageDraw.ImageDraw, hand: np.ndarray, thick: int, threshold: float) -> None:
    # points in the first row or column are the marks of hands that are not there
    whole = np.trunc(hand[:, :2])
    shown = (hand[:, 2] >= threshold) & (whole > 0).all(axis=1)
    for (a, b), colour in zip(_FINGERS, _FINGER_COLOURS, strict=True):
        if shown[a] and shown[b]:
            brush.line([tuple(whole[a]), tuple(whole[b])], fill=colour, width=thick)
    for point, seen in zip(whole, shown, strict=True):
        if seen:
            _dot(brush, point, thick, (0, 0, 255))
