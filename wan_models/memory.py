"""Estimates of the memory that a forward of a transformer takes beside its weights."""

from collections.abc import Sequence

import torch

from .config import DiTConfig


def tokens_of(config: DiTConfig, shape: Sequence[int]) -> int:
    """Tokens of a row of latents of `shape` [B, C, F, H, W]."""
    frames, height, width = (-(-n // p) for n, p in zip(shape[2:], config.patch_size, strict=True))
    return frames * height * width


def bytes_per_token(config: DiTConfig, item_bytes: int) -> int:
    """Upper bound of what one block holds per token at its widest, computed with `item_bytes` bytes a value.

    The float32 residual stream and its modulated copy; then either q, k, v and the attention result (with float32
    temporaries of the rotary embedding) or the two sides of the feed-forward, whichever is more."""
    attention = 4 * config.dim * item_bytes + 2 * config.dim * 4
    feed_forward = 2 * config.ffn_dim * item_bytes + config.dim * 4
    return 2 * config.dim * 4 + max(attention, feed_forward)


def activation_bytes(config: DiTConfig, shape: Sequence[int], compute_dtype: torch.dtype) -> int:
    """Upper bound of the activations of one forward of latents of `shape` [B, C, F, H, W]: of one block, and of the
    text."""
    batch, item = shape[0], compute_dtype.itemsize
    text = batch * config.text_len * config.dim * 4 * item
    return batch * tokens_of(config, shape) * bytes_per_token(config, item) + text
