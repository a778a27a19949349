"""Several people over a video: who in one frame is who in the next, as numbers that stay the same.

Each person is looked for where the last frames say they are going; boxes and keypoints say how alike two sightings are.
Numbers go by the first frame that somebody is in, and by size in it, so that 1 is the largest of the first frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .boxes import Box, iou

_ALIKE = 0.1
"""Likeness below which two sightings are of two people."""
_START = 0.4
"""Score of a box that a person begins with; one who is known is followed by less sure ones too."""
_PATIENCE = 30
"""Frames for which somebody who is not seen is waited for."""
_FEWEST = 3
"""Frames that a person is seen in at least; fewer are a mistake of the detector's."""
_SPREAD = 0.2
"""Distance, in parts of a person's size, at which a keypoint is no longer much like itself."""
_STEP = 0.75
"""Farthest that somebody may have gone in one frame, in parts of their size, where nothing else is alike."""


@dataclass(frozen=True)
class Sighting:
    """Somebody in one frame: `box` [4] (left, top, right, bottom), `points` [K, 3] (x, y, score), how sure it is."""

    box: Box
    points: np.ndarray
    score: float = 1.0

    @classmethod
    def of_points(cls, points: np.ndarray) -> "Sighting | None":
        """Sighting by keypoints alone, in the box of those that are seen; None where none is."""
        seen = points[points[:, 2] > 0, :2]
        if not len(seen):
            return None
        return cls(np.concatenate([seen.min(axis=0), seen.max(axis=0)]), points)

    @property
    def size(self) -> float:
        """The longer side of the box, in pixels."""
        return float(max(self.box[2] - self.box[0], self.box[3] - self.box[1], 1.0))

    @property
    def middle(self) -> np.ndarray:
        return (self.box[:2] + self.box[2:4]) / 2

    @property
    def area(self) -> float:
        return float((self.box[2:4] - self.box[:2]).prod())


@dataclass
class _Person:
    """Whoever has been seen so far: in which frames, as which of their sightings, and where they are going."""

    seen: dict[int, int] = field(default_factory=dict)
    last: Sighting | None = None
    frame: int = -1
    speed: np.ndarray = field(default_factory=lambda: np.zeros(2))

    def add(self, frame: int, index: int, sighting: Sighting) -> None:
        if self.last is not None:
            moved = (sighting.middle - self.last.middle) / (frame - self.frame)
            self.speed = (self.speed + moved) / 2 if len(self.seen) > 1 else moved
        self.seen[frame] = index
        self.last, self.frame = sighting, frame

    def likeness(self, frame: int, sighting: Sighting) -> float:
        """0..1, how much a sighting is like this person, where they would be by now."""
        assert self.last is not None
        shift = self.speed * (frame - self.frame)
        expected = self.last.box[:4] + np.concatenate([shift, shift])
        overlap = float(iou(sighting.box[None], expected)[0])
        both = (self.last.points[:, 2] > 0) & (sighting.points[:, 2] > 0)
        if not both.any():
            return overlap
        apart = np.linalg.norm(sighting.points[both, :2] - self.last.points[both, :2] - shift, axis=1) / (
            _SPREAD * self.last.size
        )
        return (overlap + float(np.exp(-(apart**2) / 2).mean())) / 2

    def nearness(self, frame: int, sighting: Sighting) -> float:
        """0..1 for one of about the same size that is near, in the frame after this person was seen; else 0."""
        assert self.last is not None
        if frame - self.frame > 1 or not 0.5 < sighting.size / self.last.size < 2:
            return 0.0
        gone = np.linalg.norm(sighting.middle - self.last.middle) / self.last.size
        return max(0.0, float(1 - gone / _STEP))


def follow_people(frames: Sequence[Sequence[Sighting]]) -> list[dict[int, int]]:
    """The people of a video by number: for each, the frames that they are seen in and which of its sightings that is.

    frames: all sightings of each frame, in any order."""
    people: list[_Person] = []
    for i, sightings in enumerate(frames):
        waiting = [person for person in people if i - person.frame <= _PATIENCE]
        free = dict(enumerate(sightings))
        for score, least in ((_Person.likeness, _ALIKE), (_Person.nearness, 0.0)):
            pairs = [
                (score(person, i, sighting), person, index)
                for person in waiting
                for index, sighting in free.items()
            ]
            for likeness, person, index in sorted(pairs, key=lambda pair: -pair[0]):
                if likeness > least and person.frame < i and index in free:
                    person.add(i, index, free.pop(index))
            waiting = [person for person in waiting if person.frame < i]
        new = [index for index, sighting in free.items() if sighting.score >= _START]
        for index in sorted(new, key=lambda index: -free[index].area):
            people.append(_Person())
            people[-1].add(i, index, free[index])
    fewest = min(_FEWEST, len(frames))
    return [person.seen for person in people if len(person.seen) >= fewest]
