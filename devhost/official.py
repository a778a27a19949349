"""Stand-ins for the official code's kernels that need a GPU."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor


def per_frame_attention(
    q: Tensor, k: Tensor, v: Tensor, max_seqlen_q: int, batch_size: int, **_: Any
) -> Tensor:
    """The official signature of animate.face_blocks.attention over torch's own; q, k, v: [B T, L, H, D]."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch_size, max_seqlen_q, -1)
