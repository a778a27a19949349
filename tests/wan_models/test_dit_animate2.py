"""The transformer of Animate-2 against diffusers' at a tiny size, its bias and its skipped block, and what is kept."""

from dataclasses import replace

import pytest
import torch
from reference_animate2 import official_names, small_reference
from tests_support import on_meta, randomize_, rel_l2

from wan_models.config import DISTILLED_BIAS, DiTConfig, DrivenConfig
from wan_models.dit.animate2 import Animate2Inputs, WanAnimate2Model
from wan_models.dit.base import InputError
from wan_models.dit.kept_keys import PLACES, kept_bytes

SIZES = {
    "dim": 96, "ffn_dim": 160, "freq_dim": 32, "text_dim": 48, "text_len": 20, "num_heads": 4, "num_layers": 11,
    "in_dim": 36, "out_dim": 16,
}  # fmt: skip
CONFIG = DiTConfig(family="animate2", image_dim=1280, driven=DrivenConfig(), **SIZES)
GRIDS = [(3, 8, 12), (2, 6, 10), (1, 4, 6)]


class Clip:
    """Random inputs of a clip of latent frames, height and width."""

    def __init__(self, frames, height, width):
        self.size = frames + 1, height, width
        self.x, self.y = torch.randn(1, 16, *self.size), torch.randn(1, 20, *self.size)
        self.driving = torch.randn(1, 16, frames, height, width)
        self.text, self.driving_text, self.negative = (torch.randn(rows, 48) for rows in (7, 9, 5))
        self.image, self.driving_image = torch.randn(1, 257, 1280), torch.randn(1, 257, 1280)
        self.given = torch.cat([self.x, self.y], 1)

    def inputs(self, **more):
        return Animate2Inputs(self.driving, self.driving_text[None], self.driving_image, **more)

    def expected(self, pair, t, text, unconditional=False):
        reference, cache_class = pair
        frames, height, width = self.size
        cells = height * width // 4
        grid = torch.tensor([[frames - 1, height // 2, width // 2]])
        cache = cache_class(SIZES["num_layers"])
        known = torch.ones(4, *self.driving.shape[2:])
        reference.attention.first = slice(cells, 2 * cells)
        reference(
            [self.driving[0]], t, [self.driving_text], [torch.cat([known, self.driving[0]])], cache, "extract",
            (frames - 1) * cells, self.driving_image, offset_grid_sizes=grid,
        )  # fmt: skip
        return reference(
            [self.x[0]], t, [text], [self.y[0]], cache, "cached", frames * cells, self.image,
            reference_grid_sizes=grid, origin_len=4 * (frames - 1) - 3, origin_area=[8 * height, 8 * width],
            is_uncondtion=unconditional,
        ).sample[0]  # fmt: skip


@pytest.fixture
def pair(seed, monkeypatch):
    """diffusers' model (and its cache), and a maker of ours of the same random weights with a bias."""

    def make(bias=0.0):
        torch.manual_seed(seed)
        reference = small_reference(monkeypatch, bias=bias, **SIZES)
        randomize_(reference[0], std=0.15)
        ours = on_meta(WanAnimate2Model, replace(CONFIG, driven=DrivenConfig(bias))).eval()
        ours.load_state_dict(official_names(reference[0]), assign=True)
        return reference, ours.requires_grad_(False)

    return make


@torch.no_grad()
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("bias", [0.0, DISTILLED_BIAS])
def test_forward_equals_diffusers(pair, grid, bias):
    reference, ours = pair(bias)
    clip, t = Clip(*grid), torch.tensor([713.0])
    conditions = ours.prepare(clip.inputs(), clip.size)
    for text, unconditional in ((clip.text, False), (clip.negative, True)):
        expected = clip.expected(reference, t, text, unconditional)
        found = ours(
            clip.given, t, [text], image=clip.image,
            conditions=conditions.with_unconditional(torch.tensor([unconditional])),
        )[0]  # fmt: skip
        assert rel_l2(found, expected) < 1e-5
    other = clip.expected(reference, t, clip.negative)
    assert rel_l2(found, other) > 1e-3  # the block that is left out counts
    if bias:
        ours.config = replace(CONFIG, driven=DrivenConfig())
        plain = ours(clip.given, t, [clip.text], image=clip.image, conditions=conditions)[0]
        assert rel_l2(plain, clip.expected(reference, t, clip.text)) > 1e-4  # and so does the bias


@torch.no_grad()
def test_rows_of_one_batch_are_computed_each_by_itself(pair):
    _, ours = pair(DISTILLED_BIAS)
    clip, t = Clip(2, 6, 10), torch.tensor([400.0, 400.0])
    conditions = ours.prepare(clip.inputs(), clip.size)
    texts, apart = [clip.text, clip.negative], torch.tensor([False, True])
    twice = clip.given.expand(2, -1, -1, -1, -1)
    both = ours(
        twice, t, texts, image=clip.image.expand(2, -1, -1), conditions=conditions.with_unconditional(apart)
    )
    for row in range(2):
        alone = ours(
            clip.given, t[:1], texts[row : row + 1], image=clip.image,
            conditions=conditions.with_unconditional(apart[row : row + 1]),
        )  # fmt: skip
        assert rel_l2(both[row : row + 1], alone) < 1e-5
    # rows that differ are each driven by their own
    other = Clip(2, 6, 10)
    own = [
        ours(clip.given, t[:1], [clip.text], image=clip.image, conditions=ours.prepare(c.inputs(), c.size))
        for c in (clip, other)
    ]
    mixed = Animate2Inputs(
        torch.cat([clip.driving, other.driving]), torch.stack([clip.driving_text, other.driving_text]),
        torch.cat([clip.driving_image, other.driving_image]),
    )  # fmt: skip
    out = ours(
        twice,
        t,
        [clip.text] * 2,
        image=clip.image.expand(2, -1, -1),
        conditions=ours.prepare(mixed, clip.size),
    )
    assert rel_l2(out, torch.cat(own)) < 1e-5


@torch.no_grad()
def test_kept_equals_made_anew(pair):
    _, ours = pair()
    clip, t = Clip(3, 8, 12), torch.tensor([500.0])

    def run(place):
        conditions = ours.prepare(clip.inputs(keep=place), clip.size)
        first, second = (
            ours(clip.given, t, [clip.text], image=clip.image, conditions=conditions) for _ in range(2)
        )
        return first, second, conditions.kept

    anew, again, kept = run("off")
    assert torch.equal(anew, again) and kept.nbytes() == 0 and not kept.is_full
    tokens = 3 * 4 * 6
    for place in PLACES:
        first, second, kept = run(place)
        assert torch.equal(first, anew)
        if place == "off":
            continue
        assert kept.is_full and kept.nbytes() == kept_bytes(CONFIG, tokens, 4, place)
        error = rel_l2(second, anew)
        assert error < (5e-3 if "int8" in place else 1e-6)
        assert ("int8" in place) == (error > 1e-6)
    with pytest.raises(ValueError, match=r"unknown place 'disk'.*gpu int8"):
        run("disk")


@torch.no_grad()
def test_a_pass_that_was_broken_off_is_made_anew(pair):
    _, ours = pair()
    clip, t = Clip(2, 6, 10), torch.tensor([500.0])
    expected = ours(
        clip.given, t, [clip.text], image=clip.image, conditions=ours.prepare(clip.inputs(), clip.size)
    )
    conditions = ours.prepare(clip.inputs(keep="ram"), clip.size)

    def break_off(index, block, x, **inputs):
        if index == 5:
            raise KeyboardInterrupt
        return block(x, **inputs)

    with pytest.raises(KeyboardInterrupt):
        ours(clip.given, t, [clip.text], image=clip.image, conditions=conditions, run_block=break_off)
    assert not conditions.kept.is_full
    found = ours(clip.given, t, [clip.text], image=clip.image, conditions=conditions)
    assert torch.equal(found, expected) and conditions.kept.is_full


@torch.no_grad()
def test_auto_keeps_where_there_is_room(pair):
    _, ours = pair()
    clip = Clip(2, 6, 10)
    needed = kept_bytes(CONFIG, 2 * 15, 4)
    for free, place in ((2 * needed, "gpu"), (needed, "off")):
        conditions = ours.prepare(clip.inputs(), clip.size)
        conditions.kept.free = lambda device, free=free: free
        ours(clip.given, torch.tensor([1.0]), [clip.text], image=clip.image, conditions=conditions)
        assert conditions.kept.place == place


@torch.no_grad()
def test_strengths(pair):
    _, ours = pair(DISTILLED_BIAS)
    clip, t = Clip(2, 6, 10), torch.tensor([500.0])

    def run(inputs):
        conditions = ours.prepare(inputs, clip.size)
        return ours(clip.given, t, [clip.text], image=clip.image, conditions=conditions)

    official, undriven = run(clip.inputs()), run(Animate2Inputs())
    assert rel_l2(undriven, official) > 1e-2
    assert torch.equal(run(clip.inputs(driving_strength=1.0, reference_strength=1.0)), official)
    for more in ({"driving_strength": 0.5}, {"driving_strength": 0.0}, {"reference_strength": 0.0}):
        assert rel_l2(run(clip.inputs(**more)), official) > 1e-3
    # values of zero are attended to all the same: muted is not absent
    assert rel_l2(run(clip.inputs(driving_strength=0.0)), undriven) > 1e-3


@torch.no_grad()
def test_what_does_not_fit_is_said(pair):
    _, ours = pair()
    clip = Clip(2, 6, 10)
    with pytest.raises(InputError, match=r"latent size \(2, 6, 10\).*and this clip \(3, 6, 10\)"):
        ours.prepare(clip.inputs(), (4, 6, 10))
    with pytest.raises(InputError, match="no prompt of its own"):
        ours.prepare(replace(clip.inputs(), driving_text=None), clip.size)
    with pytest.raises(InputError, match="needs the conditions"):
        ours(clip.given, torch.tensor([1.0]), [clip.text])
