"""S2V-14B's miniature opens its mouth with the voice, clip after clip."""

import random

import numpy as np
import pytest

from demo.inputs import write_talk
from training.world.measure import mouth_openings
from training.world.words import caption

FRAMES, PER_CLIP = 48, 16
LAGS = range(-4, 5)
FOLLOWS = 0.75
"""Correlation of mouth and voice, of which 0.79, 0.82 and 0.84 were seen."""


def correlation(seen, said, lag):
    """Of the mouth `lag` frames later than the voice."""
    if lag < 0:
        return correlation(said, seen, -lag)
    return np.corrcoef(seen[lag:], said[: len(said) - lag])[0, 1]


@pytest.fixture(scope="module", params=[1, 2, 3])
def talk(make, host, request):
    """A video of three clips, and how far its mouth should be open."""
    rng = random.Random(request.param)
    facts = {"kind": "face", "colour": "yellow", "background": "grey", "motion": "talk"}
    opening = write_talk(host.base / "input", facts, FRAMES, rng)
    video = make("s2v", caption(facts, rng), WanSpeechToVideo={"seed": request.param})
    assert video.shape[0] >= FRAMES
    return video[:FRAMES], opening


def test_lips_follow_the_voice(talk):
    video, opening = talk
    seen = mouth_openings(video).numpy()
    by_lag = {lag: correlation(seen, opening, lag) for lag in LAGS}
    assert max(by_lag, key=by_lag.get) in (-1, 0, 1), by_lag
    assert by_lag[0] >= FOLLOWS, by_lag


def test_clips_meet_without_a_seam(talk):
    video, _ = talk
    change = (video[1:] - video[:-1]).abs().mean(dim=(1, 2, 3))
    for first in range(PER_CLIP, FRAMES, PER_CLIP):
        assert change[first - 1] <= 1.5 * change.median()
