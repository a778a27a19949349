"""Each miniature obeys a few captions, in a few steps: what `make test` runs of this folder."""

import random

from training.world.measure import look, obeyed
from training.world.objects import held_out
from training.world.words import caption

FEW = {"preset": "custom", "steps": 12, "shift": 12.0, "boundary": 0.875, "cfg_high": 4.0, "cfg_low": 3.0}
"""The official settings of T2V-A14B but for the steps, of which it has 40."""


def test_text_to_video(make):
    rng = random.Random(77)
    for seed, language in enumerate(("en", "zh", "en")):
        facts = held_out(rng)
        text = caption(facts, rng, language)
        seen = look(make("t2v", text, WanMoESampler={"seed": seed, **FEW}))
        assert obeyed(seen, facts, ("colour", "background", "motion")), (text, seen)
