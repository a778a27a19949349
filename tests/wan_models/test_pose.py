"""Retargeting, drawing, face boxes and masks against the official preprocessing, on the same keypoints."""

import copy
import math

import numpy as np
import pytest
import torch
from official_preprocessing import official_preprocessing, people
from torch.utils._python_dispatch import TorchDispatchMode

from wan_models.pose.draw import draw
from wan_models.pose.face import crop_faces, face_boxes
from wan_models.pose.mask import augment_blocks, background, dilate
from wan_models.pose.retarget import retarget
from wan_models.pose.skeleton import PoseTrack


@pytest.fixture(scope="module")
def theirs():
    with official_preprocessing() as modules:
        yield modules


def official_metas(theirs, points, width, height):
    return theirs.pose2d_utils.load_pose_metas_from_kp2ds_seq(points, width, height)


def test_the_body_is_the_official_one(theirs):
    points = people(6, 640, 480, 1)
    points[3, :, :2] -= 5000
    track, metas = PoseTrack.from_wholebody(points, 640, 480), official_metas(theirs, points, 640, 480)
    for i, meta in enumerate(metas):
        for name, key in (("body", "body"), ("left", "left_hand"), ("right", "right_hand")):
            assert np.allclose(getattr(track, name)[i] / (640, 480, 1), meta[f"keypoints_{key}"])
        assert np.allclose(track.face[i] / (640, 480, 1), meta["keypoints_face"][1:])


def test_openpose_form_comes_back_and_others_are_read():
    track = PoseTrack.from_wholebody(people(3, 640, 480, 2), 640, 480)
    again = PoseTrack.from_openpose(track.to_openpose())
    assert all(
        np.array_equal(getattr(track, n), getattr(again, n)) for n in ("body", "left", "right", "face")
    )
    # eighteen points within 0..1, and a frame with nobody in it
    person = {"pose_keypoints_2d": np.full((18, 3), 0.5).flatten().tolist(), "face_keypoints_2d": None}
    frames = [{"canvas_width": 64, "canvas_height": 48, "people": p} for p in ([person], [])]
    other = PoseTrack.from_openpose(frames)
    assert (
        other.body[0, 3].tolist() == [32, 24, 0.5]
        and not other.body[0, 18:].any()
        and not other.body[1].any()
    )
    for wrong in ([{}], [1], "no", [{**frames[0], "people": [{"pose_keypoints_2d": [1, 2]}]}]):
        with pytest.raises(ValueError, match="not in OpenPose's form"):
            PoseTrack.from_openpose(wrong)
    with pytest.raises(ValueError, match="of frames of 2 sizes"):
        PoseTrack.from_openpose([frames[0], {**frames[0], "canvas_width": 5}])


def random_body(points, seed):
    """Points anywhere: no order among joints at all."""
    random = np.random.default_rng(seed)
    points[..., :2] = random.uniform(0, 1, points[..., :2].shape) * 600
    return points


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", ["standing", "half", "random"])
def test_retargeting_equals_official(theirs, kind, seed):
    zoom = 2.2 if kind == "half" else 1.0
    low = 0.0 if seed % 2 else 0.6
    driving, other = people(7, 640, 480, seed, zoom, low), people(1, 400, 720, seed + 50, 0.8, low)
    if kind == "random":
        driving, other = random_body(driving, seed), random_body(other, seed + 1)
    metas = official_metas(theirs, driving, 640, 480)
    first, refer = copy.deepcopy(metas[0]), official_metas(theirs, other, 400, 720)[0]
    expected = theirs.retarget_pose.get_retarget_pose(first, refer, metas, None, None)
    found = retarget(PoseTrack.from_wholebody(driving, 640, 480), PoseTrack.from_wholebody(other, 400, 720))
    assert (found.width, found.height) == (400, 720)
    for i, meta in enumerate(expected):
        assert np.abs(found.body[i, :, :2] - meta.kps_body.astype(float)).max() < 1e-6
        assert np.array_equal(found.body[i, :, 2], meta.kps_body_p)
        # the official code calls the right hand left, and the other way round
        for mine, their, scores in (
            (found.right, meta.kps_lhand, meta.kps_lhand_p), (found.left, meta.kps_rhand, meta.kps_rhand_p),
        ):  # fmt: skip
            assert np.allclose(mine[i, :, 2], scores.astype(float))
            seen = scores.astype(float) > 0
            if seen.any():
                off = np.abs(mine[i, seen, :2] - their[seen].astype(float))
                assert off.max() <= 1 and (off > 0).mean() < 0.02  # whole pixels may fall to either side


def test_unseen_points_stay_unseen_and_take_no_part(theirs):
    driving = PoseTrack.from_wholebody(people(4, 640, 480, 3, low=0.6), 640, 480)
    bust = people(1, 400, 720, 4, 2.0, 0.6)
    reference = PoseTrack.from_wholebody(bust, 400, 720)
    reference.body[0, 8:14] = reference.body[0, 18:] = 0  # another detector gives no legs at all
    driving.body[2, 3:5, 2] = 0
    found = retarget(driving, reference)
    assert np.isfinite(found.body).all() and (found.body[2, 3:5, 2] == 0).all()
    nobody = PoseTrack.from_wholebody(np.zeros((1, 133, 3)), 400, 720)
    with pytest.raises(ValueError, match="nobody is seen in the reference image"):
        retarget(driving, nobody)
    with pytest.raises(ValueError, match="nobody is seen in the first frame of the driving video"):
        retarget(nobody, driving)


@pytest.mark.parametrize(("width", "height"), [(640, 480), (1280, 720), (416, 720)])
def test_drawing_equals_official(theirs, width, height):
    points = people(4, width, height, 7, low=0.4)
    track, metas = (
        PoseTrack.from_wholebody(points, width, height),
        official_metas(theirs, points, width, height),
    )
    for i, meta in enumerate(metas):
        expected = theirs.human_visualization.draw_aapose_by_meta_new(
            np.zeros((height, width, 3), np.uint8), theirs.pose2d_utils.AAPoseMeta.from_humanapi_meta(meta)
        )
        off, drawn = (draw(track, i) != expected).any(axis=-1), (expected > 0).any(axis=-1)
        assert drawn.sum() > 1000
        assert off.mean() < 0.01 and off.sum() < 0.05 * drawn.sum()  # at the rims of joints and bones


def test_drawing_leaves_out_what_it_is_told_to():
    track = PoseTrack.from_wholebody(people(1, 640, 480, 7, low=0.9), 640, 480)
    whole = draw(track, 0)
    for options in ({"hands": False}, {"head": False}):
        part = draw(track, 0, **options)
        assert 0 < (part > 0).sum() < (whole > 0).sum()
    assert not draw(track, 0, threshold=1.5).any()


@pytest.mark.parametrize("seed", range(8))
def test_face_boxes_and_pictures_equal_official(theirs, seed):
    import cv2

    width, height = 640, 480
    points = people(5, width, height, seed, zoom=1 + seed / 20, low=0.5)
    track, metas = (
        PoseTrack.from_wholebody(points, width, height),
        official_metas(theirs, points, width, height),
    )
    boxes, seen = face_boxes(track)
    assert seen.all()
    frames = np.random.default_rng(seed).integers(0, 256, (5, height, width, 3), dtype=np.uint8)
    faces = crop_faces(torch.from_numpy(frames).float() / 255, track, 512)
    for i, meta in enumerate(metas):
        x1, x2, y1, y2 = theirs.utils.get_face_bboxes(
            meta["keypoints_face"][:, :2], scale=1.3, image_shape=(height, width)
        )
        assert boxes[i].tolist() == [x1, x2, y1, y2]
        expected = cv2.resize(frames[i, y1:y2, x1:x2], (512, 512))
        off = np.abs((faces[i] * 255).round().numpy() - expected)
        assert off.max() <= 1 and (off > 0).mean() < 0.03  # one step of 255, by how OpenCV rounds


def test_no_face_is_the_neutral_one_and_boxes_can_be_steadied():
    track = PoseTrack.from_wholebody(people(9, 640, 480, 2, low=0.6), 640, 480)
    track.face[4, :, 2] = 0.1
    track.face[5, :, :2] = 7  # all at one place
    faces = crop_faces(torch.ones(9, 480, 640, 3), track, 64)
    assert [bool(face.any()) for face in faces] == [True] * 4 + [False] * 2 + [True] * 3
    rough, steady = (face_boxes(track, smooth=n)[0][[0, 1, 2, 3, 6, 7, 8]] for n in (0, 3))
    assert np.abs(np.diff(steady, axis=0)).sum() < np.abs(np.diff(rough, axis=0)).sum()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("wide", "high"), [(1, 1), (10, 20), (3, 7)])
def test_masks_equal_official(theirs, seed, wide, high):
    random = np.random.default_rng(seed)
    mask = np.zeros((90, 120), np.uint8)
    for _ in range(3):
        x, y = random.integers(10, 80), random.integers(10, 60)
        mask[y : y + random.integers(8, 28), x : x + random.integers(8, 28)] = 1
    frame = random.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    _, dilated = theirs.utils.get_mask_body_img(frame, mask, iterations=3, k=7)
    found = dilate(torch.from_numpy(mask)[None].float())
    assert np.array_equal(found[0].numpy(), dilated)
    expected = theirs.utils.get_aug_mask(dilated.copy(), w_len=wide, h_len=high)
    found = augment_blocks(found, wide, high)
    assert np.array_equal(found[0].numpy(), expected)
    without = background(torch.from_numpy(frame)[None].float(), found)
    assert np.array_equal(without[0].numpy(), frame * (1 - expected[:, :, None]))


def blocks_one_by_one(mask, wide, high):
    """The official way, with steps of one pixel where its own would be none."""
    rows, columns = np.nonzero(mask)
    left, top, right, bottom = columns.min(), rows.min(), columns.max(), rows.max()
    step_x, step_y = max(1, int((right - left) / wide)), max(1, int((bottom - top) / high))
    for x in range(left, right, step_x):
        for y in range(top, bottom, step_y):
            block = mask[y : min(y + step_y, bottom), x : min(x + step_x, right)]
            if block.sum() > 0:
                block[:] = 1
    return mask


@pytest.mark.parametrize(("wide", "high"), [(1, 1), (1000, 1), (7, 1000), (13, 11), (1000, 1000)])
def test_blocks_of_any_number(seed, wide, high):
    """More blocks than pixels, and masks of single pixels, rows and columns."""
    masks = (torch.rand(6, 61, 47) > torch.tensor([0.5, 0.9, 0.99, 0.999, 0.5, 0.5]).view(-1, 1, 1)).float()
    masks[3, 30, 20] = masks[4, 12:14] = 1
    masks[4, :12], masks[4, 13:], masks[5, :, :9], masks[5, :, 10:] = 0, 0, 0, 0
    expected = np.stack([blocks_one_by_one(mask.copy(), wide, high) for mask in masks.numpy()])
    assert np.array_equal(augment_blocks(masks, wide, high).numpy(), expected)


class CountCalls(TorchDispatchMode):
    """Counts the calls of torch's operators."""

    calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        return func(*args, **(kwargs or {}))


def test_masks_are_made_in_few_calls_and_can_be_ended():
    """A million blocks take as many calls as one; Cancel is heard after each frame."""
    masks = torch.ones(3, 300, 400)
    counts = {}
    for number in (1, 1000):
        with CountCalls() as counter:
            augment_blocks(masks, number, number)
        counts[number] = counter.calls
    assert counts[1000] == counts[1] < 3 * 50
    for work in (dilate, augment_blocks):
        seen = []
        work(masks[:, :64, :64], on_progress=lambda done, total, seen=seen: seen.append((done, total)))
        assert seen == [(1, 3), (2, 3), (3, 3)]


def test_odd_masks():
    empty, dot = torch.zeros(2, 9, 9), torch.zeros(1, 9, 9)
    dot[0, 4, 4] = 1
    assert torch.equal(augment_blocks(dilate(empty), 10, 20), empty)
    assert torch.equal(augment_blocks(dot, 10, 20), dot)
    with pytest.raises(ValueError, match="6 is even"):
        dilate(dot, 6)
    assert math.isclose(dilate(dot, 3, 2).sum().item(), 25)
