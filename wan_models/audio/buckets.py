"""Audio features at wav2vec2's rate -> one step per video frame.

Source: linear_interpolation and get_audio_embed_bucket_fps of wan/modules/s2v/audio_encoder.py.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

FEATURE_RATE = 50
"""Steps per second of wav2vec2."""
MIDDLE_RATE = 30
"""The official code samples the features anew at this rate first."""


def bucket_indices(steps: int, frames_per_clip: int, fps: int = 16) -> tuple[np.ndarray, int]:
    """Which of `steps` features (at 30 per second) each video frame takes, int64 [clips * frames_per_clip], and the
    number of clips that hold them all. Indices at or past `steps` mean silence."""
    scale = MIDDLE_RATE / fps
    clips = int(steps / (frames_per_clip * scale)) + 1
    frames = clips * frames_per_clip
    total = max(steps, math.ceil(frames / fps * MIDDLE_RATE))
    times = np.linspace(0, frames / fps, frames, endpoint=False)
    return np.clip(np.round(times * MIDDLE_RATE).astype(int), 0, total - 1), clips


def per_frame(features: Tensor, frames_per_clip: int, fps: int = 16) -> Tensor:
    """Hidden states [layers, T, C] at 50 per second -> [layers, C, clips * frames_per_clip], one step per frame; the
    last clip is filled up with zeros. Raises ValueError where there is less than one step at 30 per second."""
    steps = int(features.shape[1] / FEATURE_RATE * MIDDLE_RATE)
    if steps < 1:
        raise ValueError(
            f"the audio is too short: {20 * features.shape[1]} ms, where a video needs more than 20. Use a longer "
            "recording"
        )
    middle = F.interpolate(
        rearrange(features, "n t c -> n c t"), size=steps, mode="linear", align_corners=True
    )
    indices, _ = bucket_indices(steps, frames_per_clip, fps)
    mask = torch.from_numpy(indices < steps).to(features.device)
    chosen = middle[:, :, torch.from_numpy(np.minimum(indices, steps - 1)).to(features.device)]
    return chosen * mask


def per_frame_of(features: Tensor, frames: int, frames_per_clip: int, fps: int = 16) -> Tensor:
    """`per_frame` as a batch of one, [1, layers, C, N], with silence at the end where there are less than `frames`."""
    steps = per_frame(features.float(), frames_per_clip, fps)[None]
    return F.pad(steps, (0, max(0, frames - steps.shape[-1])))
