"""TI2V-5B's miniature, from a caption alone, and from a picture too."""

import random

import pytest

from bench.quality import ASPECTS
from demo.inputs import write_start
from training.sizes import VAE_2_2, side
from training.world.measure import look, obeyed, psnr
from training.world.objects import held_out
from training.world.words import caption

COUNT, FRAMES = 8, 17


def add_start(graph):
    """example.png as the first frame."""
    graph["start"] = {"class_type": "LoadImage", "inputs": {"image": "example.png"}}
    for node in graph.values():
        if node["class_type"] == "WanTI2VLatent":
            node["inputs"]["start_image"] = ["start", 0]


@pytest.mark.parametrize(("begun", "least"), [(False, 0.7), (True, 0.85)], ids=["text", "picture"])
def test_videos_show_what_captions_say(make, inputs, begun, least):
    """least: share of colours, backgrounds and directions that are right."""
    rng = random.Random(79)
    right, first = 0, []
    for seed in range(COUNT):
        facts = held_out(rng)
        true = write_start(inputs, facts, FRAMES, rng, side(VAE_2_2))
        change = add_start if begun else None
        video = make("ti2v", caption(facts, rng), change=change, WanMoESampler={"seed": seed})
        shown = look(video)
        right += sum(obeyed(shown, facts, (aspect,)) for aspect in ASPECTS)
        first.append(psnr(video[0], true[0]))
    assert right >= least * COUNT * len(ASPECTS), right
    if begun:
        assert sum(first) / COUNT >= 28 and min(first) >= 25, first
