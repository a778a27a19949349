"""TI2V-5B's miniature, from a caption alone, and from a picture too."""

import random

import pytest

from demo.inputs import write_start
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


@pytest.mark.parametrize("begun", [False, True])
def test_videos_show_what_captions_say(make, inputs, begun):
    rng = random.Random(79)
    right = 0
    for seed in range(COUNT):
        facts = held_out(rng)
        true = write_start(inputs, facts, FRAMES, rng)
        video = make(
            "ti2v", caption(facts, rng), change=add_start if begun else None, WanMoESampler={"seed": seed}
        )
        right += obeyed(look(video), facts)
        if begun:
            assert psnr(video[0], true[0]) >= 28
    assert right >= 0.9 * COUNT
