"""Masks of who is to be replaced: dilated, and augmented to blocks, so that their outline tells nothing of the shape.

Source: get_mask_body_img and get_aug_mask of wan/modules/animate/preprocess/utils.py of the official code.
"""

import torch
import torch.nn.functional as F
from einops import repeat
from kornia.morphology import dilation
from torch import Tensor

from ..progress import OnProgress


def dilate(
    masks: Tensor, kernel: int = 7, times: int = 3, on_progress: OnProgress = lambda done, total: None
) -> Tensor:
    """Masks [T, H, W] of 0 and 1, dilated by a square of `kernel` pixels, `times` over.

    on_progress(done, total) is called after each frame, and may raise. Raises ValueError on an even kernel."""
    if kernel % 2 != 1:
        raise ValueError(f"a mask grows to all sides alike by odd kernels only, and {kernel} is even")
    out = masks.clone(memory_format=torch.contiguous_format)
    row, column = masks.new_ones(1, kernel), masks.new_ones(kernel, 1)
    # A square's maximum is that of its rows' maxima. So, and frame by frame, memory stays small with kornia before 0.9
    # too, which copies its input once for each cell of the kernel.
    for i, frame in enumerate(out):
        mask = frame[None, None]
        for _ in range(times):
            mask = dilation(dilation(mask, row), column)
        out[i] = mask[0, 0]
        on_progress(i + 1, len(out))
    return out


def augment_blocks(
    masks: Tensor, wide: int = 1, high: int = 1, on_progress: OnProgress = lambda done, total: None
) -> Tensor:
    """Masks [T, H, W] of 0 and 1 with each block filled that holds any of the mask: its box is cut into wide x high
    blocks. Empty masks stay empty. on_progress(done, total) is called after each frame, and may raise."""
    out = masks.clone(memory_format=torch.contiguous_format)
    for i, mask in enumerate(out):
        rows, columns = (torch.nonzero(mask.amax(dim=side) > 0)[:, 0].tolist() for side in (1, 0))
        if rows:
            # as the official code, which takes the last row and column for what is past the end
            _fill_blocks(mask[rows[0] : rows[-1], columns[0] : columns[-1]], wide, high)
        on_progress(i + 1, len(out))
    return out


def _fill_blocks(box: Tensor, wide: int, high: int) -> None:
    """Fills the blocks of a mask's box [H, W] in place; those at its right and bottom end may be smaller."""
    if not box.numel():
        return
    height, width = box.shape
    step_y, step_x = max(1, int(height / high)), max(1, int(width / wide))
    held = F.max_pool2d((box != 0).float()[None], (step_y, step_x), ceil_mode=True)[0] > 0
    box[repeat(held, "y x -> (y j) (x i)", j=step_y, i=step_x)[:height, :width]] = 1


def background(frames: Tensor, masks: Tensor) -> Tensor:
    """Frames [T, H, W, 3] with what the masks [T or 1, H, W] hold in black."""
    return frames * (1 - masks[..., None].to(frames))
