"""More motion, or less, in what an image-to-video model is told of its video.

Distilled models tend to slow motion. What they are told of the frames to make is grey, whose latents differ from the
first frame's; these differences are made larger. Source: the node PainterI2V of princepainter, for ComfyUI.
"""

import math

import torch
from torch import Tensor

_LARGEST = 6.0  # of a value that was changed


def amplify_motion(latents: Tensor, known: Tensor, amplitude: float) -> Tensor:
    """Latents [B, C, 1 + n, h, w] of a video of 4n + 1 frames, as a VAE gives them (not normalised), with other
    differences from the first one.

    known: [4n + 1], bool; the first latent stays, and those with a known frame. Of another one the difference d from
    the first becomes m + (d - m) * amplitude, where m is its mean over channels and pixels, and values are cut off at
    -6 and 6. 1 changes nothing. Raises ValueError on an amplitude that is no number from 0 up."""
    if not 0 <= amplitude < math.inf:
        raise ValueError(f"amplitude of motion must be a number from 0 up, not {amplitude}")
    if amplitude == 1:
        return latents
    first = latents[:, :, :1]
    difference = latents - first
    mean = difference.mean(dim=(1, 3, 4), keepdim=True)
    changed = (first + mean + (difference - mean) * amplitude).clamp(-_LARGEST, _LARGEST)
    count = latents.shape[2]
    stays = [i == 0 or bool(known[4 * i - 3 : 4 * i + 1].any()) for i in range(count)]
    return torch.where(torch.tensor(stays, device=latents.device).view(count, 1, 1), latents, changed)
