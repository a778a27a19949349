"""Normalized attention guidance and schedules of prompts against their formulas, and where they must change nothing."""

from dataclasses import replace

import pytest
import torch
from tests_support import rel_l2

from wan_models.attention import sdpa
from wan_models.distributed.sequence_parallel import Shard
from wan_models.dit.guided_text import GuidedText
from wan_models.dit.layers import CrossAttention, pad_text
from wan_models.dit.text_guidance import NAG
from wan_models.dit.text_schedule import Schedule, Segment
from wan_models.dit.tokens import FrameSpan
from wan_models.models import build_network
from wan_models.random_weights import random_state_dict
from wan_models.tools.small_models import CONFIGS, inputs_of


def network_of(config):
    network = build_network(config).to_empty(device="cpu")
    network.load_state_dict(random_state_dict(lambda: type(network)(config), 1))
    return network


class Clip:
    """A small model of a family, and a step of a clip for it."""

    def __init__(self, family, seed, batch=2):
        self.network, given = network_of(CONFIGS[family]), inputs_of(CONFIGS[family], seed, batch)
        self.x, self.t, self.text = (given.pop(name) for name in ("x", "timestep", "context"))
        self.image, unconditional = given.pop("image", None), given.pop("unconditional", None)
        self.conditions = self.network.prepare(self.network.inputs_class(**given), tuple(self.x.shape[2:]))
        if unconditional is not None:
            self.conditions = self.conditions.with_unconditional(unconditional)
        self.negative = torch.randn(1, 5, self.text.shape[-1])

    def velocity(self, text=None, **given):
        text = self.text if text is None else text
        return self.network(self.x, self.t, text, image=self.image, conditions=self.conditions, **given)

    def guided(self, **settings):
        return self.velocity(GuidedText(self.text, NAG(self.negative, **settings)))

    def scheduled(self, schedule, nag=None):
        return self.velocity(GuidedText(self.text, nag, schedule))


def published(positive, negative, scale, tau, alpha):
    """Equations of the paper in float64: extrapolation, normalisation by the L1 norm, blending."""
    positive, negative = positive.double(), negative.double()
    far = positive * scale - negative * (scale - 1)
    ratio = far.abs().sum(-1, keepdim=True) / positive.abs().sum(-1, keepdim=True)
    far = torch.where(ratio > tau, far / ratio * tau, far)
    return alpha * far + (1 - alpha) * positive


@pytest.mark.parametrize(
    ("scale", "tau", "alpha"), [(11.0, 2.5, 0.25), (3.0, 1.0, 1.0), (0.0, 0.5, 0.6), (40, 9, 0.1)]
)
@torch.no_grad()
def test_formula(seed, scale, tau, alpha):
    positive = torch.randn(2, 300, 48) * torch.logspace(-3, 3, 300)[:, None]
    negative = positive + torch.randn(2, 300, 48) * torch.rand(300, 1) * 3
    expected = published(positive, negative, scale, tau, alpha)
    out = NAG(negative, scale, tau, alpha).combine(positive.clone(), negative)
    assert (out - expected).norm(dim=-1).div(expected.norm(dim=-1)).max() < 1e-5


@pytest.mark.parametrize("family", CONFIGS)
@torch.no_grad()
def test_a_forward_with_the_formula_in_every_cross_attention(seed, family, monkeypatch):
    """The rows of the positive prompt look at both texts; the video's picture and all other rows stay as they are."""
    clip, settings = Clip(family, seed), {"scale": 7.0, "tau": 1.5, "alpha": 0.4}
    rows = torch.tensor([True, False])
    plain, found = clip.velocity(), clip.guided(rows=rows, **settings)
    assert torch.equal(found[1], plain[1])
    assert rel_l2(found[0], plain[0]) > 0.01
    text = pad_text(clip.negative, clip.network.config.text_len)
    embedded = clip.network.text_embedding(text)
    forward, layers = CrossAttention.forward, {id(block.cross_attn) for block in clip.network.blocks}

    def by_hand(self, x, context, image, attention):
        if id(self) not in layers or context.shape[0] != 2:  # of the audio, or the driving video's
            return forward(self, x, context, image, attention)
        q, out = self.norm_q(self.q(x)), 0
        positive, negative = (
            attention(q, self.norm_k(self.k(rows)), self.v(rows), self.num_heads)
            for rows in (context, embedded.expand(2, -1, -1))
        )
        positive[0] = published(positive[0], negative[0], **settings)
        if image is not None:
            out = attention(q, self.norm_k_img(self.k_img(image)), self.v_img(image), self.num_heads)
        return self.o(positive + out)

    monkeypatch.setattr(CrossAttention, "forward", by_hand)
    assert rel_l2(found, clip.velocity()) < 1e-5


@pytest.mark.parametrize("family", CONFIGS)
@torch.no_grad()
def test_what_changes_nothing_is_the_plain_forward_to_the_bit(seed, family):
    clip = Clip(family, seed)
    plain = clip.velocity()
    for settings in (
        {"scale": 1.0},
        {"scale": 1.0, "tau": 0.5},
        {"alpha": 0.0},
        {"rows": torch.zeros(2, dtype=bool)},
    ):
        assert torch.equal(clip.guided(**settings), plain), settings
    clip.negative = clip.text[:1]
    found = clip.guided(tau=0.5)
    assert torch.equal(found[0], plain[0]) and not torch.equal(found[1], plain[1])


@torch.no_grad()
def test_a_negative_that_is_nearly_the_prompt_changes_nearly_nothing(seed):
    """There is no step at the text itself, which is looked at apart."""
    clip = Clip("t2v", seed, batch=1)
    clip.negative = clip.text + 1e-5 * torch.randn_like(clip.text)
    assert 0 < rel_l2(clip.guided(), clip.velocity()) < 1e-3


def test_in_training_as_in_inference(seed):
    clip = Clip("i2v", seed)
    with torch.no_grad():
        expected = clip.guided(rows=torch.tensor([False, True]))
    clip.text.requires_grad_(True)
    clip.negative.requires_grad_(True)
    found = clip.guided(rows=torch.tensor([False, True]))
    assert rel_l2(found, expected) < 1e-6
    found.pow(2).mean().backward()
    assert all(float(x.grad.abs().sum()) > 0 for x in (clip.text, clip.negative))


def test_plain_data_and_back(seed):
    text = torch.randn(2, 4, 8)
    for nag in (None, NAG(text[:1]), NAG(text[1:], 3.0, 1.5, 0.5, torch.tensor([True, False]))):
        guided = GuidedText(text, nag)
        data = guided.plain()
        assert all(isinstance(value, torch.Tensor | tuple) for value in data.values())
        assert GuidedText.of_plain({**data, "x": text}) == guided
    assert replace(NAG(text), scale=1.0).guided(text, text[:1]) == ()


SEGMENTS = (Segment(0, 2, 0, 1), Segment(3, 6, 1, 3))


def penalty(token, time, strength):
    """Prompt Relay's by hand: a Gaussian of the distance from a segment, a thousandth at two latent frames."""
    for first, last, start, stop in SEGMENTS:
        if first <= token < last and time >= 0:
            distance = max(start - time, time - (stop - 1), 0)
            return strength * distance**2 * torch.log(torch.tensor(1000.0)) / 4
    return 0.0


def mask_of(times, length, strength=1.0):
    return torch.tensor([[-penalty(token, time, strength) for token in range(length)] for time in times])


@pytest.mark.parametrize("family", ["t2v", "s2v", "animate"])
@torch.no_grad()
def test_a_forward_with_the_penalties_in_every_cross_attention(seed, family, monkeypatch):
    """Frames of a reference before the video, and tokens after it, look at everything."""
    clip = Clip(family, seed)
    frames, before = clip.x.shape[2], int(family == "animate")
    schedule = Schedule(SEGMENTS, frames - before, 0.7)
    plain, found = clip.velocity(), clip.scheduled(schedule)
    assert rel_l2(found, plain) > 1e-3
    cells = clip.x.shape[3] * clip.x.shape[4] // 4
    forward, layers = CrossAttention.forward, {id(block.cross_attn) for block in clip.network.blocks}

    def by_hand(self, x, context, image, attention):
        if id(self) not in layers:
            return forward(self, x, context, image, attention)
        q, k, v = self.norm_q(self.q(x)), self.norm_k(self.k(context)), self.v(context)
        mask = mask_of(range(-before, frames - before), context.shape[1], 0.7).repeat_interleave(cells, dim=0)
        mask = torch.nn.functional.pad(mask, (0, 0, 0, x.shape[1] - mask.shape[0]))
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
        logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + mask
        out = (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)
        if image is not None:
            q = q.transpose(1, 2).flatten(2)
            out = out + attention(q, self.norm_k_img(self.k_img(image)), self.v_img(image), self.num_heads)
        return self.o(out)

    monkeypatch.setattr(CrossAttention, "forward", by_hand)
    assert rel_l2(found, clip.velocity()) < 1e-5


@torch.no_grad()
def test_a_schedule_and_guidance_together(seed):
    """What the negative text gives is not penalised; each alone is neither's work together."""
    clip, schedule = Clip("t2v", seed), Schedule(SEGMENTS, 3)
    nag = NAG(clip.negative, rows=torch.tensor([False, True]))
    both, alone = clip.scheduled(schedule, nag), clip.scheduled(schedule)
    assert torch.equal(both[0], alone[0]) and rel_l2(both[1], alone[1]) > 1e-3
    assert rel_l2(both[1], clip.velocity(GuidedText(clip.text, nag))[1]) > 1e-3
    assert torch.equal(clip.scheduled(schedule, replace(nag, scale=1.0)), alone)


@torch.no_grad()
def test_a_schedule_without_penalties_is_the_plain_forward_to_the_bit(seed):
    clip = Clip("i2v", seed)
    for segments in ((), (Segment(0, 7, 0, 3),), (Segment(0, 3, 0, 3), Segment(3, 7, 0, 3))):
        assert torch.equal(clip.scheduled(Schedule(segments, 3)), clip.velocity())


@pytest.mark.parametrize("world", [1, 2, 3, 5, 7])
@torch.no_grad()
def test_each_process_penalises_by_its_own_positions(seed, world):
    """Whatever part of the tokens it has: of a video of 3 x 5 tokens, and 4 tokens after it."""
    cells, frames, after = 5, 3, 4
    schedule, length = Schedule(SEGMENTS, frames), cells * frames + after
    q, k, v = torch.randn(2, length, 8), torch.randn(2, 9, 8), torch.randn(2, 9, 8)
    mask = torch.cat([mask_of(range(frames), 9).repeat_interleave(cells, 0), torch.zeros(after, 9)])
    heads = [t.unflatten(-1, (2, 4)).transpose(1, 2) for t in (q, k, v)]
    expected = (
        torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask).transpose(1, 2).flatten(2)
    )
    whole, parts = FrameSpan(0, frames, 0, cells * frames, cells), []
    for rank in range(world):
        shard = Shard(rank, world, length)
        kernel = schedule.kernel(sdpa, k, tuple(range(frames)), shard.frames(whole))
        parts.append(kernel(shard.take(q), k, v, 2))
    assert rel_l2(torch.cat(parts, 1)[:, :length], expected) < 1e-6


@torch.no_grad()
def test_a_part_of_the_video(seed):
    """A call that is given some of the latent frames penalises by which ones they are."""
    schedule = Schedule(SEGMENTS, 9, 2.0, shown=(4, 0, -1))
    assert torch.allclose(schedule.penalties(schedule.times(3, 0), 8), -mask_of((4, 0, -1), 8, 2.0))
    assert schedule.times(3, 1) == (3, -1, -2)
    assert Schedule.of_plain(schedule.plain()) == schedule
    with pytest.raises(ValueError, match=r"for a video of 9 latent frames, and this one has 3"):
        replace(schedule, shown=None).times(4, 1)


@torch.no_grad()
def test_penalties_stay_finite_in_half_precision(seed):
    q, k, v = (torch.randn(1, n, 8).half() for n in (400, 9, 9))
    schedule = Schedule((Segment(0, 9, 0, 1),), 400, 100.0)
    kernel = schedule.kernel(sdpa, k, tuple(range(400)), FrameSpan(0, 400, 0, 400, 1))
    assert torch.isfinite(kernel(q, k, v, 2)).all()
