"""Several people in OpenPose's form: a list of people for each frame, and numbers of who is who in `person_id`."""

from typing import Any

import numpy as np

from .people import Sighting, follow_people
from .skeleton import PoseTrack

_ID = "person_id"


def people_to_openpose(tracks: dict[int, PoseTrack]) -> list[dict[str, Any]]:
    """Tracks of one video by number -> its frames as of `PoseTrack.to_openpose`, with all people and their numbers in
    each; without numbers where there is one person, of number 1."""
    each = {number: track.to_openpose() for number, track in tracks.items()}
    if list(each) == [1]:
        return each[1]
    frames = next(iter(each.values()))
    return [
        {**frame, "people": [own[i]["people"][0] | {_ID: [number]} for number, own in each.items()]}
        for i, frame in enumerate(frames)
    ]


def people_from_openpose(frames: Any) -> dict[int, PoseTrack]:
    """Tracks by number, of frames as of `PoseTrack.from_openpose`, with its errors; one track where each frame has one
    person.

    Numbers are those of `person_id` where all people have one, as `people_to_openpose` writes them; other programs give
    people in another order in each frame, and they are numbered anew (see `people`). A person alone keeps a number that
    does not change."""
    frames = [frames] if isinstance(frames, dict) else frames
    first = PoseTrack.from_openpose(frames)
    most = max(len(frame["people"]) for frame in frames)
    numbers = [_numbers(frame["people"]) for frame in frames]
    if most <= 1:
        own = {
            number
            for frame, ids in zip(frames, numbers, strict=True)
            if frame["people"]
            for number in ids or [1]
        }
        return {own.pop() if len(own) == 1 else 1: first}
    if all(ids is not None for ids in numbers):
        places = _places(numbers)
    else:
        columns = [first, *(PoseTrack.from_openpose(frames, person) for person in range(1, most))]
        places = dict(enumerate(_followed(columns), 1))
    return {number: _picked(frames, seen) for number, seen in sorted(places.items())} or {1: first}


def _numbers(people: list[Any]) -> list[int] | None:
    """The numbers of the people of a frame; None where not each has one of their own."""
    entries = [one.get(_ID) if isinstance(one, dict) else None for one in people]
    values = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in entries]
    ids = [value for value in values if type(value) is int and value > 0]
    return ids if len({*ids}) == len(people) else None


def _places(numbers: list[Any]) -> dict[int, dict[int, int]]:
    """By number, the place of that person among those of each frame that they are in."""
    places: dict[int, dict[int, int]] = {}
    for i, ids in enumerate(numbers):
        for place, number in enumerate(ids):
            places.setdefault(number, {})[i] = place
    return places


def _followed(columns: list[PoseTrack]) -> list[dict[int, int]]:
    """The same for people in any order: `columns` are those of each place."""
    points = [
        np.concatenate([column.body, column.left, column.right, column.face], axis=1) for column in columns
    ]
    frames, places = [], []
    for i in range(len(columns[0])):
        sightings = [(place, Sighting.of_points(own[i])) for place, own in enumerate(points)]
        frames.append([sighting for _, sighting in sightings if sighting is not None])
        places.append([place for place, sighting in sightings if sighting is not None])
    return [{i: places[i][index] for i, index in seen.items()} for seen in follow_people(frames)]


def _picked(frames: Any, seen: dict[int, int]) -> PoseTrack:
    """The track of whoever is at these places; nobody is seen in the other frames."""
    return PoseTrack.from_openpose(
        [
            {**frame, "people": [frame["people"][seen[i]]] if i in seen else []}
            for i, frame in enumerate(frames)
        ]
    )
