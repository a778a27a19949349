"""Masks of who is to be replaced: widened, and made of blocks, so that their outline tells nothing of the shape.

Source: get_mask_body_img and get_aug_mask of wan/modules/animate/preprocess/utils.py of the official code.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def widen(masks: Tensor, kernel: int = 7, times: int = 3) -> Tensor:
    """Masks [T, H, W] of 0 and 1, grown by a square of `kernel` pixels, `times` over.

    Raises ValueError on an even kernel."""
    if kernel % 2 != 1:
        raise ValueError(f"a mask grows to all sides alike by odd kernels only, and {kernel} is even")
    for _ in range(times):
        masks = F.max_pool2d(masks[:, None], kernel, stride=1, padding=kernel // 2)[:, 0]
    return masks


def in_blocks(masks: Tensor, wide: int = 1, high: int = 1) -> Tensor:
    """Masks [T, H, W] of 0 and 1 with each block filled that holds any of the mask: its box is cut into wide x high
    blocks. Empty masks stay empty."""
    out = masks.clone()
    for mask in out:
        rows, columns = (torch.nonzero(mask.amax(dim=side) > 0)[:, 0].tolist() for side in (1, 0))
        if not rows:
            continue
        (top, bottom), (left, right) = (rows[0], rows[-1]), (columns[0], columns[-1])
        step_x, step_y = max(1, int((right - left) / wide)), max(1, int((bottom - top) / high))
        for x in range(left, right, step_x):
            for y in range(top, bottom, step_y):
                block = mask[y : min(y + step_y, bottom), x : min(x + step_x, right)]
                if bool(block.any()):
                    block.fill_(1)
    return out


def background(frames: Tensor, masks: Tensor) -> Tensor:
    """Frames [T, H, W, 3] with what the masks [T or 1, H, W] hold in black."""
    return frames * (1 - masks[..., None].to(frames))
