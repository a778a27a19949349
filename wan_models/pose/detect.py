"""Finding a person in each frame, and their keypoints: YOLOv10 and ViTPose.

The official checkpoints are ONNX files; a folder of transformers' ViTPose works in the place of the latter, for the
body only. Source: wan/modules/animate/preprocess/pose2d.py and pose2d_utils.py of the official code.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from kornia.enhance import normalize
from kornia.filters import gaussian_blur2d
from kornia.geometry.bbox import nms
from kornia.geometry.transform import resize
from torch import Tensor

from ..images.resize import resize_linear
from ..progress import OnProgress
from .boxes import Box, iou
from .people import Sighting, follow_people
from .skeleton import PoseTrack

INSTALL = "pip install onnxruntime-gpu (without an NVIDIA GPU: pip install onnxruntime)"
PEOPLE = ["largest", "centre", "leftmost", "rightmost"]
"""Who is meant where there are several."""
WHOLEBODY = 133

_DETECTOR_SIZE = 640
# of the pictures ViTPose takes, rows and columns, where its file leaves that open
_POSE_SIZE = (256, 192)
_MIN_SCORE, _MAX_IOU = 0.05, 0.5
# of all people: less sure ones, and boxes of fewer pixels, are not looked at
_SURE, _SMALLEST = 0.1, 10
# a person less than this much as long as the longest is not the one that is meant
_SMALL = 0.4
# the box is widened by this much before it is looked at
_MARGIN = 1.25
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# the kernel that heat maps are blurred with, and its deviation by OpenCV's rule
_BLUR = 11
_SIGMA = 0.3 * ((_BLUR - 1) * 0.5 - 1) + 0.8


def open_onnx(path: str | Path, device: torch.device | None = None) -> Any:
    """An onnxruntime session of a file, or of the end2end.onnx in a folder; on the GPU where onnxruntime can.

    Raises ImportError with what to install, and ValueError where the file is no such model."""
    try:
        import onnxruntime
    except ImportError:
        raise ImportError(f"pose detection needs onnxruntime, which is not installed: {INSTALL}") from None
    path = Path(path)
    file = path / "end2end.onnx" if path.is_dir() else path
    providers: list[Any] = ["CPUExecutionProvider"]
    cuda = "CUDAExecutionProvider"
    if device is not None and device.type == "cuda" and cuda in onnxruntime.get_available_providers():
        providers.insert(0, (cuda, {"device_id": device.index or 0}))
    try:
        return onnxruntime.InferenceSession(str(file), providers=providers)
    except Exception as error:  # onnxruntime's own, one class per status
        raise ValueError(
            f"{file} cannot be opened as an ONNX model ({error}): it is broken or incomplete"
        ) from error


class PersonDetector:
    """YOLOv10, as ONNX: input [1, 3, 640, 640], output [1, N, 6] of boxes, scores and classes."""

    def __init__(self, path: str | Path, device: torch.device | None = None) -> None:
        self._session = open_onnx(path, device)
        self._input = self._session.get_inputs()[0].name
        shape = self._session.get_inputs()[0].shape
        if len(shape) != 4 or (isinstance(shape[2], int) and shape[2] != _DETECTOR_SIZE):
            raise ValueError(
                f"{path} takes inputs of shape {shape}; a person detector takes 1 x 3 x 640 x 640"
            )

    def __call__(self, frame: Tensor) -> Box:
        """Frame [H, W, 3] in 0..1 -> people's boxes [N, 6], in pixels of the frame."""
        height, width = frame.shape[:2]
        picture = rearrange(resize_linear(frame[None], _DETECTOR_SIZE, _DETECTOR_SIZE), "b h w c -> b c h w")
        rows = self._session.run(None, {self._input: picture.numpy()})[0]
        if rows.ndim != 3 or rows.shape[-1] != 6:
            raise ValueError(f"the detector gives {rows.shape}, and YOLOv10 rows of 6: choose yolov10m.onnx")
        rows = rows[0][rows[0, :, 4] >= _MIN_SCORE]
        # in float32 and then whole pixels, as the official code has them
        boxes = (rows[:, :4] * (np.array([width, height] * 2) / _DETECTOR_SIZE)).astype(np.float32)
        corner, size = boxes[:, :2].astype(np.int32), (boxes[:, 2:] - boxes[:, :2]).astype(np.int32)
        boxes = np.concatenate([corner, corner + size, rows[:, 4:]], axis=1)
        whole = torch.from_numpy(boxes)
        boxes = boxes[nms(whole[:, :4], whole[:, 4], _MAX_IOU).long().numpy()]
        return boxes[(boxes[:, 5] == 0) & (boxes[:, 4] > _MIN_SCORE)]


def choose(boxes: Box, width: int, person: str, before: Box | None = None) -> Box | None:
    """The box of who is meant, one of `PEOPLE`; who was meant in the frame before, where `before` tells and they are
    still there. None where there is nobody."""
    if not len(boxes):
        return None
    if before is not None:
        overlaps = iou(boxes, before)
        if overlaps.max() > 0:
            return boxes[overlaps.argmax()]
    middles, areas = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 2:4] - boxes[:, :2]).prod(axis=1)
    longest = (boxes[:, 2:4] - boxes[:, :2]).max(axis=1)
    scores = {
        "largest": areas,
        "centre": -np.abs(middles - width / 2),
        "leftmost": -middles,
        "rightmost": middles,
    }[person]
    # as the official code goes through them: the best so far sets how long the next must be
    best, length, score = None, longest.max(), -np.inf
    for i in range(len(boxes)):
        if scores[i] > score and longest[i] >= length * _SMALL:
            best, length, score = i, longest[i], scores[i]
    return None if best is None else boxes[best]


class PoseEstimator:
    """ViTPose: keypoints of the person in a box. `path` is an ONNX file or folder, or a folder of transformers."""

    def __init__(self, path: str | Path, device: torch.device | None = None) -> None:
        path = Path(path)
        if (path / "config.json").is_file():
            self._heatmaps, self._rgb, self._size = _transformers_vitpose(path, device)
            return
        session = open_onnx(path, device)
        name, shape = session.get_inputs()[0].name, session.get_inputs()[0].shape
        if len(shape) != 4 or len(session.get_outputs()[0].shape or "bcyx") != 4:
            raise ValueError(f"{path} gives no heat maps, as ViTPose does: choose vitpose_h_wholebody.onnx")
        rows, columns = (
            n if isinstance(n, int) else usual for n, usual in zip(shape[2:], _POSE_SIZE, strict=True)
        )
        # the official code shows this model blue before red
        self._heatmaps, self._rgb, self._size = (
            lambda picture: session.run(None, {name: picture})[0],
            False,
            (rows, columns),
        )

    def __call__(self, frame: Tensor, box: Box | None = None) -> np.ndarray:
        """Frame [H, W, 3] in 0..1 -> keypoints [133, 3], in pixels of the frame; of the whole frame without a box."""
        height, width = frame.shape[:2]
        if box is None or box[2] - box[0] < 10 or box[3] - box[1] < 10:
            box = np.array([0, 0, width, height])
        rows, columns = self._size
        centre = (np.asarray(box[:2]) + box[2:4]) / 2
        tall = max((box[2] - box[0]) * rows / columns, box[3] - box[1]) * _MARGIN
        size = np.array([tall * columns / rows, tall])
        picture = _crop(frame if self._rgb else frame.flip(-1), centre, size, rows, columns)
        picture = normalize(picture, torch.tensor(_MEAN), torch.tensor(_STD))
        heatmaps = self._heatmaps(picture.numpy())[0]
        points = heatmaps_to_keypoints(heatmaps)
        points[:, :2] *= size / (heatmaps.shape[2], heatmaps.shape[1])
        points[:, :2] += centre - size / 2
        out = np.zeros((WHOLEBODY, 3), np.float32)
        out[: len(points)] = points[:WHOLEBODY]
        return out


def _transformers_vitpose(path: Path, device: torch.device | None) -> tuple[Callable, bool, tuple[int, int]]:
    from transformers import VitPoseForPoseEstimation

    model = VitPoseForPoseEstimation.from_pretrained(path, use_safetensors=True).eval().to(device or "cpu")
    experts = getattr(model.config.backbone_config, "num_experts", 1)

    @torch.no_grad()
    def heatmaps(picture: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(picture).to(model.device)
        chosen = {"dataset_index": torch.tensor([0], device=model.device)} if experts > 1 else {}  # 0: COCO
        return model(pixels, **chosen).heatmaps.float().cpu().numpy()

    rows, columns = model.config.backbone_config.image_size
    return heatmaps, True, (rows, columns)


def _crop(frame: Tensor, centre: np.ndarray, size: np.ndarray, rows: int, columns: int) -> Tensor:
    """Picture in the box, [1, 3, rows, columns] in 0..1, black outside the frame.

    Cut out by hand: the official code's corners are whole pixels, kornia's crop_and_resize samples between them."""
    left, top = np.round(centre - size / 2).astype(int)
    right, bottom = np.round(centre + size / 2).astype(int)
    part = torch.zeros(bottom - top, right - left, 3)
    height, width = frame.shape[:2]
    x, y = (max(0, left), min(width, right)), (max(0, top), min(height, bottom))
    if x[0] < x[1] and y[0] < y[1]:
        part[y[0] - top : y[1] - top, x[0] - left : x[1] - left] = frame[y[0] : y[1], x[0] : x[1]]
    return resize(rearrange(part, "h w c -> 1 c h w"), (rows, columns))


def heatmaps_to_keypoints(heatmaps: np.ndarray) -> np.ndarray:
    """Heat maps [K, H, W] -> keypoints [K, 3] in cells of the map and the height of the peak, between the cells by the
    shape of the blurred peak (DARK: Zhang et al., Distribution-Aware Coordinate Representation, CVPR 2020)."""
    count, height, width = heatmaps.shape
    flat = heatmaps.reshape(count, -1)
    places, peaks = flat.argmax(axis=1), flat.max(axis=1)
    points = np.stack([places % width, places // width], axis=1).astype(np.float32)
    points[peaks <= 0] = -1
    maps = torch.from_numpy(np.ascontiguousarray(heatmaps)).float()[:, None]
    blurred = gaussian_blur2d(maps, (_BLUR, _BLUR), (_SIGMA, _SIGMA), border_type="constant")[:, 0].numpy()
    x, y = points.astype(int).T
    inside = np.flatnonzero((x > 1) & (x < width - 2) & (y > 1) & (y < height - 2))
    around = np.arange(-2, 3)
    near = blurred[
        inside[:, None, None], y[inside, None, None] + around[:, None], x[inside, None, None] + around
    ]
    with np.errstate(divide="ignore", invalid="ignore"):  # an empty map has no peak
        near = near * (peaks[inside] / blurred[inside].max(axis=(1, 2)))[:, None, None]
    logs = np.log(np.maximum(np.nan_to_num(near, nan=0.0), 1e-10))
    points[inside] += _peak_offsets(logs.astype(np.float64))
    return np.concatenate([points, peaks[:, None]], axis=1)


def _peak_offsets(near: np.ndarray) -> np.ndarray:
    """From the middles of 5 x 5 logarithms [K, 5, 5] to the tops of the parabolas through them, x and y [K, 2]: one
    step of Newton's."""
    slope = 0.5 * np.stack([near[:, 2, 3] - near[:, 2, 1], near[:, 3, 2] - near[:, 1, 2]], axis=1)
    bend_x, bend_y = (
        0.25 * (a - 2 * near[:, 2, 2] + b)
        for a, b in ((near[:, 2, 4], near[:, 2, 0]), (near[:, 4, 2], near[:, 0, 2]))
    )
    twist = 0.25 * (near[:, 3, 3] - near[:, 1, 3] - near[:, 3, 1] + near[:, 1, 1])
    hessian = rearrange(np.array([[bend_x, twist], [twist, bend_y]]), "i j k -> k i j")
    offsets = np.zeros_like(slope)
    curved = np.linalg.det(hessian) != 0
    offsets[curved] = -np.linalg.solve(hessian[curved], slope[curved, :, None])[..., 0]
    return offsets


def track_person(
    frames: Tensor,
    detector: PersonDetector | None,
    estimator: PoseEstimator,
    person: str = PEOPLE[0],
    follow: bool = True,
    on_progress: OnProgress = lambda done, total: None,
) -> PoseTrack:
    """Frames [T, H, W, 3] in 0..1 -> one person's track. Frames without anybody get a skeleton that is not seen.

    follow: in each frame the one who is where the person of the frame before was. Without a detector the whole frame
    is the person. on_progress(done, total) is called for each frame. Raises ValueError where nobody is in any frame."""
    height, width = frames.shape[1:3]
    points = np.zeros((len(frames), WHOLEBODY, 3), np.float32)
    before, count = None, 0
    for i, frame in enumerate(frames):
        box = None
        if detector is not None:
            box = choose(detector(frame), width, person, before if follow else None)
            before = before if box is None else box
        if detector is None or box is not None:
            points[i] = estimator(frame, box)
            count += 1
        on_progress(i + 1, len(frames))
    if not count:
        raise ValueError(
            f"nobody was found in {_any_of(frames)}: the person may be too small or cut off. Without a detector the "
            "whole frame is taken for the person"
        )
    return PoseTrack.from_wholebody(points, width, height)


def track_people(
    frames: Tensor,
    detector: PersonDetector,
    estimator: PoseEstimator,
    on_progress: OnProgress = lambda done, total: None,
) -> dict[int, PoseTrack]:
    """Frames [T, H, W, 3] in 0..1 -> the tracks of all people, by their numbers from 1 (see `people`).

    Where somebody is not found in a frame, their skeleton is not seen. on_progress and errors as of `track_person`."""
    height, width = frames.shape[1:3]
    sightings: list[list[Sighting]] = []
    for i, frame in enumerate(frames):
        boxes = [box for box in detector(frame) if box[4] > _SURE and min(box[2:4] - box[:2]) >= _SMALLEST]
        sightings.append([Sighting(box[:4], estimator(frame, box), float(box[4])) for box in boxes])
        on_progress(i + 1, len(frames))
    tracks = {}
    for number, seen in enumerate(follow_people(sightings), 1):
        points = np.zeros((len(frames), WHOLEBODY, 3), np.float32)
        for i, index in seen.items():
            points[i] = sightings[i][index].points
        tracks[number] = PoseTrack.from_wholebody(points, width, height)
    if not tracks:
        raise ValueError(
            f"nobody was found in {_any_of(frames)} who is sure enough to be followed: people may be too small or cut "
            "off. Looking for one person alone takes the best of each frame"
        )
    return tracks


def _any_of(frames: Tensor) -> str:
    return "the picture" if len(frames) == 1 else f"any of the {len(frames)} frames"
