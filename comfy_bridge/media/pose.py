"""Keypoints, drawings, faces and masks of a driving video, for the nodes. Keypoints go between nodes as POSE_KEYPOINT,
the OpenPose form that the host's and other packs' nodes give and take."""

import re
from pathlib import Path
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ...wan_models.config import FaceConfig
from ...wan_models.images.pixels import rgb
from ...wan_models.images.resize import resize_masks
from ...wan_models.images.sizes import size_for_animate
from ...wan_models.pose import detect as detection
from ...wan_models.pose import draw as drawing
from ...wan_models.pose import face, mask, retarget, segment
from ...wan_models.pose.exchange import people_from_openpose, people_to_openpose
from ...wan_models.pose.skeleton import KeypointsError, PoseTrack, fit
from ...wan_models.wording import counted
from .. import compat, folders
from ..host_types import Keypoints
from ..progress import progress

WHOLE_FRAME = "none (the whole frame)"
NO_MODEL = "none"
ALL = "all"
"""Everybody, with a number for each."""
PEOPLE = [*detection.PEOPLE, ALL]


def _model(name: str, models: dict[str, Path], where: str) -> Path:
    if name not in models:
        raise ValueError(f"there is no {name!r} in models/{where}: put it there, or choose another")
    return models[name]


def _bytes(path: Path) -> int:
    files = path.parent.iterdir() if path.is_file() and path.name == "end2end.onnx" else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def detect(
    frames: Tensor, *, detector: str, pose_model: str, person: str, follow: bool, numbers: str = ""
) -> tuple[Keypoints, str]:
    """IMAGE -> POSE_KEYPOINT of one of `PEOPLE`, and a line on who was found.

    numbers: of those of `ALL` that stay, such as "1, 3"; all where it is empty. Raises ValueError where nobody is
    found, and ImportError with what to install."""
    models, device = folders.detectors(), comfy.model_management.get_torch_device()
    paths = [
        None if name == WHOLE_FRAME else _model(name, models, folders.DETECTION)
        for name in (detector, pose_model)
    ]
    # onnxruntime takes its memory beside the host's management
    comfy.model_management.free_memory(2 * sum(_bytes(path) for path in paths if path), device)
    find = None if paths[0] is None else detection.PersonDetector(paths[0], device)
    assert paths[1] is not None
    estimate = detection.PoseEstimator(paths[1], device)
    frames = rgb(frames).cpu()
    if person != ALL:
        track = detection.track_person(frames, find, estimate, person, follow, progress())
        return track.to_openpose(), f"seen in {_frames_of(track)} of {len(track)} frames"
    if find is None:
        raise ValueError(f"a detector finds people: choose one, or another person than {ALL!r}")
    selection = _parse_numbers(numbers)
    tracks = detection.track_people(frames, find, estimate, progress())
    report = ", ".join(f"{number} in {_frames_of(track)}" for number, track in tracks.items())
    report = f"people by number, with the frames that each is seen in, of {len(frames)}: {report}"
    return people_to_openpose(_chosen(tracks, selection) if selection else tracks), report


def _frames_of(track: PoseTrack) -> int:
    """In how many frames somebody is seen."""
    return int((track.body[..., 2] > 0).any(axis=1).sum())


def _parse_numbers(text: str) -> list[int]:
    parts = [part for part in re.split(r"[\s,;]+", text) if part]
    if not all(part.isdecimal() and len(part) < 5 and int(part) for part in parts):
        raise ValueError(
            f"numbers is {text[:80]!r}: write numbers of people, such as 1, 3; or leave it empty for all"
        )
    return list(dict.fromkeys(map(int, parts)))


def _chosen(tracks: dict[int, PoseTrack], numbers: list[int]) -> dict[int, PoseTrack]:
    """The tracks of these numbers; ValueError where there is no such person."""
    if missing := [number for number in numbers if number not in tracks]:
        choices = ", ".join(map(str, tracks))
        raise ValueError(f"there is no person {missing[0]}: those that were found have the numbers {choices}")
    return {number: tracks[number] for number in numbers}


def _read_people(keypoints: Any) -> dict[int, PoseTrack]:
    """POSE_KEYPOINT -> tracks by number. Raises ValueError with what to do where it is something else."""
    try:
        return people_from_openpose(keypoints)
    except KeypointsError as error:
        raise ValueError(
            f"{error}: take them from WanPoseDetect, or another node that gives POSE_KEYPOINT"
        ) from None


def retarget_pose(keypoints: Keypoints, reference: Keypoints) -> Keypoints:
    """POSE_KEYPOINT of the driving video in the proportions of the reference's."""
    return people_to_openpose(retarget.retarget_people(_read_people(keypoints), _read_people(reference)))


def draw(
    keypoints: Keypoints,
    width: int,
    height: int,
    *,
    fit_as: str,
    hands: bool,
    head: bool,
    threshold: float,
) -> Tensor:
    """POSE_KEYPOINT -> IMAGE of skeletons on black, sized as one of `video.FIT`: "exact" fits them in."""
    people = list(_read_people(keypoints).values())
    first = people[0]
    if fit_as == "keep aspect":
        width, height = size_for_animate(first.width, first.height, width * height)
    if fit_as != "original":
        people = [fit(track, width, height) for track in people]
    show = progress()
    out = torch.empty(len(first), people[0].height, people[0].width, 3)
    for i in range(len(first)):
        out[i] = torch.from_numpy(drawing.draw(people, i, hands, head, threshold)).float() / 255
        show(i + 1, len(first))
    return out


def crop_faces(frames: Tensor, keypoints: Keypoints, scale: float, smooth: int, person: int = 0) -> Tensor:
    """IMAGE and its POSE_KEYPOINT -> IMAGE of the face in each frame: that of the person of a number, or of the lowest
    one with 0."""
    people = _people_of(frames, keypoints)
    (track,) = _chosen(people, [person or min(people)]).values()
    return face.crop_faces(rgb(frames).cpu(), track, FaceConfig().size, scale, smooth)


def _people_of(frames: Tensor, keypoints: Keypoints) -> dict[int, PoseTrack]:
    """Keypoints in the pixels of these very frames; ValueError where they are of others."""
    return {number: _placed(track, frames) for number, track in _read_people(keypoints).items()}


def _placed(track: PoseTrack, frames: Tensor) -> PoseTrack:
    if len(track) != len(frames):
        raise ValueError(
            f"the keypoints are of {counted(len(track), 'frame')}, and the video has {len(frames)}: detect them in "
            "this very video"
        )
    height, width = frames.shape[1:3]
    if abs(track.width / track.height * height / width - 1) > 0.02:
        raise ValueError(
            f"the keypoints are of frames of {track.width}x{track.height}, and the video has {width}x{height}: detect "
            "them in this very video (not those that were retargeted)"
        )
    return fit(track, width, height) if (track.width, track.height) != (width, height) else track


def subject_mask(
    frames: Tensor,
    keypoints: Keypoints | None,
    own_mask: Tensor | None,
    *,
    sam2_model: str,
    grow: int,
    grow_times: int,
    blocks_wide: int,
    blocks_high: int,
) -> Tensor:
    """MASK of the people in IMAGE, grown and in blocks: of SAM2 shown the keypoints, or of any MASK.

    grow, grow_times: see `mask.dilate`; blocks_wide, blocks_high: see `mask.augment_blocks`, 0 for none. Raises
    ValueError where there is nothing to make a mask from."""
    height, width = frames.shape[1:3]
    if own_mask is not None:
        if own_mask.shape[0] not in (1, len(frames)):
            raise ValueError(f"mask has {own_mask.shape[0]} frames and the video {len(frames)}")
        masks = (resize_masks(own_mask, width, height) > 0.5).float().expand(len(frames), -1, -1)
    elif keypoints is not None and sam2_model != NO_MODEL:
        people = _people_of(frames, keypoints)
        device = comfy.model_management.get_torch_device()
        path = _model(sam2_model, folders.segmenters(), folders.SEGMENTATION)
        model, processor = segment.load_sam2(path, comfy.model_management.unet_offload_device())
        patcher = compat.make_patcher(
            torch.nn.ModuleDict({"network": model}), device, comfy.model_management.unet_offload_device()
        )
        comfy.model_management.load_model_gpu(patcher)
        masks = segment.segment(rgb(frames).cpu(), list(people.values()), model, processor, progress())
    else:
        raise ValueError(
            "there is nothing to make a mask from: connect keypoints of WanPoseDetect and choose a SAM2 model "
            "(the folder of facebook/sam2.1-hiera-large in models/sam2), or connect a mask of your own"
        )
    masks = mask.dilate(masks, grow, grow_times, progress())
    if blocks_wide and blocks_high:
        masks = mask.augment_blocks(masks, blocks_wide, blocks_high, progress())
    return masks


def background(frames: Tensor, masks: Tensor) -> Tensor:
    """IMAGE without what is in the MASK. ValueError where they do not go together."""
    if masks.shape[0] not in (1, len(frames)):
        raise ValueError(f"mask has {masks.shape[0]} frames and the video {len(frames)}")
    height, width = frames.shape[1:3]
    return mask.background(rgb(frames), resize_masks(masks, width, height))
