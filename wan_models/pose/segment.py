"""Masks of people through a video: SAM2, shown points of their bodies.

Source: get_mask of wan/modules/animate/preprocess/process_pipepline.py of the official code.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..progress import OnProgress
from .skeleton import PoseTrack

# nose, neck, shoulders, hips, right ankle, left ankle
_SHOWN = [0, 1, 2, 5, 8, 11, 10, 13]
_AT_ONCE, _KEY_FRAMES = 400, 4
_SEEN = 0.3


def load_sam2(folder: str | Path, device: torch.device) -> tuple[Any, Any]:
    """Model and processor of a folder of transformers' SAM2 (facebook/sam2.1-hiera-large).

    Raises ImportError where transformers is too old, ValueError where the folder holds something else."""
    try:
        from transformers import Sam2VideoModel, Sam2VideoProcessor
    except ImportError as error:
        raise ImportError(
            f"SAM2 needs a newer transformers ({error}): pip install -U 'transformers>=4.56'"
        ) from None
    try:
        model = Sam2VideoModel.from_pretrained(folder, use_safetensors=True).eval().to(device)
        return model, Sam2VideoProcessor.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{folder} is no SAM2 model of transformers ({error}): put the folder of facebook/sam2.1-hiera-large there"
        ) from error


def key_frames(count: int) -> list[int]:
    """The frames of a part of `count` frames in which points are shown."""
    return list(range(0, count, count // (_KEY_FRAMES if count > _KEY_FRAMES else 1)))


@torch.no_grad()
def segment(
    frames: Tensor,
    tracks: PoseTrack | Sequence[PoseTrack],
    model: Any,
    processor: Any,
    on_progress: OnProgress = lambda done, total: None,
) -> Tensor:
    """Frames [T, H, W, 3] in 0..1 -> masks [T, H, W] of 0 and 1 of the tracked person, or of all of several.

    Raises ValueError where frames and tracks do not go together, or nobody is seen where points are to be shown."""
    people = [tracks] if isinstance(tracks, PoseTrack) else tracks
    masks = torch.zeros(frames.shape[:3])
    for i, track in enumerate(people):

        def on_frame(done: int, before: int = i * len(frames)) -> None:
            on_progress(before + done, len(people) * len(frames))

        masks = torch.maximum(masks, _segment_one(frames, track, model, processor, on_frame))
    if not bool(masks.any()):
        raise ValueError(
            "SAM2 found the person in no frame: their keypoints may not be seen well enough to be shown to it"
        )
    return masks


def _segment_one(
    frames: Tensor, track: PoseTrack, model: Any, processor: Any, on_frame: Callable[[int], None]
) -> Tensor:
    """The mask of one person; on_frame(done) is called with the number of frames that are done."""
    if len(track) != len(frames) or (track.height, track.width) != tuple(frames.shape[1:3]):
        raise ValueError(
            f"the keypoints are of {len(track)} frames of {track.width}x{track.height}, and the video has "
            f"{len(frames)} of {frames.shape[2]}x{frames.shape[1]}: detect them in this very video"
        )
    masks = torch.zeros(frames.shape[:3])
    for first in range(0, len(frames), _AT_ONCE):
        part = frames[first : first + _AT_ONCE]
        bodies = track.body[first : first + _AT_ONCE, _SHOWN]
        shown = [(i, bodies[i][bodies[i, :, 2] >= _SEEN][:, :2]) for i in key_frames(len(part))]
        shown = [(i, points) for i, points in shown if len(points)]
        if not shown:  # somebody who is not there yet, or no more
            on_frame(first + len(part))
            continue
        session = processor.init_video_session(
            video=list((part * 255).round().byte().numpy()),
            inference_device=model.device,
            inference_state_device="cpu",
            processing_device="cpu",
            video_storage_device="cpu",
            dtype=model.dtype,
        )
        for i, points in shown:
            processor.add_inputs_to_inference_session(
                inference_session=session,
                frame_idx=i,
                obj_ids=1,
                input_points=[[points.astype(np.int32).tolist()]],
                input_labels=[[[1] * len(points)]],
            )
        size = [list(frames.shape[1:3])]
        for out in model.propagate_in_video_iterator(session, start_frame_idx=0):
            mask = processor.post_process_masks([out.pred_masks], original_sizes=size, binarize=False)[0]
            masks[first + out.frame_idx] = (mask[0, 0] > 0).float().cpu()
            on_frame(first + out.frame_idx + 1)
    return masks
