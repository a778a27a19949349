"""Boxes of the driving face, and pictures of it.

Source: get_face_bboxes of wan/modules/animate/preprocess/utils.py of the official code.
"""

import numpy as np
import torch
from torch import Tensor

from ..images.resize import resize_linear
from .skeleton import PoseTrack

SCALE = 1.3
SEEN = 0.3
"""Mean score of a face's points below which there is none."""


def face_boxes(track: PoseTrack, scale: float = SCALE, smooth: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [T, 4] of whole pixels, x from and to, y from and to, and whether there is a face [T].

    scale: of the box's area to that of the points. smooth: frames to either side that a box is averaged over (0, as the
    official code does it, for each frame its own)."""
    low, high = track.face[..., :2].min(axis=1), track.face[..., :2].max(axis=1)
    size = high - low
    seen = (track.face[..., 2].mean(axis=1) >= SEEN) & (size > 0).all(axis=1)
    more = size * (np.sqrt(scale) - 1)
    # more of the forehead than of the chin
    boxes = np.stack(
        [
            low[:, 0] - more[:, 0] / 2,
            high[:, 0] + more[:, 0] / 2,
            low[:, 1] - 3 * more[:, 1] / 4,
            high[:, 1] + more[:, 1] / 4,
        ],
        axis=1,
    )
    if smooth:
        boxes = np.stack([_mean(boxes, seen, i, smooth) for i in range(len(boxes))])
    limits = np.array([track.width, track.width, track.height, track.height])
    boxes = np.clip(boxes, 0, limits).astype(int)
    seen &= (boxes[:, 1] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 2])
    return boxes, seen


def _mean(boxes: np.ndarray, seen: np.ndarray, i: int, smooth: int) -> np.ndarray:
    near = slice(max(0, i - smooth), i + smooth + 1)
    return boxes[near][seen[near]].mean(axis=0) if seen[i] else boxes[i]


def crop_faces(frames: Tensor, track: PoseTrack, size: int, scale: float = SCALE, smooth: int = 0) -> Tensor:
    """Frames [T, H, W, 3] -> faces [T, size, size, 3]; black, the neutral face, where none is seen."""
    boxes, seen = face_boxes(track, scale, smooth)
    out = torch.zeros(len(frames), size, size, 3)
    for i in np.flatnonzero(seen):
        left, right, top, bottom = boxes[i]
        out[i] = resize_linear(frames[i : i + 1, top:bottom, left:right], size, size)[0]
    return out
