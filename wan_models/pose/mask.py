"""Masks of who is to be replaced: widened, and made of blocks, so that their outline tells nothing of the shape.

Source: get_mask_body_img and get_aug_mask of wan/modules/animate/preprocess/utils.py of the official code.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Tell = Callable[[int, int], None]


def widen(masks: Tensor, kernel: int = 7, times: int = 3, tell: Tell = lambda done, total: None) -> Tensor:
    """Masks [T, H, W] of 0 and 1, grown by a square of `kernel` pixels, `times` over.

    tell(done, total) is called after each frame, and may raise. Raises ValueError on an even kernel."""
    if kernel % 2 != 1:
        raise ValueError(f"a mask grows to all sides alike by odd kernels only, and {kernel} is even")
    out = masks.clone(memory_format=torch.contiguous_format)
    half = kernel // 2
    for i, mask in enumerate(out):
        for _ in range(times):
            # the greatest of a square is that of its rows' greatest
            rows = F.max_pool2d(mask[None], (1, kernel), stride=1, padding=(0, half))
            mask = F.max_pool2d(rows, (kernel, 1), stride=1, padding=(half, 0))[0]
        out[i] = mask
        tell(i + 1, len(out))
    return out


def in_blocks(masks: Tensor, wide: int = 1, high: int = 1, tell: Tell = lambda done, total: None) -> Tensor:
    """Masks [T, H, W] of 0 and 1 with each block filled that holds any of the mask: its box is cut into wide x high
    blocks. Empty masks stay empty. tell(done, total) is called after each frame, and may raise."""
    out = masks.clone(memory_format=torch.contiguous_format)
    for i, mask in enumerate(out):
        rows, columns = (torch.nonzero(mask.amax(dim=side) > 0)[:, 0].tolist() for side in (1, 0))
        if rows:
            # as the official code, which takes the last row and column for what is past the end
            _fill(mask[rows[0] : rows[-1], columns[0] : columns[-1]], wide, high)
        tell(i + 1, len(out))
    return out


def _fill(box: Tensor, wide: int, high: int) -> None:
    """Fills the blocks of a mask's box [H, W] in place; those at its right and bottom end may be smaller."""
    if not box.numel():
        return
    height, width = box.shape
    step_y, step_x = max(1, int(height / high)), max(1, int(width / wide))
    held = F.max_pool2d((box != 0).float()[None, None], (step_y, step_x), ceil_mode=True)[0, 0] > 0
    box[held.repeat_interleave(step_y, 0)[:height].repeat_interleave(step_x, 1)[:, :width]] = 1


def background(frames: Tensor, masks: Tensor) -> Tensor:
    """Frames [T, H, W, 3] with what the masks [T or 1, H, W] hold in black."""
    return frames * (1 - masks[..., None].to(frames))
