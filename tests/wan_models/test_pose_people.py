"""Several people: numbers that stay the same, whatever order they are found in, and drawings of all of them."""

import itertools

import numpy as np
import pytest
import torch
from official_preprocessing import people as somebody
from onnx_files import write_detector, write_pose

from wan_models.pose.detect import PersonDetector, PoseEstimator, track_people, track_person
from wan_models.pose.draw import draw
from wan_models.pose.exchange import people_from_openpose, people_to_openpose
from wan_models.pose.people import Sighting, follow_people
from wan_models.pose.retarget import retarget, retarget_people
from wan_models.pose.skeleton import KeypointsError, PoseTrack

WIDTH, HEIGHT, FRAMES = 640, 360, 24


def walker(seed, start, end, size=150.0, frames=FRAMES, at=180.0):
    """Somebody who walks from one x to another, as wholebody keypoints [T, 133, 3]; the size is their height."""
    points = somebody(frames, size, size, seed, low=0.6)
    middle = points[..., :2].mean(axis=1, keepdims=True)
    way = np.stack([np.linspace(start, end, frames), np.full(frames, at)], axis=1)[:, None]
    points[..., :2] += way - middle
    return points


def track_of(points, gone=()):
    points = points.copy()
    points[list(gone)] = 0
    return PoseTrack.from_wholebody(points, WIDTH, HEIGHT)


def parts(track):
    return np.concatenate([track.body, track.left, track.right, track.face], axis=1)


def foreign(tracks, seed=0):
    """Frames as other programs write them: people in any order, those that are not seen left out, no numbers."""
    random = np.random.default_rng(seed)
    frames = []
    for each in zip(*(track.to_openpose() for track in tracks), strict=True):
        people = [frame["people"][0] for frame in each]
        people = [one for one in people if any(one["pose_keypoints_2d"][2::3])]
        random.shuffle(people)
        frames.append({**each[0], "people": people})
    return frames


SCENES = {
    "beside each other": [walker(1, 150, 200), walker(2, 420, 400, size=140)],
    "they cross": [walker(1, 120, 520, size=160), walker(2, 520, 120, size=140, at=190)],
    "three": [walker(1, 320, 330, size=200), walker(2, 100, 130), walker(3, 560, 500, size=120)],
    "one runs": [walker(1, 60, 600, size=150, frames=12), walker(2, 300, 300, size=130, frames=12, at=300)],
}


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("seed", range(3))
def test_numbers_stay_with_their_people(name, seed):
    tracks = [track_of(points) for points in SCENES[name]]
    found = people_from_openpose(foreign(tracks, seed))
    assert list(found) == list(range(1, len(tracks) + 1))
    for number, track in enumerate(tracks, 1):
        assert np.allclose(parts(found[number]), parts(track)), f"person {number}"


def test_somebody_who_is_hidden_for_a_while_keeps_the_number():
    one, two = (
        track_of(walker(1, 120, 520), gone=range(8, 14)),
        track_of(walker(2, 300, 330, size=120, at=90)),
    )
    found = people_from_openpose(foreign([one, two]))
    assert [*found] == [1, 2]
    assert np.allclose(parts(found[1]), parts(one)) and np.allclose(parts(found[2]), parts(two))


def test_who_comes_later_has_a_later_number_and_who_is_seen_for_a_moment_none():
    large = track_of(walker(1, 500, 480, size=220), gone=range(6))
    small, glimpse = (
        track_of(walker(2, 200, 210, size=90)),
        track_of(walker(3, 40, 40, size=80), gone=range(2, FRAMES)),
    )
    found = people_from_openpose(foreign([large, small, glimpse]))
    assert [*found] == [1, 2]
    assert np.allclose(parts(found[1]), parts(small)) and np.allclose(parts(found[2]), parts(large))


def test_a_cut_gives_other_people_other_numbers():
    before, after = (
        track_of(walker(1, 100, 110), gone=range(12, 24)),
        track_of(walker(2, 560, 550), gone=range(12)),
    )
    still = track_of(walker(3, 330, 330, size=120))
    found = people_from_openpose(foreign([before, after, still]))
    assert [*found] == [1, 2, 3] and not found[1].body[12:].any() and not found[3].body[:12].any()


@pytest.mark.parametrize("name", SCENES)
def test_our_own_numbers_come_back(name):
    """Whatever has been done to the keypoints meanwhile; a number is not counted anew."""
    tracks = {3 * i + 2: track_of(points, gone=range(i, 5)) for i, points in enumerate(SCENES[name])}
    found = people_from_openpose(people_to_openpose(tracks))
    assert [*found] == [*tracks]
    assert all(np.allclose(parts(found[number]), parts(tracks[number])) for number in tracks)


def test_one_person_is_as_ever():
    track = track_of(walker(1, 100, 200))
    frames = people_to_openpose({1: track})
    assert frames == track.to_openpose() and "person_id" not in frames[0]["people"][0]
    (found,) = people_from_openpose(frames).values()
    assert all(
        np.array_equal(a, b)
        for a, b in zip(parts(found), parts(PoseTrack.from_openpose(frames)), strict=True)
    )
    empty = [{**frames[0], "people": []}, frames[1]]
    assert [*people_from_openpose(empty)] == [1]


def test_one_of_several_keeps_their_number():
    frames = people_to_openpose({4: track_of(walker(1, 100, 200))})
    empty = [{**frames[0], "people": []}, frames[1]]
    assert [*people_from_openpose(frames)] == [4] == [*people_from_openpose(frames[1:])]
    assert [*people_from_openpose(empty)] == [4]
    frames[0]["people"][0]["person_id"] = [7]  # as a tracker that has lost them
    assert [*people_from_openpose(frames)] == [1]


def test_openposes_own_ids_of_minus_one_are_no_numbers():
    frames = foreign([track_of(points) for points in SCENES["they cross"]])
    for frame in frames:
        frame["people"] = [{**one, "person_id": [-1]} for one in frame["people"]]
    assert [*people_from_openpose(frames)] == [1, 2]


@pytest.mark.parametrize("people", [None, 3, [[1, 2], {}], ["x", "y"]])
def test_what_is_no_list_of_people_says_so(people):
    frames = [{"canvas_width": 64, "canvas_height": 64, "people": people}]
    with pytest.raises(KeypointsError, match="not in OpenPose's form"):
        people_from_openpose(frames)


def test_no_sightings_and_unsure_ones():
    box = np.array([10.0, 10, 60, 160])
    nothing = np.zeros((133, 3))
    assert follow_people([[]]) == [] and follow_people([]) == []
    unsure = [[Sighting(box, nothing, 0.2)] for _ in range(6)]
    assert follow_people(unsure) == [], "nobody begins unsure"
    assert follow_people([[Sighting(box, nothing, 0.9)], *unsure]) == [{i: 0 for i in range(7)}]


def test_drawings_of_all_are_those_of_each_one_over_the_other():
    tracks = [track_of(points) for points in SCENES["three"]]
    together = draw(tracks, 3)
    expected = np.zeros_like(together)
    for track in reversed(tracks):
        alone = draw(track, 3)
        expected = np.where((alone > 0).any(axis=-1, keepdims=True), alone, expected)
    assert (together != expected).any(axis=-1).mean() < 1e-3  # joints that are black themselves
    assert np.array_equal(draw(tracks[:1], 3), draw(tracks[0], 3))


def test_retargeting_goes_from_left_to_right():
    left, right = track_of(walker(1, 150, 200)), track_of(walker(2, 450, 420, size=120))
    small, tall = (
        track_of(walker(3, 100, 100, size=80, frames=1)),
        track_of(walker(4, 500, 500, size=240, frames=1)),
    )
    moved = retarget_people({1: right, 2: left}, {1: small, 2: tall})
    for number, (track, reference) in {1: (right, tall), 2: (left, small)}.items():
        assert np.array_equal(moved[number].body, retarget(track, reference).body)
    alone = retarget_people({1: right, 2: left}, {7: tall})
    assert [*alone] == [1] and np.array_equal(alone[1].body, retarget(right, tall).body)
    with pytest.raises(ValueError, match="the driving video has 1 person and the reference image 2"):
        retarget_people({1: left}, {1: small, 2: tall})


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    boxes = [(100, 40, 300, 600, 0.9, 0), (380, 200, 600, 630, 0.8, 0), (20, 20, 60, 200, 0.3, 0)]
    write_detector(folder / "yolov10m.onnx", boxes)
    write_pose(folder / "vitpose.onnx" / "end2end.onnx", somebody(1, 1, 1, 5, low=0.5)[0])
    return PersonDetector(folder / "yolov10m.onnx"), PoseEstimator(folder / "vitpose.onnx")


def test_all_people_are_tracked(models):
    """Each as somebody who is meant alone is; one who is never sure enough is nobody."""
    random = np.random.default_rng(3)
    frames = torch.from_numpy(random.integers(40, 256, (4, 180, 240, 3), dtype=np.uint8)).float() / 255
    frames[2] = 0
    told = []
    found = track_people(frames, *models, lambda done, total: told.append((done, total)))
    assert told == [(i, 4) for i in range(1, 5)] and [*found] == [1, 2]
    for track, who in zip(found.values(), ("leftmost", "rightmost"), strict=True):
        seen = parts(track_person(frames, *models, who))
        assert np.array_equal(parts(track), seen) and not seen[2].any() and seen[3].any()
    with pytest.raises(ValueError, match="nobody was found in any of the 4 frames"):
        track_people(frames * 0, *models)


def test_order_of_sightings_does_not_matter():
    points = SCENES["three"]
    frames = [[Sighting.of_points(own[i]) for own in points] for i in range(FRAMES)]
    expected = follow_people(frames)
    for order in itertools.permutations(range(3)):
        found = follow_people([[frame[k] for k in order] for frame in frames])
        assert [{i: order[k] for i, k in seen.items()} for seen in found] == expected
