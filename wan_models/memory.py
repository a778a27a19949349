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


def bytes_per_token(config: DiTConfig, item_bytes: int) -> int:
    """Upper bound of what one block holds per token where processes exchange tokens, with `item_bytes` bytes a value.

    The float32 residual stream and its modulated copy; then either q, k, v and the attention result (with float32
    temporaries of the rotary embedding) or the two sides of the feed-forward, whichever is more."""
    attention = 4 * config.dim * item_bytes + 2 * config.dim * 4
    feed_forward = 2 * config.ffn_dim * item_bytes + config.dim * 4
    return 2 * config.dim * 4 + max(attention, feed_forward)


def activation_bytes(config: DiTConfig, shape: Sequence[int], compute_dtype: torch.dtype) -> int:
    """Activations of one forward of latents of `shape` [B, C, F, H, W], what a clip is conditioned on among them."""
    batch, item = shape[0], compute_dtype.itemsize
    video = tokens_of(config, shape)
    # reference and motion together have at most the tokens of three latent frames, which are kept for the steps
    beside = 3 * tokens_of(config, (1, 1, 1, *shape[3:])) if config.speech else 0
    tokens = batch * (video + beside)
    piece = 2 * min(PIECE_BYTES, tokens * config.dim * 4)
    # beside the residual stream: q, k, v and the result, or the tokens and what the feed-forward widens them to
    attention = 4 * tokens * config.dim * item + piece
    feed_forward = tokens * (config.ffn_dim + config.dim) * item
    stream = tokens * config.dim * 4
    tables = (video + beside + (video if beside else 0)) * config.head_dim * 4
    text = 3 * batch * config.text_len * config.dim * item
    kept = batch * beside * config.dim * 4
    # Animate-2: the keys and values of a driving video in a block, and the video's own with room for a frame's of these
    driven = tokens * config.dim * 4 * item if config.driven else 0
    forward = stream + max(attention + driven, feed_forward) + tables + text + kept
    return max(forward + forward // 32, _face_bytes(config, item))  # a little for all that is small


def _face_bytes(config: DiTConfig, item: int) -> int:
    """Of looking at faces before a clip's first step: 8 pictures at a time, at the first and widest level."""
    return 4 * 8 * config.face.channels[0] * config.face.size**2 * item if config.face else 0
