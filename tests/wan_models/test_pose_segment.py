"""SAM2 shown a body's points: which points in which frames, long videos in parts, and what goes wrong."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
import transformers
from official_preprocessing import people
from tiny_sam2 import write_sam2

from wan_models.pose import segment
from wan_models.pose.skeleton import PoseTrack

WIDTH, HEIGHT = 64, 48


@pytest.fixture(scope="module")
def sam2(tmp_path_factory):
    if not hasattr(transformers, "Sam2VideoModel"):
        pytest.skip("SAM2 came with transformers 4.56")
    folder = tmp_path_factory.mktemp("sam2")
    write_sam2(folder)
    return segment.load_sam2(folder, torch.device("cpu"))


def scene(frames):
    track = PoseTrack.from_wholebody(people(frames, WIDTH, HEIGHT, 1, low=0.5), WIDTH, HEIGHT)
    return torch.rand(frames, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(1)), track


def part_of(track, part):
    return PoseTrack(
        WIDTH, HEIGHT, *(points[part] for points in (track.body, track.left, track.right, track.face))
    )


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [0]), (4, [0]), (5, [0, 1, 2, 3, 4]), (9, [0, 2, 4, 6, 8]), (400, [0, 100, 200, 300])],
)
def test_key_frames_are_the_official_ones(count, expected):
    assert segment.key_frames(count) == expected


def test_points_are_shown_where_the_official_code_shows_them(sam2, monkeypatch):
    model, processor = sam2
    frames, track = scene(9)
    track.body[4, :, 2] = 0  # not seen there
    shown = {}
    show = processor.add_inputs_to_inference_session

    def spy(**given):
        shown[given["frame_idx"]] = given["input_points"][0][0]
        return show(**given)

    monkeypatch.setattr(processor, "add_inputs_to_inference_session", spy)
    masks = segment.segment(frames, track, model, processor)
    assert masks.shape == (9, HEIGHT, WIDTH) and set(masks.unique().tolist()) == {0.0, 1.0}
    assert sorted(shown) == [0, 2, 6, 8]
    assert shown[2] == track.body[2, [0, 1, 2, 5, 8, 11, 10, 13], :2].astype(np.int32).tolist()


def test_long_videos_are_worked_on_in_parts(sam2, monkeypatch):
    frames, track = scene(10)
    monkeypatch.setattr(segment, "_AT_ONCE", 6)
    told = []
    whole = segment.segment(frames, track, *sam2, on_progress=lambda done, total: told.append(done))
    parts = [
        segment.segment(frames[part], part_of(track, part), *sam2) for part in (slice(0, 6), slice(6, 10))
    ]
    assert torch.equal(whole, torch.cat(parts))
    assert told == list(range(1, 11))


def test_what_cannot_work_says_why(sam2, tmp_path):
    frames, track = scene(5)
    with pytest.raises(ValueError, match=r"of 4 frames of 64x48, and the video has 5 of 64x48"):
        segment.segment(frames, part_of(track, slice(0, 4)), *sam2)
    track.body[..., 2] = 0
    with pytest.raises(ValueError, match="found the person in no frame"):
        segment.segment(frames, track, *sam2)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="is no SAM2 model of transformers"):
        segment.load_sam2(tmp_path, torch.device("cpu"))


def test_a_transformers_without_sam2_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", ModuleType("transformers"))
    with pytest.raises(ImportError, match=r"SAM2 needs a newer transformers.*transformers>=4\.56"):
        segment.load_sam2(tmp_path, torch.device("cpu"))
