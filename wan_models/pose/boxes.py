"""Boxes around people."""

import numpy as np

Box = np.ndarray
"""[..., 4 or more]: left, top, right, bottom; a detector's have score and class too."""


def iou(boxes: Box, other: Box) -> np.ndarray:
    """Intersection over union of boxes [N, 4 or more] with one other, [N]; 0 where neither has a size, which kornia's
    mean_iou_bbox refuses."""
    sides = np.minimum(boxes[:, 2:4], other[2:4]) - np.maximum(boxes[:, :2], other[:2])
    shared = sides.clip(min=0).prod(axis=1)
    total = (boxes[:, 2:4] - boxes[:, :2]).prod(axis=1) + (other[2:4] - other[:2]).prod() - shared
    return np.divide(shared, total, out=np.zeros(len(boxes)), where=total != 0)
