"""The drawn world: what is drawn is what is measured, and captions say it."""

import itertools
import random
import re

import numpy as np
import pytest
import torch

from training.videos import anything, objects
from training.world.faces import SAMPLE_RATE, Face, loudness, voice
from training.world.figures import Figure
from training.world.measure import look, mouth_openings, obeyed, offsets, psnr
from training.world.objects import BACKGROUNDS, COLOURS, SHAPES, Objects, is_held_out
from training.world.words import DIRECTIONS, WORDS, caption, some_facts, vocabulary

ALL = [(kind, motion) for kind in SHAPES for motion in DIRECTIONS]


@pytest.mark.parametrize(("kind", "motion"), ALL)
def test_what_is_drawn_is_seen(kind, motion, seed):
    rng = random.Random(seed)
    colour = rng.choice(list(COLOURS))
    facts = {
        "kind": kind, "motion": motion, "colour": colour, "speed": rng.choice(["slow", "fast"]),
        "background": rng.choice([name for name in BACKGROUNDS if name != colour]),
        "size": rng.choice(["small", "large"]),
    }  # fmt: skip
    video = Objects.of_facts(facts, rng).frames(17, 96, 96)
    assert video.shape == (17, 96, 96, 3) and video.min() >= 0 and video.max() <= 1
    seen = look(video)
    assert obeyed(seen, facts, ("kind", "colour", "background", "motion")), (seen, facts)
    assert abs(max(seen.travel, key=abs)) == pytest.approx(
        {"slow": 0.14, "fast": 0.28}[facts["speed"]], abs=0.05
    )


@pytest.mark.parametrize("kind", SHAPES)
def test_ragged_edges_do_not_change_a_shape(kind, seed):
    facts = {
        "kind": kind,
        "colour": "red",
        "background": "black",
        "motion": "up",
        "speed": "slow",
        "size": "small",
    }
    video = Objects.of_facts(facts, random.Random(seed)).frames(17, 96, 96).clone()
    is_object = (video[:, :, :, 0] > 0.3).float()[:, None]
    rim = torch.nn.functional.max_pool2d(is_object, 5, 1, 2) - is_object
    ragged = (torch.rand(rim.shape) < 0.3) & (rim > 0)
    video[ragged[:, 0]] = torch.tensor([0.86, 0.1, 0.12])
    assert look(video).kind == kind


def test_noise_and_empty_pictures_show_nothing(seed):
    assert look(torch.full((5, 32, 32, 3), 0.5)).kind == ""
    noise = look(torch.rand(9, 96, 96, 3))
    assert not noise.motion


def test_held_out_facts_are_never_drawn():
    seen = [Objects.draw(random.Random(i)).facts for i in range(400)]
    assert not any(is_held_out(facts) for facts in seen)
    kept, told = 0, set()
    aspects = ("kind", "colour", "motion", "background", "speed", "size")
    values = (SHAPES, COLOURS, DIRECTIONS, BACKGROUNDS, WORDS["speed"], WORDS["size"])
    every = [dict(zip(aspects, chosen, strict=True)) for chosen in itertools.product(*values)]
    for facts in every:
        if is_held_out(facts):
            kept += 1
        else:
            told.add((facts["kind"], facts["colour"], facts["motion"]))
    assert 0.03 < kept / len(every) < 0.07
    assert len(told) == len(ALL) * len(COLOURS)  # any three of these are known together


@pytest.mark.parametrize("language", ["en", "zh"])
def test_captions_tell_the_facts(language, seed):
    rng = random.Random(seed)
    for draw in (Objects.draw, lambda r: Face.draw(r, 3), Figure.draw):
        facts = draw(rng).facts
        text = caption(facts, rng, language)
        for aspect, value in facts.items():
            assert WORDS[aspect][value][language == "zh"].lower() in text.lower()
    part = some_facts(facts, rng)
    assert set(part.items()) <= set(facts.items())


def test_all_words_of_captions_are_in_the_vocabulary(seed):
    english, chinese = vocabulary()
    rng = random.Random(seed)
    for _ in range(200):
        facts = some_facts(Objects.draw(rng).facts, rng)
        assert set(re.findall(r"\w+", caption(facts, rng, "en"))) <= {
            *english,
            *(word.capitalize() for word in english),
        }
        left = caption(facts, rng, "zh")
        for word in sorted(chinese, key=len, reverse=True):
            left = left.replace(word, "")
        assert left == ""


def test_the_same_number_is_the_same_video():
    for draw in (objects, anything):
        (one, facts), (other, same) = draw(5, 5, 32, 32), draw(5, 5, 32, 32)
        assert torch.equal(one, other) and facts == same
        assert not torch.equal(one, draw(6, 5, 32, 32)[0])


def test_mouth_opens_with_the_voice(seed):
    rng = random.Random(seed)
    opening = loudness(rng, 48)
    sound = voice(opening, rng)
    assert len(sound) == 48 * SAMPLE_RATE // 16 and np.abs(sound).max() <= 1
    heard = np.sqrt((sound.reshape(48, -1) ** 2).mean(axis=1))
    assert np.corrcoef(heard, opening)[0, 1] > 0.9
    face = Face.of_facts(
        {"kind": "face", "colour": "red", "background": "blue", "motion": "talk"}, rng, opening
    )
    video = face.frames(48, 96, 96)
    dark = (video.amax(dim=-1) < 0.3).flatten(1).sum(dim=1).numpy()
    assert np.corrcoef(dark, opening)[0, 1] > 0.9
    assert torch.equal(face.frames(4, 96, 96, first=20), video[20:24])


def test_figure_is_where_its_joints_are(seed):
    figure = Figure.draw(random.Random(seed))
    masks = figure.masks(9, 96, 96)
    poses = figure.poses(9, 96, 96)
    for i in range(9):
        for x, y in figure.joints(i / 8, 96, 96)[:14]:
            around = masks[i, max(0, int(y) - 2) : int(y) + 3, max(0, int(x) - 2) : int(x) + 3]
            assert not around.numel() or around.max() == 1
    assert (poses.amax(-1) > 0.1).float().mean() < 0.12  # a skeleton is thin
    outside = (masks == 0)[..., None]
    difference = (figure.frames(9, 96, 96) - figure.backgrounds(9, 96, 96)) * outside
    assert difference.abs().max() <= 0.02  # the last of a smooth edge
    assert figure.faces(3).shape == (3, 64, 64, 3)


def test_psnr():
    assert psnr(torch.zeros(4), torch.full((4,), 0.1)) == pytest.approx(20, abs=1e-4)


def test_mouths_are_measured(seed):
    rng = random.Random(seed)
    face = Face.draw(rng, 40)
    seen = mouth_openings(face.frames(40, 96, 96)).numpy()
    assert np.corrcoef(seen, face.loudness)[0, 1] > 0.99
    still = Face(face.facts, face.centre, face.radius, np.full(40, 0.3)).frames(40, 96, 96)
    assert mouth_openings(still).std() < 1e-6


def test_parts_are_found_where_they_went(seed):
    figure = Figure.draw(random.Random(seed))
    frame = figure.frames(1, 96, 96)[0]
    points = torch.from_numpy(figure.joints(0.0, 96, 96))
    assert offsets(frame, frame, points).max() == 0
    moved = torch.roll(frame, (6, -8), (0, 1))
    assert offsets(moved, frame, points).median() == 10
