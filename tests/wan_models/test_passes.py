"""What blocks do to each token alone: plain, in real numbers, compiled, and handed in."""

import re
from dataclasses import fields

import pytest
import torch
from tests_support import rel_l2
from torch import nn
from torch._inductor.utils import run_and_get_code

from wan_models.dit import passes
from wan_models.models import build_network
from wan_models.random_weights import random_state_dict
from wan_models.rope import apply_rotary_, rotary_table
from wan_models.tools.small_models import CONFIGS, inputs_of

GRID, HEADS, WIDTH = (2, 3, 4), 4, 64


def given(dtype, segments=2, lengths=None):
    """Arguments of the three functions, by name."""
    length = GRID[0] * GRID[1] * GRID[2]
    x, y = torch.randn(2, length, WIDTH), torch.randn(2, length, WIDTH).to(dtype)
    shift, scale, gate = torch.randn(3, 2, segments, 1, WIDTH)
    norm = nn.RMSNorm(WIDTH, eps=1e-6)
    norm.weight = nn.Parameter(torch.randn(WIDTH), requires_grad=False)
    table = rotary_table(GRID, WIDTH // HEADS, x.device)
    return {
        "modulated_norm": (x, nn.LayerNorm(WIDTH, elementwise_affine=False), shift, scale, lengths, dtype),
        "norm_rope": (y, norm, HEADS, table),
        "add_gated": (x, y, gate, lengths),
    }


def called(function, arguments):
    """What a function gives for copies of the tensors, which it may change."""
    return function(*(a.clone() if isinstance(a, torch.Tensor) else a for a in arguments))


@torch.inference_mode()
def test_rotation_in_real_numbers():
    table = rotary_table(GRID, WIDTH // HEADS, torch.device("cpu"))
    x = torch.randn(2, table.shape[0], HEADS, WIDTH // HEADS)
    out = passes.rotated(x, torch.view_as_real(table))
    torch.testing.assert_close(out, apply_rotary_(x.clone(), table))


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("segments", "lengths"), [(1, None), (2, None), (2, (20, 4))])
def test_what_is_traced_is_the_same(dtype, segments, lengths):
    torch._dynamo.reset()
    for name, arguments in given(dtype, segments, lengths).items():
        plain = getattr(passes, name)
        traced = torch.compile(plain, backend="eager", fullgraph=True)
        out, expected = called(traced, arguments), called(plain, arguments)
        assert out.dtype == expected.dtype
        assert rel_l2(out, expected) < (1e-6 if out.dtype == torch.float32 else 1e-3)


@pytest.mark.slow
@torch.inference_mode()
def test_each_is_compiled_into_one_kernel():
    torch._dynamo.reset()
    for name, arguments in given(torch.bfloat16, 1).items():
        fused = getattr(passes.compiled(), name)
        out, code = run_and_get_code(called, fused, arguments)
        kernels = [
            line for line in "".join(code).splitlines() if re.search(r"= async_compile\.(cpp|triton)", line)
        ]
        assert len(kernels) == 1, name
        expected = called(getattr(passes, name), arguments)
        assert rel_l2(out, expected) < (1e-6 if out.dtype == torch.float32 else 1e-3)


@torch.inference_mode()
@pytest.mark.parametrize("family", CONFIGS)
def test_blocks_use_what_they_are_handed(family):
    config, counts = CONFIGS[family], dict.fromkeys((f.name for f in fields(passes.Passes)), 0)
    network = build_network(config)
    network.load_state_dict(random_state_dict(lambda: type(network)(config), 2), assign=True)

    def counted(name):
        def run(*args):
            counts[name] += 1
            return getattr(passes, name)(*args)

        return run

    given = inputs_of(config, 5)
    x, t, context = (given.pop(name) for name in ("x", "timestep", "context"))
    image, unconditional = given.pop("image", None), given.pop("unconditional", None)

    def forward():
        conditions = network.prepare(network.inputs_class(**given), tuple(x.shape[2:]))
        if unconditional is not None:
            conditions = conditions.with_unconditional(unconditional)
        return network(x, t, context, image=image, conditions=conditions)

    plain = forward()
    network.use(passes.Passes(*map(counted, counts)))
    assert torch.equal(forward(), plain)
    assert counts["modulated_norm"] == counts["add_gated"] >= 2 * config.num_layers
    assert counts["norm_rope"] >= 4 * config.num_layers
