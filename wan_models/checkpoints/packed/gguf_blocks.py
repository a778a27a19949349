"""GGUF's block-quantised weights -> floating point, in torch on any device.

A row of a weight is a row of blocks; each block packs 32 or 256 values with their scales into a few bytes. The
layouts are those of the block structs of ggml (ggml-common.h). Arithmetic is float32, cast once at the end.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor


@dataclass(frozen=True)
class Block:
    """One format: how many values a block holds, of which fields (bytes each), and how they unpack.

    unpack takes the fields, uint8 [N, bytes] each, and gives the values, float32 [N, values]."""

    values: int
    fields: tuple[int, ...]
    unpack: Callable[..., Tensor]

    @property
    def bytes(self) -> int:
        return sum(self.fields)


def dequantize(raw: Tensor, kind: str, dtype: torch.dtype) -> Tensor:
    """Packed rows [..., bytes per row] uint8 -> [..., values per row] of `dtype`.

    Raises ValueError on an unknown kind and on a row that is no whole number of blocks."""
    block = _block(kind)
    if raw.shape[-1] % block.bytes:
        raise ValueError(f"{raw.shape[-1]} bytes are no whole number of {kind} blocks of {block.bytes}")
    fields = raw.reshape(-1, block.bytes).split(block.fields, dim=1)
    return block.unpack(*fields).to(dtype).view(*raw.shape[:-1], -1)


def packed_width(kind: str, values: int) -> int:
    """Bytes of a row of that many values; ValueError on an unknown kind or where they do not fill whole blocks."""
    block = _block(kind)
    if values % block.values:
        raise ValueError(f"a row of {values} values does not fill whole {kind} blocks of {block.values}")
    return values // block.values * block.bytes


def _block(kind: str) -> Block:
    if kind not in BLOCKS:
        raise ValueError(f"unknown kind of GGUF blocks {kind!r}; known are {', '.join(BLOCKS)}")
    return BLOCKS[kind]


def _half(field: Tensor) -> Tensor:
    """[N, 2 k] bytes -> k half-precision numbers as float32 [N, k]."""
    return field.contiguous().view(torch.float16).float()


def _signed(field: Tensor) -> Tensor:
    return field.contiguous().view(torch.int8).float()


def _planes(field: Tensor, bits: int, count: int) -> Tensor:
    """[N, B] bytes -> [N, count, B]: plane i holds the `bits` bits of each byte from bit i * bits up."""
    shifts = torch.arange(0, bits * count, bits, device=field.device, dtype=torch.uint8).view(1, count, 1)
    return (field.unsqueeze(1) >> shifts) & ((1 << bits) - 1)


def _nibbles(field: Tensor) -> Tensor:
    """[N, B] bytes -> [N, 2 B]: all low halves, then all high ones."""
    return rearrange(_planes(field, 4, 2), "n plane b -> n (plane b)")


def _fifth_bits(field: Tensor) -> Tensor:
    """[N, 4] bytes -> the 32 bits of each in order, as 16s, [N, 32]."""
    return rearrange(_planes(field, 1, 8), "n plane b -> n (b plane)") << 4


def _q4_0(d: Tensor, q: Tensor) -> Tensor:
    return _half(d) * (_nibbles(q).float() - 8)


def _q4_1(d: Tensor, m: Tensor, q: Tensor) -> Tensor:
    return _half(d) * _nibbles(q).float() + _half(m)


def _q5_0(d: Tensor, high: Tensor, q: Tensor) -> Tensor:
    return _half(d) * ((_nibbles(q) | _fifth_bits(high)).float() - 16)


def _q5_1(d: Tensor, m: Tensor, high: Tensor, q: Tensor) -> Tensor:
    return _half(d) * (_nibbles(q) | _fifth_bits(high)).float() + _half(m)


def _q8_0(d: Tensor, q: Tensor) -> Tensor:
    return _half(d) * _signed(q)


def _q2_k(scales: Tensor, q: Tensor, d: Tensor, dmin: Tensor) -> Tensor:
    scale, minimum = (_half(d) * (scales & 15).float()), (_half(dmin) * (scales >> 4).float())
    # two halves of 128 values, each 32 bytes with four planes of two bits
    values = _planes(q.reshape(-1, 32), 2, 4).reshape(-1, 16, 16).float()
    return (scale.unsqueeze(2) * values - minimum.unsqueeze(2)).flatten(1)


def _q3_k(high: Tensor, q: Tensor, scales: Tensor, d: Tensor) -> Tensor:
    low_bits = _nibbles(scales[:, :8])
    high_bits = _planes(scales[:, 8:], 2, 4).flatten(1) << 4
    scale = _half(d) * ((low_bits | high_bits).float() - 32)
    values = _planes(q.reshape(-1, 32), 2, 4).reshape(-1, 16, 16).float()
    lower = (
        _planes(high, 1, 8).reshape(-1, 16, 16) ^ 1
    ).float() * 4  # the third bit, stored the other way round
    return (scale.unsqueeze(2) * (values - lower)).flatten(1)


def _scales_and_minima(packed: Tensor) -> tuple[Tensor, Tensor]:
    """The 12 bytes of Q4_K and Q5_K -> eight 6-bit scales and eight 6-bit minima, float32 [N, 8, 1] each.

    The first four of each lie in the low six bits of bytes 0-3 and 4-7; of the other four, the low halves are the
    nibbles of bytes 8-11 and the upper two bits are those left over in bytes 0-7."""
    first, second, third = packed.split(4, dim=1)
    scale = torch.cat([first & 63, (third & 15) | ((first >> 6) << 4)], dim=1)
    minimum = torch.cat([second & 63, (third >> 4) | ((second >> 6) << 4)], dim=1)
    return scale.float().unsqueeze(2), minimum.float().unsqueeze(2)


def _affine_k(d: Tensor, dmin: Tensor, scales: Tensor, values: Tensor) -> Tensor:
    """Eight sub-blocks of 32 whole numbers [N, 8, 32], each with a scale and a minimum -> [N, 256]."""
    scale, minimum = _scales_and_minima(scales)
    scale, minimum = _half(d).unsqueeze(2) * scale, _half(dmin).unsqueeze(2) * minimum
    return (scale * values.float() - minimum).flatten(1)


def _q4_k(d: Tensor, dmin: Tensor, scales: Tensor, q: Tensor) -> Tensor:
    return _affine_k(d, dmin, scales, _nibbles(q.reshape(-1, 32)).reshape(-1, 8, 32))


def _q5_k(d: Tensor, dmin: Tensor, scales: Tensor, high: Tensor, q: Tensor) -> Tensor:
    values = _nibbles(q.reshape(-1, 32)).reshape(-1, 8, 32)
    return _affine_k(d, dmin, scales, values | (_planes(high, 1, 8) << 4))


def _q6_k(low: Tensor, high: Tensor, scales: Tensor, d: Tensor) -> Tensor:
    low_bits = _nibbles(low.reshape(-1, 64)).reshape(-1, 16, 16)
    high_bits = _planes(high.reshape(-1, 32), 2, 4).reshape(-1, 16, 16)
    scale = _half(d) * _signed(scales)
    return (scale.unsqueeze(2) * ((low_bits | (high_bits << 4)).float() - 32)).flatten(1)


_CODEBOOK = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def _looked_up(index: Tensor) -> Tensor:
    return torch.tensor(_CODEBOOK, device=index.device, dtype=torch.float32)[index.long()]


def _iq4_nl(d: Tensor, q: Tensor) -> Tensor:
    return _half(d) * _looked_up(_nibbles(q))


def _iq4_xs(d: Tensor, scales_high: Tensor, scales_low: Tensor, q: Tensor) -> Tensor:
    low_bits = rearrange(_planes(scales_low, 4, 2), "n plane b -> n (b plane)")
    high_bits = rearrange(_planes(scales_high, 2, 4), "n plane b -> n (b plane)") << 4
    scale = _half(d) * ((low_bits | high_bits).float() - 32)
    values = _looked_up(_nibbles(q.reshape(-1, 16))).reshape(-1, 8, 32)
    return (scale.unsqueeze(2) * values).flatten(1)


BLOCKS: dict[str, Block] = {
    "Q4_0": Block(32, (2, 16), _q4_0),
    "Q4_1": Block(32, (2, 2, 16), _q4_1),
    "Q5_0": Block(32, (2, 4, 16), _q5_0),
    "Q5_1": Block(32, (2, 2, 4, 16), _q5_1),
    "Q8_0": Block(32, (2, 32), _q8_0),
    "Q2_K": Block(256, (16, 64, 2, 2), _q2_k),
    "Q3_K": Block(256, (32, 64, 12, 2), _q3_k),
    "Q4_K": Block(256, (2, 2, 12, 128), _q4_k),
    "Q5_K": Block(256, (2, 2, 12, 32, 128), _q5_k),
    "Q6_K": Block(256, (128, 64, 16, 2), _q6_k),
    "IQ4_NL": Block(32, (2, 16), _iq4_nl),
    "IQ4_XS": Block(256, (2, 2, 4, 128), _iq4_xs),
}
