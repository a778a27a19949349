"""GGUF's packed blocks against the gguf package's own unpacking."""

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize as reference
from gguf.quants import quantize

from wan_models.checkpoints.packed.gguf_blocks import BLOCKS, dequantize, packed_width

# where in a block its half-precision numbers lie
_HALVES = {
    "Q4_1": (0, 2), "Q5_1": (0, 2), "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
}  # fmt: skip


def random_blocks(kind, rows, blocks, seed):
    """Random bytes with sane scales: uint8 [rows, blocks * bytes]."""
    chance = np.random.default_rng(seed)
    raw = chance.integers(0, 256, (rows, blocks, BLOCKS[kind].bytes), dtype=np.uint8)
    for place in _HALVES.get(kind, (0,)):
        scales = chance.normal(0, 0.01, (rows, blocks, 1)).astype(np.float16)
        raw[:, :, place : place + 2] = scales.view(np.uint8)
    return raw.reshape(rows, -1)


@pytest.mark.parametrize("kind", BLOCKS)
def test_equals_the_gguf_package(seed, kind):
    raw = random_blocks(kind, 5, 3, seed)
    expected = torch.from_numpy(reference(raw, GGMLQuantizationType[kind]))
    found = dequantize(torch.from_numpy(raw), kind, torch.float32)
    assert torch.equal(found, expected)
    assert packed_width(kind, found.shape[1]) == raw.shape[1]
    for dtype in (torch.bfloat16, torch.float16):
        assert torch.equal(dequantize(torch.from_numpy(raw), kind, dtype), expected.to(dtype))
    some = torch.from_numpy(raw).view(5, 1, -1)[2:4]
    assert torch.equal(dequantize(some, kind, torch.float32), expected.view(5, 1, -1)[2:4])


@pytest.mark.parametrize(("kind", "step"), [("Q8_0", 1 / 127), ("Q5_1", 1 / 31), ("Q4_0", 1 / 8)])
def test_round_trip_stays_within_a_step(seed, kind, step):
    weight = torch.randn(4, 64)
    raw = torch.from_numpy(quantize(weight.numpy(), GGMLQuantizationType[kind]))
    blocks = (dequantize(raw, kind, torch.float32) - weight).view(4, 2, 32).abs().amax(2)
    spread = 2 * weight.view(4, 2, 32).abs().amax(2)
    assert (blocks <= spread * step).all()


def test_errors_name_the_format():
    with pytest.raises(ValueError, match=r"'Q9_X'; known are Q4_0.*Q6_K"):
        dequantize(torch.zeros(1, 18, dtype=torch.uint8), "Q9_X", torch.float32)
    with pytest.raises(ValueError, match="19 bytes are no whole number of Q4_0 blocks of 18"):
        dequantize(torch.zeros(1, 19, dtype=torch.uint8), "Q4_0", torch.float32)
    with pytest.raises(ValueError, match="300 values does not fill whole Q6_K blocks of 256"):
        packed_width("Q6_K", 300)
