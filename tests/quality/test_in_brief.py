"""Each miniature obeys a few captions, in a few steps: what `make test-long` runs of this folder."""

import random

import numpy as np
import torch

from demo.inputs import write_driving, write_start, write_talk
from demo.miniature import DANCER, TASKS, frames_of, prompt_of
from training.world.figures import Figure
from training.world.measure import look, mouth_openings, obeyed, offsets, psnr
from training.world.objects import held_out
from training.world.words import caption

FEW = {"preset": "custom", "steps": 12, "shift": 12.0, "boundary": 0.875, "cfg_high": 4.0, "cfg_low": 3.0}
"""The official settings of T2V-A14B but for the steps, of which it has 40."""


def test_text_to_video(make):
    rng = random.Random(76)
    for seed, language in enumerate(("en", "zh", "en")):
        facts = held_out(rng)
        text = caption(facts, rng, language)
        seen = look(make("t2v", text, WanMoESampler={"seed": seed, **FEW}))
        assert obeyed(seen, facts, ("colour", "background", "motion")), (text, seen)


def test_image_to_video(make, inputs):
    rng = random.Random(78)
    facts = held_out(rng)
    true = write_start(inputs, facts, 17, rng)
    settings = {"steps": 12, "shift": 5.0, "boundary": 0.9, "cfg_high": 3.5, "cfg_low": 3.5}
    video = make("i2v", caption(facts, rng), WanMoESampler={"seed": 1, **FEW, **settings})
    assert psnr(video[0], true[0]) >= 24
    assert obeyed(seen := look(video), facts, ("colour", "background", "motion")), seen


def test_speech_to_video(make, inputs):
    rng = random.Random(1)
    facts = {"kind": "face", "colour": "yellow", "background": "grey", "motion": "talk"}
    opening = write_talk(inputs, facts, 32, rng)
    few = {"preset": "custom", "steps": 12, "shift": 3.0, "cfg": 4.5, "clips": 2}
    video = make("s2v", caption(facts, rng), WanSpeechToVideo={"seed": 1, **few})
    seen = mouth_openings(video).numpy()
    assert np.corrcoef(seen, opening[: len(seen)])[0, 1] >= 0.6


def test_animate(make, inputs):
    driving = write_driving(inputs, DANCER, 17, random.Random(3))
    wanted = Figure(DANCER, driving.centre, driving.size, driving.swings).frames(17, 96, 96)
    few = {"preset": "custom", "steps": 8, "shift": 5.0, "cfg": 1.0}
    video = make("animate", "A red figure dances.", WanPoseAnimate={"seed": 1, **few})
    assert len(video) == 17
    off = [offsets(video[i], wanted[i], torch.from_numpy(driving.joints(i / 16, 96, 96))) for i in (0, 8, 16)]
    assert (torch.cat(off) <= 16).float().mean() >= 0.9


def test_a_clip_of_text_to_video_goes_on_where_the_one_before_ended(host):
    """From frame to frame the picture changes as little at the joint as inside of a clip; to a video of its own it
    would change by 0.16 to 0.21."""
    graph = prompt_of(TASKS["t2v"], TASKS["t2v"].prompt)
    named = {node["class_type"]: node for node in graph.values()}
    sampler, decode = named["WanMoESampler"]["inputs"], named["WanVAEDecode"]["inputs"]
    given = {name: sampler[name] for name in ("model_high", "model_low", "positive", "negative")}
    length = {
        "width": 96,
        "height": 96,
        "clips": 2,
        "seconds": 0.0,
        "frames_per_clip": 17,
        "overlap_latents": 2,
    }
    graph["long"] = {
        "class_type": "WanLongVideo",
        "inputs": given | length | FEW | {
            "vae": decode["vae"], "seed": 1, "mode": "last frames", "colour_match": "off", "output": "frames",
            "filename_prefix": "",
        },
    }  # fmt: skip
    named["CreateVideo"]["inputs"]["images"] = ["long", 0]
    graph = {name: node for name, node in graph.items() if node["inputs"] not in (sampler, decode)}
    video = frames_of(host, graph)
    assert video.shape[0] == 17 + 12
    steps = (video[1:] - video[:-1]).abs().mean((1, 2, 3))
    assert steps[16] < 2 * steps[:16].mean() < 0.12
