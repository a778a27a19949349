"""Estimates of the memory that networks take beside their weights; bench/accounting.py counts what they are held to."""

from collections.abc import Sequence

import torch

from .config import DiTConfig
from .dit.pieces import PIECE_BYTES


def free_bytes(device: torch.device) -> int:
    """Free memory of a device, what torch holds of it unused among it."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    import psutil

    return psutil.virtual_memory().available


def tokens_of(config: DiTConfig, shape: Sequence[int]) -> int:
    """Tokens of a row of latents of `shape` [B, C, F, H, W]."""
    frames, height, width = (-(-n // p) for n, p in zip(shape[2:], config.patch_size, strict=True))
    return frames * height * width


def activation_bytes(
    config: DiTConfig, shape: Sequence[int], compute_dtype: torch.dtype, processes: int = 1
) -> int:
    """Activations of one forward of latents of `shape` [B, C, F, H, W], what a clip is conditioned on among them.

    processes: how many share the tokens; the bytes are those of each."""
    batch, item = shape[0], compute_dtype.itemsize
    video = tokens_of(config, shape)
    # reference and motion together have at most the tokens of three latent frames, which are kept for the steps
    beside = 3 * tokens_of(config, (1, 1, 1, *shape[3:])) if config.speech else 0
    tokens = batch * (video + beside)
    piece = 2 * min(PIECE_BYTES, tokens * config.dim * 4)
    feed_forward = tokens * (config.ffn_dim + config.dim) * item
    stream = tokens * config.dim * 4
    tables = (video + beside + (video if beside else 0)) * config.head_dim * 4
    text = 3 * batch * config.text_len * config.dim * item
    kept = batch * beside * config.dim * 4
    # Animate-2: the driving video's tokens, which go through the blocks in the first step at least, and its keys and
    # values in a block; alone, as much again for the video's own with those of a frame
    driving, driven = (stream, 2 * tokens * config.dim * item) if config.driven else (0, 0)
    # the one weight that is large enough to count, of the timestep, in float32
    weight = 6 * config.dim**2 * 4 if item < 4 else 0
    if processes == 1:
        # beside the residual stream: q, k, v and the result, or the tokens and what the feed-forward widens them to
        attention = 4 * tokens * config.dim * item + piece + 2 * driven
        forward = stream + driving + max(attention, feed_forward, weight)
    else:
        # q, k and v as they are computed, as they are sent, and as they come
        attention = 9 * tokens * config.dim * item + driven
        blocks = (stream + driving + max(attention, feed_forward)) // processes
        # each has a whole sequence before it is shared, and what that is copied from: 16 bits, or S2V's two parts; for
        # Animate-2 beside its share of the other one, or the keys and values
        copied = batch * video * config.dim * (4 if beside else item)
        forward = max(blocks, stream + max(copied, weight) + max(driving, driven) // processes)
    forward += tables + text + kept
    return max(forward + forward // 32, _face_bytes(config, item))  # a little for all that is small


def _face_bytes(config: DiTConfig, item: int) -> int:
    """Memory of looking at faces before a clip's first step: 8 pictures at a time, at the first and widest level."""
    return 4 * 8 * config.face.channels[0] * config.face.size**2 * item if config.face else 0
