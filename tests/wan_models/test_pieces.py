"""Tokens that are worked on in pieces give, to the bit, what all of them at once give: the formulas of training."""

import pytest
import torch
from torch import nn

from wan_models.dit import pieces
from wan_models.dit.passes import modulated_norm
from wan_models.models import build_network
from wan_models.random_weights import random_state_dict
from wan_models.tools.small_models import CONFIGS, inputs_of


def forward(network, config, batch):
    given = inputs_of(config, 5, batch)
    x, t, context = (given.pop(name).to(network.dtype) for name in ("x", "timestep", "context"))
    image, unconditional = given.pop("image", None), given.pop("unconditional", None)
    inputs = network.inputs_class(**{name: value.to(network.dtype) for name, value in given.items()})
    conditions = network.prepare(inputs, tuple(x.shape[2:]))
    if unconditional is not None:
        conditions = conditions.with_unconditional(unconditional)
    return network(x, t, context, image=image, conditions=conditions)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("tokens", [7, 36, 10**6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", CONFIGS)
def test_a_forward_in_pieces(monkeypatch, family, dtype, tokens, batch):
    config = CONFIGS[family]
    network = build_network(config, dtype=dtype)
    state = random_state_dict(lambda: type(network)(config), 2)
    network.load_state_dict({name: weight.to(dtype) for name, weight in state.items()}, assign=True)
    network.requires_grad_(False)
    monkeypatch.setattr(pieces, "piece_tokens", lambda x: tokens)
    with torch.enable_grad():
        assert not pieces.in_pieces()
        whole = forward(network, config, batch)
    with torch.inference_mode():
        assert pieces.in_pieces()
        assert torch.equal(forward(network, config, batch), whole)


@pytest.mark.parametrize("lengths", [None, (1, 3, 8), (12,), (0, 12)])
@pytest.mark.parametrize("tokens", [1, 2, 3, 5, 100])
def test_pieces_are_all_tokens_once_each_in_one_segment(monkeypatch, lengths, tokens):
    monkeypatch.setattr(pieces, "piece_tokens", lambda x: tokens)
    segments = 4 if lengths is None else len(lengths)
    x, seen = torch.zeros(2, 12, 3), torch.zeros(2, 12)
    of_token = torch.arange(segments).repeat_interleave(torch.tensor(lengths or (3,) * 4))
    for rows, part, inside in pieces.pieces(x, segments, lengths):
        seen[rows, part] += 1
        assert part.stop - part.start <= max(tokens, 3 if inside.stop - inside.start > 1 else 1)
        assert set(of_token[part].tolist()) == set(range(inside.start, inside.stop))
    assert seen.eq(1).all()


@torch.no_grad()
def test_the_norm_of_real_widths():
    """1536 and 5120 are widths of released models; the pieces are those of this CPU."""
    for width, segments, dtype in ((1536, 1, torch.bfloat16), (5120, 3, torch.float32)):
        x, norm = torch.randn(2, 1200, width), nn.LayerNorm(width, elementwise_affine=False)
        shift, scale = torch.randn(2, 2, segments, 1, width)
        expected = norm(x).unflatten(1, (segments, -1)) * (1 + scale) + shift
        out = modulated_norm(x, norm, shift, scale, None, dtype)
        with torch.enable_grad():
            assert torch.equal(out, modulated_norm(x, norm, shift, scale, None, dtype))
        torch.testing.assert_close(out, expected.flatten(1, 2).to(dtype))
