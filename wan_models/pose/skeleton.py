"""A person's keypoints over a video, and the OpenPose form in which programs exchange them.

Keypoints are rows of x, y in pixels and a score from 0 (not seen) up. The body's 20 are OpenPose's 18 and the toes.
Source: wan/modules/animate/preprocess/pose2d_utils.py of the official code.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..images.sizes import letterbox_rectangle

BODY = (
    "nose", "neck", "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow", "left wrist",
    "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle", "right eye", "left eye",
    "right ear", "left ear", "left toe", "right toe",
)  # fmt: skip
HAND, FACE = 21, 68
# The two COCO-WholeBody points whose middle is a point of the body: the neck lies between the shoulders, a toe between
# the big and the small one.
_FIRST = [0, 6, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3, 17, 20]
_SECOND = [0, 5, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3, 18, 21]

LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17), (13, 18), (10, 19),
)  # fmt: skip
"""Pairs of body points that a bone joins; the end nearer to the neck comes first."""


class KeypointsError(ValueError):
    """Keypoints that are not in OpenPose's form."""


@dataclass(frozen=True)
class PoseTrack:
    """One person over a video of `width` x `height`: body [T, 20, 3], left and right hand [T, 21, 3], face
    [T, 68, 3]."""

    width: int
    height: int
    body: np.ndarray
    left: np.ndarray
    right: np.ndarray
    face: np.ndarray

    def __len__(self) -> int:
        return len(self.body)

    @classmethod
    def from_wholebody(cls, points: np.ndarray, width: int, height: int) -> "PoseTrack":
        """From COCO-WholeBody's 133 keypoints [T, 133, 3], in pixels."""
        body = (points[:, _FIRST] + points[:, _SECOND]) / 2
        outside = (body[..., :2].min(axis=2) < 0).all(axis=1)
        for i in np.flatnonzero(outside):  # a body that is nowhere in the picture stays where it was
            if i:
                body[i] = body[i - 1]
        return cls(width, height, body, points[:, 91:112], points[:, 112:133], points[:, 23:91])

    def to_openpose(self) -> list[dict[str, Any]]:
        """One dict per frame, as OpenPose writes them: canvas_width, canvas_height, people."""
        return [
            {
                "canvas_width": self.width,
                "canvas_height": self.height,
                "people": [
                    {
                        "pose_keypoints_2d": body.flatten().tolist(),
                        "face_keypoints_2d": face.flatten().tolist(),
                        "hand_left_keypoints_2d": left.flatten().tolist(),
                        "hand_right_keypoints_2d": right.flatten().tolist(),
                    }
                ],
            }
            for body, left, right, face in zip(self.body, self.left, self.right, self.face, strict=True)
        ]

    @classmethod
    def from_openpose(cls, frames: Any, person: int = 0) -> "PoseTrack":
        """From frames of `to_openpose`, or of other programs: points in pixels, or all of them within 0..1.

        person: which of the people of each frame. Where there are fewer, nobody is seen. Raises KeypointsError on what
        is no such list, and ValueError where the frames are of several sizes."""
        frames = [frames] if isinstance(frames, dict) else frames
        try:
            sizes = {(int(frame["canvas_width"]), int(frame["canvas_height"])) for frame in frames}
            people = [frame["people"][person] if person < len(frame["people"]) else {} for frame in frames]
            parts = {
                name: np.stack([_rows(one.get(key), count) for one in people])
                for name, key, count in (
                    ("body", "pose_keypoints_2d", len(BODY)),
                    ("left", "hand_left_keypoints_2d", HAND),
                    ("right", "hand_right_keypoints_2d", HAND),
                    ("face", "face_keypoints_2d", FACE),
                )
            }
        except (AttributeError, KeyError, TypeError, IndexError, ValueError) as error:
            raise KeypointsError(
                f"the keypoints are not in OpenPose's form (canvas_width, canvas_height, people; {error!r})"
            ) from None
        if len(sizes) != 1:
            raise ValueError(f"the keypoints are of frames of {len(sizes)} sizes: a video has one")
        ((width, height),) = sizes
        if max(part[..., :2].max() for part in parts.values()) <= 1:
            for part in parts.values():
                part[..., :2] *= (width, height)
        return cls(width, height, **parts)


def _rows(flat: Any, count: int) -> np.ndarray:
    """A flat list of x, y, score -> [count, 3]; points that it lacks are not seen."""
    out = np.zeros((count, 3))
    if flat is not None and len(flat):
        rows = np.asarray(flat, dtype=np.float64).reshape(-1, 3)[:count]
        out[: len(rows)] = rows
    return out


def fit(track: PoseTrack, width: int, height: int) -> PoseTrack:
    """The track in another canvas: scaled to fit, in its middle. Source: AAPoseMeta.padding_resize2 of the official
    preprocessing."""
    *_, left, top = letterbox_rectangle(track.width, track.height, width, height)
    scale = min(width / track.width, height / track.height)

    def moved(points: np.ndarray) -> np.ndarray:
        seen = points[..., 2:] > 0
        return np.concatenate(
            [np.where(seen, points[..., :2] * scale + (left, top), 0.0), points[..., 2:]], axis=-1
        )

    return PoseTrack(
        width, height, *(moved(part) for part in (track.body, track.left, track.right, track.face))
    )
