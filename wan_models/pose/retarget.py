"""The driving skeleton in the proportions of the reference: each bone as long as theirs, each at its own angle.

Source: wan/modules/animate/preprocess/retarget_pose.py of the official code, without the edited pictures that it can
take its proportions from.
"""

from dataclasses import replace

import numpy as np

from .skeleton import LIMBS, PoseTrack

NOSE, NECK, RIGHT_WRIST, LEFT_WRIST = 0, 1, 4, 7
RIGHT_HIP, RIGHT_ANKLE, LEFT_HIP, LEFT_ANKLE, LEFT_TOE, RIGHT_TOE = 8, 10, 11, 13, 18, 19
# bones that get the larger of both ratios, by their place in LIMBS: shoulders, arms, legs, feet
_PAIRED = ((0, 1), (2, 4), (3, 5), (6, 9), (7, 10), (8, 11), (17, 18))
# and those that get the mean: nose to eyes, eyes to ears
_AVERAGED = ((13, 15), (14, 16))
# a foot is at most this much of its calf: (foot, calf)
_FOOT, _FEET = 0.5, ((18, 8), (17, 11))
_SEEN, _SURE = 0.4, 0.5


def retarget(track: PoseTrack, reference: PoseTrack) -> PoseTrack:
    """The driving track in the canvas and the proportions of the reference, whose first frame counts; without faces.

    Where the first driving frame and the reference show the feet, both stand on the same ground; else their necks are
    at the same place. Points that are not seen stay so. Raises ValueError where either begins with nobody in it."""
    for name, pose in (("driving video", track), ("reference image", reference)):
        if not (pose.body[0, :, 2] > 0).any():
            raise ValueError(
                f"nobody is seen in the {'first frame of the ' if pose is track else ''}{name}: retargeting measures "
                "both people there. Choose another start, or another picture"
            )
    first, other = track.body[0], reference.body[0]
    scale = _scale(track, reference)
    canvas = np.array([int(reference.width * scale), int(reference.height * scale)])
    # the reference, in pixels of its canvas scaled to the driving one's measure
    target = other[:, :2] / (reference.width, reference.height) * canvas
    ratios = _ratios(first, other, target)

    moved = _rebuild(first[None, :, :2], np.broadcast_to(ratios, (1, len(LIMBS))))[0]
    if _shows_feet(track, first) and _shows_feet(reference, other):
        ground = (
            max(target[RIGHT_ANKLE, 1] + target[RIGHT_TOE, 1], target[LEFT_ANKLE, 1] + target[LEFT_TOE, 1])
            / 2
        )
        middle = target[[RIGHT_HIP, LEFT_HIP], 0].mean()
        shift = np.array(
            [
                moved[[RIGHT_HIP, LEFT_HIP], 0].mean() - middle,
                moved[[RIGHT_ANKLE, LEFT_ANKLE], 1].max() - ground,
            ]
        )
    else:
        shift = moved[NECK] - target[NECK]

    points = track.body[..., :2]
    frame_ratios = np.tile(ratios, (len(track), 1))
    for foot, calf in _FEET:
        lengths = [frame_ratios[:, limb] * _length(points, limb) for limb in (foot, calf)]
        with np.errstate(divide="ignore", invalid="ignore"):
            shortened = np.where(lengths[0] > _FOOT * lengths[1], _FOOT * lengths[1] / lengths[0], 1.0)
        frame_ratios[:, foot] *= shortened
    body = (_rebuild(points, frame_ratios) - shift) / scale
    right, left = _hands(track, body, max(ratios[0], ratios[1]) / scale)
    return replace(
        track,
        width=reference.width,
        height=reference.height,
        body=np.concatenate([body, track.body[..., 2:]], axis=2),
        left=left,
        right=right,
        face=np.zeros_like(track.face),
    )


def retarget_people(tracks: dict[int, PoseTrack], references: dict[int, PoseTrack]) -> dict[int, PoseTrack]:
    """`retarget` of several people, by number: from left to right in the first frame, each in the proportions of that
    one of the reference. With one person in the reference, the driving one of the lowest number.

    Raises ValueError where the reference has several people and the driving video another number of them."""
    if len(references) == 1:
        (reference,) = references.values()
        number = min(tracks)
        return {number: retarget(tracks[number], reference)}
    if len(tracks) != len(references):
        people = "1 person" if len(tracks) == 1 else f"{len(tracks)} people"
        raise ValueError(
            f"the driving video has {people} and the reference image {len(references)}: each takes the proportions of "
            "one, from left to right. Detect as many people in both, or one in the reference"
        )
    pairs = zip(
        *(sorted(people, key=lambda n: _middle(people[n])) for people in (tracks, references)), strict=True
    )
    return dict(sorted((number, retarget(tracks[number], references[other])) for number, other in pairs))


def _middle(track: PoseTrack) -> float:
    """Horizontal place of somebody in the first frame, in pixels; past all others where they are not seen."""
    seen = track.body[0, :, 2] > 0
    return float(track.body[0, seen, 0].mean()) if seen.any() else float("inf")


def _scale(track: PoseTrack, reference: PoseTrack) -> float:
    """Height of the driving person relative to the reference, from the nose to the ankles, else to the hips; else
    relative size of the picture."""
    first, other = track.body[0], reference.body[0]
    for low in ((RIGHT_ANKLE, LEFT_ANKLE), (RIGHT_HIP, LEFT_HIP)):
        seen = min(first[[NOSE, *low], 2].min(), other[[NOSE, *low], 2].min()) > _SURE
        heights = [abs(person[list(low), 1].mean() - person[NOSE, 1]) for person in (first, other)]
        if seen and min(heights) > 0:
            return float(heights[0] / heights[1])
    return float(np.sqrt(track.width * track.height / (reference.width * reference.height)))


def _length(points: np.ndarray, limb: int) -> np.ndarray:
    start, end = LIMBS[limb]
    return np.linalg.norm(points[..., end, :] - points[..., start, :], axis=-1)


def _ratios(first: np.ndarray, other: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Ratio of each bone of the reference to the driving one; the shoulders' where either is not seen."""
    ratios = np.full(len(LIMBS), np.nan)
    for limb, ends in enumerate(LIMBS):
        length = _length(first[:, :2], limb)
        if length > 0 and min(first[list(ends), 2].min(), other[list(ends), 2].min()) > 0:
            ratios[limb] = _length(target, limb) / length
    shoulders = ratios[:2].mean()
    ratios[np.isnan(ratios)] = 1.0 if np.isnan(shoulders) else shoulders
    for a, b in _PAIRED:
        ratios[[a, b]] = max(ratios[a], ratios[b])
    for a, b in _AVERAGED:
        ratios[[a, b]] = (ratios[a] + ratios[b]) / 2
    return ratios


def _rebuild(points: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """[T, 20, 2] with each bone's length times its ratio [T, bones], from the neck outwards."""
    out = points.copy()
    for limb, (start, end) in enumerate(LIMBS):
        out[:, end] = out[:, start] + ratios[:, limb, None] * (points[:, end] - points[:, start])
    return out


def _shows_feet(track: PoseTrack, person: np.ndarray) -> bool:
    low = person[[RIGHT_HIP, RIGHT_ANKLE, LEFT_HIP, LEFT_ANKLE]]
    return bool((low[:, 2] >= _SEEN).all() and (low[:, 1] <= track.height).all())


def _hands(track: PoseTrack, body: np.ndarray, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Right and left hand, scaled about their roots and put to the moved wrists, in whole pixels."""
    hands = [np.where(hand[..., 2:] < _SEEN, 0.0, hand) for hand in (track.right, track.left)]
    wrists = [track.body[:, i, :2] for i in (RIGHT_WRIST, LEFT_WRIST)]
    moved = [body[:, i] for i in (RIGHT_WRIST, LEFT_WRIST)]
    roots = [hand[:, 0, :2] for hand in (track.right, track.left)]
    # an unseen root counts as outside, which is how the official code comes to leave the hands as they are
    seen = [hand[:, :1, 2] >= _SEEN for hand in (track.right, track.left)]
    outside = -np.array([track.width, track.height], dtype=np.float64)
    root = np.where(seen[0], roots[0], outside)
    crossed = np.linalg.norm(wrists[0] - root, axis=1) > np.linalg.norm(wrists[1] - root, axis=1)
    shifts = [
        new - old + np.where(there, old - start, 0.0)
        for new, old, there, start in zip(moved, wrists, seen, roots, strict=True)
    ]
    out = []
    for hand, start in zip(hands, roots, strict=True):
        out.append((hand[..., :2] * ratio - start[:, None] * (ratio - 1), hand[..., 2:]))
    placed = []
    for own, other in ((0, 1), (1, 0)):
        points = np.where(crossed[:, None, None], out[other][0], out[own][0])
        scores = np.where(crossed[:, None, None], out[other][1], out[own][1])
        points = np.trunc(points + shifts[own][:, None])
        placed.append(np.concatenate([np.where(scores > 0, points, 0.0), scores], axis=2))
    return placed[0], placed[1]
