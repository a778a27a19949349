"""I2V-A14B's miniature begins with the picture that it is given, does what the caption says, and ends as it is told."""

import random

import pytest

from demo.inputs import write_start
from training.world.measure import look, obeyed, psnr
from training.world.objects import held_out
from training.world.words import caption

COUNT, FRAMES = 12, 17
LIKE, LEAST = 28, 25
"""dB of the frames that are given, on the average and at least. The autoencoder itself makes 28 of a large ball."""


def add_end(graph):
    """end.png as the last frame."""
    graph["end"] = {"class_type": "LoadImage", "inputs": {"image": "end.png"}}
    for node in graph.values():
        if node["class_type"] == "WanI2VCondition":
            node["inputs"]["end_image"] = ["end", 0]


@pytest.fixture
def videos(make, inputs):
    """videos(count, change) -> videos of held-out captions, each with its facts and the true video."""

    def run(count, change=None):
        rng = random.Random(78)
        for seed in range(count):
            facts = held_out(rng)
            true = write_start(inputs, facts, FRAMES, rng)
            yield make("i2v", caption(facts, rng), change=change, WanMoESampler={"seed": seed}), facts, true

    return run


def test_videos_begin_with_the_picture_and_move_as_said(videos):
    seen = [(psnr(video[0], true[0]), obeyed(look(video), facts)) for video, facts, true in videos(COUNT)]
    starts = [start for start, _ in seen]
    assert sum(starts) / COUNT >= LIKE and min(starts) >= LEAST
    assert sum(right for _, right in seen) >= 0.9 * COUNT


def test_both_ends_are_those_given(videos):
    """The last picture less exactly: clips with one are the fewer in training."""
    first, last = zip(
        *((psnr(video[0], true[0]), psnr(video[-1], true[-1])) for video, _, true in videos(4, add_end)),
        strict=True,
    )
    assert sum(first) / 4 >= LEAST + 1 and min(first) >= LEAST, first
    assert sum(last) / 4 >= LEAST - 2 and min(last) >= LEAST - 5, last
