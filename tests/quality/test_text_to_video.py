"""T2V-A14B's miniature does what it is told: captions that were held out of its training, read off the videos."""

import random

import pytest

from bench.quality import ASPECTS, four_steps
from training.world.measure import look, obeyed
from training.world.objects import held_out
from training.world.words import caption

COUNT = 32
SHAPES_RIGHT = 0.65
"""Share of the videos whose shape is right. A third is by chance: training as short as that of these weights leaves
edges ragged, above all those of small triangles."""


def cases():
    """Facts that were held out of training, and captions that tell all of them, in both languages."""
    rng = random.Random(77)
    for i in range(COUNT):
        facts = held_out(rng)
        yield facts, caption(facts, rng, "zh" if i % 3 == 2 else "en")


CASES = list(cases())


def look_at(make, count=COUNT, change=None, **changes):
    """What the videos of the first captions show, and what they should."""
    videos = [
        make("t2v", text, change=change, WanMoESampler={"seed": seed, **changes})
        for seed, (_, text) in enumerate(CASES[:count])
    ]
    return [(look(video), facts) for video, (facts, _) in zip(videos, CASES, strict=False)]


def share(seen, aspects=ASPECTS):
    """How many of them show these aspects as they should."""
    return sum(obeyed(shown, facts, aspects) for shown, facts in seen) / len(seen)


@pytest.fixture(scope="module")
def guided(make):
    return look_at(make)


def test_videos_show_what_captions_say(guided):
    assert share(guided) >= 0.9


def test_shapes_are_more_than_chance(guided):
    assert share(guided, ("kind",)) >= SHAPES_RIGHT


def test_four_steps_of_the_distilled_pair_show_it_too(make):
    """And without guidance, so with a twentieth of the work."""
    assert share(look_at(make, 16, change=four_steps)) >= 0.9


def test_guidance_is_needed(make, guided):
    custom = {"preset": "custom", "steps": 40, "shift": 12.0, "boundary": 0.875}
    assert share(look_at(make, 8, **custom, cfg_high=1.0, cfg_low=1.0)) <= share(guided) - 0.25


def test_swapped_experts_are_seen(make):
    swapped = {"model_high": ["4", 0], "model_low": ["3", 0]}
    assert share(look_at(make, 4, **swapped)) <= 0.25


def test_a_negative_prompt_removes_a_colour(make):
    changed = 0
    for seed in range(4):
        settings = {"WanMoESampler": {"seed": seed}}
        colour = look(
            make("t2v", "A ball moves to the right before a grey background.", "", **settings)
        ).colour
        other = look(
            make("t2v", "A ball moves to the right before a grey background.", colour, **settings)
        ).colour
        changed += other not in ("", colour)
    assert changed >= 3


def test_normalized_attention_guidance_removes_a_colour_at_cfg_1(make):
    """Without the negative prompt of CFG: Wan NAG has its own."""
    plain = {
        "preset": "custom",
        "steps": 20,
        "shift": 12.0,
        "boundary": 0.875,
        "cfg_high": 1.0,
        "cfg_low": 1.0,
    }
    text = "A ball moves to the right before a grey background."

    def guide(graph):
        (sampler,) = (node for node in graph.values() if node["class_type"] == "WanMoESampler")
        experts = {name: sampler["inputs"][name] for name in ("model_high", "model_low")}
        settings = {"negative": sampler["inputs"]["negative"], "scale": 11.0, "tau": 2.5, "alpha": 0.25}
        graph["nag"] = {"class_type": "WanNAG", "inputs": experts | settings}
        sampler["inputs"] |= {"model_high": ["nag", 0], "model_low": ["nag", 1]}

    changed = 0
    for seed in range(4):
        settings = {"WanMoESampler": {"seed": seed, **plain}}
        colour = look(make("t2v", text, "", **settings)).colour
        changed += look(make("t2v", text, colour, guide, **settings)).colour not in ("", colour)
    assert changed >= 3
