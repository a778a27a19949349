"""Finding people and their keypoints, against the official code with the same small ONNX models."""

import sys

import numpy as np
import pytest
import torch
from kornia.metrics import mean_iou_bbox
from official_preprocessing import official_preprocessing, people
from onnx_files import write_detector, write_pose

from wan_models.images.resize import resize_by_area
from wan_models.images.sizes import size_for_animate
from wan_models.pose.detect import (
    PersonDetector,
    PoseEstimator,
    choose,
    heatmaps_to_keypoints,
    iou,
    open_onnx,
    track_person,
)

BOXES = [
    (100, 40, 300, 600, 0.9, 0),
    (110, 50, 300, 590, 0.7, 0),
    (380, 200, 600, 630, 0.8, 0),
    (0, 0, 640, 640, 0.95, 7),
    (30, 30, 60, 60, 0.6, 0),
    (5, 300, 90, 640, 0.03, 0),
]


@pytest.fixture(scope="module")
def theirs():
    with official_preprocessing() as modules:
        yield modules


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    write_detector(folder / "yolov10m.onnx", BOXES)
    points = people(1, 1, 1, 5, low=0.5)[0]
    points[::9, 2] = 0
    write_pose(folder / "vitpose.onnx" / "end2end.onnx", points)
    return folder


def pictures(seed, count=4, height=180, width=240):
    return torch.from_numpy(
        np.random.default_rng(seed).integers(40, 256, (count, height, width, 3), dtype=np.uint8)
    )


@pytest.mark.parametrize(("height", "width"), [(180, 240), (320, 200)])
def test_keypoints_equal_official(theirs, files, height, width):
    frames = pictures(3, 4, height, width)
    official = theirs.pose2d.Pose2d(str(files / "vitpose.onnx"), str(files / "yolov10m.onnx"), device="cpu")
    metas = official(list(frames.numpy()))
    track = track_person(
        frames.float() / 255, PersonDetector(files / "yolov10m.onnx"), PoseEstimator(files / "vitpose.onnx")
    )
    for i, meta in enumerate(metas):
        for name, key in (("body", "body"), ("left", "left_hand"), ("right", "right_hand")):
            expected = meta[f"keypoints_{key}"] * (width, height, 1)
            assert np.abs(getattr(track, name)[i] - expected).max() < 1e-2  # pixels
        assert np.abs(track.face[i] - meta["keypoints_face"][1:] * (width, height, 1)).max() < 1e-2


@pytest.mark.parametrize("seed", range(4))
def test_decoding_equals_official(theirs, seed):
    random = np.random.default_rng(seed)
    heatmaps = random.uniform(0, 0.2, (133, 64, 48)).astype(np.float32)
    y, x = np.mgrid[:64, :48]
    for k in range(133):
        cx, cy = random.uniform(0, 48), random.uniform(0, 64)
        heatmaps[k] += np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / random.uniform(2, 20))
    heatmaps[7] = 0
    points, scores = theirs.pose2d_utils.keypoints_from_heatmaps(
        heatmaps[None], center=np.array([[24.0, 32.0]]), scale=np.array([[48.0, 64.0]]), unbiased=True
    )
    found = heatmaps_to_keypoints(heatmaps)
    assert np.abs(found[:, :2] - points[0]).max() < 1e-2 and np.array_equal(found[:, 2], scores[0, :, 0])


@pytest.mark.parametrize("count", [0, 1, 60])
def test_overlapping_boxes_go_as_in_the_official_code(theirs, tmp_path, seed, count):
    random = np.random.default_rng(seed)
    boxes = random.uniform(0, 500, (count, 2)).round(1)
    boxes = np.concatenate([boxes, boxes + random.uniform(0, 240, (count, 2)).round(1)], axis=1)
    boxes[: count // 4, 2] = boxes[: count // 4, 0]  # of no width
    scores, classes = np.linspace(0.9, 0.03, count), random.integers(0, 2, count)
    rows = [(0, 0, 5, 5, 0.01, 0), *np.column_stack([boxes, random.permutation(scores), classes])]
    write_detector(tmp_path / "yolo.onnx", rows)
    frame = pictures(seed, 1, 180, 240)
    official = theirs.pose2d.Yolo(str(tmp_path / "yolo.onnx"), device="cpu")
    expected = official.postprocess(np.array([rows], np.float32), (180, 240)).reshape(-1, 6)
    found = PersonDetector(tmp_path / "yolo.onnx")(frame[0].float() / 255)
    assert np.array_equal(found, expected[expected[:, 5] == 0])
    assert len(expected) < count or count < 2


def test_iou():
    random = np.random.default_rng(1)
    boxes = random.integers(0, 50, (40, 2))
    boxes = np.concatenate([boxes, boxes + random.integers(1, 30, (40, 2))], axis=1).astype(float)
    expected = mean_iou_bbox(torch.from_numpy(boxes), torch.from_numpy(boxes[:1]))[:, 0].numpy()
    assert np.allclose(iou(boxes, boxes[0]), expected, atol=1e-12) and 0 < (expected > 0).sum() < 40
    assert iou(np.array([[5, 5, 5, 9], [4, 4, 6, 6]]), np.array([5, 5, 5, 9])).tolist() == [0, 0]


def test_who_is_meant():
    boxes = np.array(
        [(0, 0, 100, 200, 0.9, 0), (150, 0, 300, 220, 0.5, 0), (400, 50, 440, 190, 0.9, 0)], float
    )
    assert choose(boxes, 640, "largest")[0] == 150
    assert choose(boxes, 640, "leftmost")[0] == 0
    assert choose(boxes, 640, "rightmost")[0] == 400
    assert choose(boxes, 500, "centre")[0] == 150
    assert choose(boxes, 640, "largest", before=boxes[0] + 10)[0] == 0  # who was meant before
    assert choose(boxes, 640, "largest", before=boxes[0] + 5000)[0] == 150  # and has gone
    assert choose(boxes[:0], 640, "largest") is None


def test_frames_without_anybody(files):
    detector, estimator = PersonDetector(files / "yolov10m.onnx"), PoseEstimator(files / "vitpose.onnx")
    frames = pictures(4).float() / 255
    frames[1] = 0
    told = []
    track = track_person(
        frames, detector, estimator, on_progress=lambda done, total: told.append((done, total))
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert not track.body[1].any() and (track.body[[0, 2, 3], :, 2] > 0).any()
    with pytest.raises(ValueError, match="nobody was found in any of the 4 frames"):
        track_person(frames * 0, detector, estimator)
    assert (track_person(frames * 0, None, estimator).body[..., 2] > 0).any()  # the whole frame is the person


def test_models_that_do_not_fit_say_so(files, tmp_path, monkeypatch):
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"broken\.onnx cannot be opened as an ONNX model"):
        open_onnx(tmp_path / "broken.onnx")
    with pytest.raises(ValueError, match="a person detector takes 1 x 3 x 640 x 640"):
        PersonDetector(files / "vitpose.onnx")
    with pytest.raises(ValueError, match="gives no heat maps, as ViTPose does"):
        PoseEstimator(files / "yolov10m.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        ImportError, match="needs onnxruntime, which is not installed: pip install onnxruntime"
    ):
        open_onnx(files / "vitpose.onnx")


def test_a_file_may_leave_its_sizes_open(files):
    write_pose(files / "open.onnx", people(1, 1, 1, 5, low=0.5)[0], open_size=True)
    write_pose(files / "stated.onnx", people(1, 1, 1, 5, low=0.5)[0])
    frame = pictures(6)[0].float() / 255
    assert np.array_equal(
        PoseEstimator(files / "open.onnx")(frame), PoseEstimator(files / "stated.onnx")(frame)
    )


def test_a_folder_of_transformers_gives_the_body(tmp_path):
    from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation

    backbone = VitPoseBackboneConfig(
        image_size=[64, 48], patch_size=[16, 16], hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        out_indices=[1],
    )  # fmt: skip
    model = VitPoseForPoseEstimation(VitPoseConfig(backbone_config=backbone, num_labels=17)).eval()
    model.save_pretrained(tmp_path)
    frame = pictures(2)[0].float() / 255
    found = PoseEstimator(tmp_path)(frame)
    assert found.shape == (133, 3) and found[:17].any() and not found[17:].any()


@pytest.mark.parametrize("size", [(180, 240), (1080, 1920), (721, 333), (64, 64)])
def test_video_size_equals_official(theirs, size):
    frame = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    for area in (1280 * 720, 320 * 240, 64 * 64):
        expected = theirs.utils.resize_by_area(frame, area, divisor=16)
        assert size_for_animate(size[1], size[0], area) == expected.shape[1::-1]
        found = (resize_by_area(torch.from_numpy(frame)[None].float() / 255, area)[0] * 255).numpy()
        off = np.abs(np.floor(found + 0.5) - expected)
        assert off.max() <= 1 and (off > 0).mean() < 0.12  # of one step in 255, by how OpenCV rounds
