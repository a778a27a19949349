"""The transformer against the official one, at a tiny size."""

import contextlib

import pytest
import torch
from tests_support import on_meta, randomize_, rel_l2
from torch import nn

from wan_models.config import DiTConfig
from wan_models.dit.base import WanModel

TINY = {
    "dim": 96,
    "ffn_dim": 160,
    "freq_dim": 32,
    "text_dim": 48,
    "text_len": 20,
    "num_heads": 4,
    "num_layers": 2,
}


def pair(official, model_type="t2v", **sizes):
    """The official model and ours with the same random weights; zero-initialised layers are random too."""
    from wan.modules.model import WanModel as OfficialModel

    sizes = {**TINY, **sizes}
    reference = randomize_(OfficialModel(model_type=model_type, **sizes), std=0.2).eval()
    ours = on_meta(WanModel, DiTConfig(family=model_type, **sizes)).eval()
    ours.load_state_dict(reference.state_dict(), assign=True)
    return reference, ours


def run_official(reference, x, t, context, y=None):
    tokens = x.shape[2] * x.shape[3] * x.shape[4] // 4
    t = t if t.dim() == 2 else t[:, None]
    t = t.repeat_interleave(tokens // t.shape[1], dim=1)  # the official model takes a timestep per token
    return torch.stack(reference(list(x), t, context, tokens, None if y is None else list(y)))


@pytest.mark.parametrize("heads", [4, 3, 2])
@torch.no_grad()
def test_forward_equals_official(official, seed, heads):
    reference, ours = pair(official, num_heads=heads)
    x = torch.randn(2, 16, 3, 10, 14)
    t = torch.tensor([999, 3])
    context = [torch.randn(7, 48), torch.randn(20, 48)]
    assert rel_l2(ours(x, t, context), run_official(reference, x, t, context)) < 1e-5


@torch.no_grad()
def test_one_timestep_per_latent_frame(official, seed):
    """Known frames of TI2V stand at timestep 0 beside unknown ones."""
    reference, ours = pair(official, "ti2v", in_dim=48, out_dim=48)
    x = torch.randn(2, 48, 3, 6, 10)
    t = torch.tensor([[0, 700, 700], [0, 31, 900]])
    context = [torch.randn(5, 48), torch.randn(11, 48)]
    assert rel_l2(ours(x, t, context), run_official(reference, x, t, context)) < 1e-5


@torch.no_grad()
def test_conditioning_channels(official, seed):
    reference, ours = pair(official, "i2v", in_dim=36)
    x, y = torch.randn(1, 16, 2, 6, 8), torch.randn(1, 20, 2, 6, 8)
    context, t = [torch.randn(9, 48)], torch.tensor([500])
    assert (
        rel_l2(ours(torch.cat([x, y], dim=1), t, context), run_official(reference, x, t, context, y)) < 1e-5
    )
    with pytest.raises(ValueError, match="expects 36 channels and got 16"):
        ours(x, t, context)


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_bfloat16_is_as_near_to_float32_as_the_official_code(official, seed, weights, monkeypatch):
    """Same rule for which part runs in which precision: the error against fp32 must not be larger."""
    reference, ours = pair(official)
    if weights is torch.bfloat16:  # what the official code does with convert_model_dtype
        reference, ours = reference.to(weights), ours.to(weights)
    exact_reference = pair(official)[0]
    exact_reference.load_state_dict(reference.state_dict())
    x, t, context = (
        torch.randn(2, 16, 3, 6, 10),
        torch.tensor([999, 400]),
        [torch.randn(7, 48), torch.randn(20, 48)],
    )
    exact = run_official(exact_reference.float(), x, t, context)

    plain = torch.amp.autocast

    def autocast(device, dtype=None, enabled=True):
        # the official blocks switch the CUDA autocast to float32 for their fp32 parts; here the CPU one stands for it
        return plain("cpu", enabled=False) if dtype is torch.float32 else contextlib.nullcontext()

    monkeypatch.setattr(torch.amp, "autocast", autocast)
    if (
        weights is torch.bfloat16
    ):  # float32 autocast casts weights on a GPU; without one, cast them beforehand
        norms = (block.norm3 for block in reference.blocks)
        for part in (reference.time_embedding, reference.time_projection, reference.head, *norms):
            part.float()
    with plain("cpu", dtype=torch.bfloat16):
        official_half = run_official(reference, x, t, context)
    ours.compute_dtype = torch.bfloat16
    assert rel_l2(ours(x, t, context), exact) <= 1.2 * rel_l2(official_half, exact) < 0.1


@torch.no_grad()
def test_run_block_sees_every_block_and_may_replace_it(official, seed):
    _, ours = pair(official)
    x, t, context = torch.randn(1, 16, 1, 4, 6), torch.tensor([10]), [torch.randn(3, 48)]
    seen = []

    def run(index, block, x, **inputs):
        seen.append(index)
        return block(x, **inputs)

    assert torch.equal(ours(x, t, context, run_block=run), ours(x, t, context))
    assert seen == [0, 1]
    skipped = ours(x, t, context, run_block=lambda index, block, x, **inputs: x)
    assert rel_l2(skipped, ours(x, t, context)) > 1e-3


@pytest.mark.parametrize(
    ("x", "context", "message"),
    [
        (torch.zeros(1, 20, 1, 4, 4), torch.zeros(1, 3, 48), "expects 16 channels and got 20"),
        (torch.zeros(1, 16, 1, 4, 4), torch.zeros(1, 3, 64), "48 wide and got 64"),
        (torch.zeros(1, 16, 1, 5, 4), torch.zeros(1, 3, 48), "must divide by the patch"),
    ],
)
def test_wrong_inputs_say_what_was_expected(x, context, message):
    model = WanModel(DiTConfig(**TINY))
    with pytest.raises(ValueError, match=message):
        model(x, torch.tensor([1]), context)


@pytest.mark.parametrize("lengths", [(5, 3), (0, 0), (11, 2), (12, 12)])
@torch.no_grad()
def test_what_texts_are_padded_with_is_embedded_once(lengths):
    """And what is embedded is the same: rows of zeros are like one another, also those inside of a text."""
    embedding = randomize_(WanModel(DiTConfig(**TINY)), std=0.2).text_embedding
    rows = torch.randn(2, 12, embedding[0].in_features)
    for row, length in zip(rows, lengths, strict=True):
        row[length:] = 0
    rows[:, 1] = 0
    seen = []
    embedding[0].register_forward_hook(lambda layer, given, out: seen.append(given[0].shape[1]))
    found = embedding(rows)
    assert seen == [min(12, max(lengths) + 1)]
    assert rel_l2(found, nn.Sequential(*embedding)(rows)) < 1e-6
