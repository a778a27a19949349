"""Longer videos by meaning: the object of a picture turns where the second clip begins, as its prompt says, and with
context windows one goes on in its direction for twice as long as the model has learned."""

import json
import random

from demo.inputs import write_start
from demo.miniature import frames_of
from devhost.host import ROOT
from training.world.measure import look
from training.world.objects import held_out
from training.world.words import caption

BALL = {"kind": "ball", "colour": "red", "background": "blue", "speed": "fast", "size": "small"}
WAYS = ("right", "down")
CLIP = 17


def example(name):
    file = ROOT / "example_workflows" / "api" / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8"))


def long_video(seed):
    """The example's, of two clips that go on from last frames, without its LoRAs."""
    graph = example("long_video_i2v_a14b")
    (name,) = (name for name, node in graph.items() if node["class_type"] == "WanLongVideo")
    graph = {name: node for name, node in graph.items() if node["class_type"] != "WanLoRA"}
    loaders = [key for key, node in graph.items() if node["class_type"] == "WanDiTLoader"]
    (prompts,) = (node["inputs"] for node in graph.values() if node["class_type"] == "WanPrompts")
    prompts["prompts"] = "\n\n".join(
        f"A small red ball moves {told} quickly before a blue background."
        for told in ("to the right", "down")
    )
    graph[name]["inputs"] |= {
        "model_high": [loaders[0], 0], "model_low": [loaders[1], 0], "width": 96, "height": 96, "clips": 2,
        "seconds": 0, "frames_per_clip": CLIP, "mode": "last frames", "overlap_latents": 1, "seed": seed,
        "output": "frames",
    }  # fmt: skip
    graph["made"] = {"class_type": "CreateVideo", "inputs": {"images": [name, 0], "fps": 16}}
    return graph


def test_each_clip_does_what_its_prompt_says(host, inputs):
    right = []
    for seed in range(4):
        write_start(inputs, BALL | {"motion": "right"}, CLIP, random.Random(seed))
        video = frames_of(host, long_video(seed))
        assert len(video) > CLIP
        right += [
            look(part).motion == way for part, way in zip((video[:CLIP], video[CLIP:]), WAYS, strict=True)
        ]
    assert sum(right) >= 6, right  # a prompt for both would make it 4


def windowed(text, seed):
    """The example's, of 33 frames in windows of 17."""
    graph = example("t2v_a14b_context_windows")
    given = {
        "WanT5Encode": {"positive": text},
        "WanEmptyLatent": {"width": 96, "height": 96, "frames": 2 * CLIP - 1},
        "WanContextWindowsManual": {"context_length": CLIP, "context_overlap": 9},
        "WanMoESampler": {"seed": seed},
    }
    for node in graph.values():
        node["inputs"] |= given.get(node["class_type"], {})
    return graph


def without_windows(graph):
    wires = {
        name: node["inputs"]["model"]
        for name, node in graph.items()
        if "ContextWindows" in node["class_type"]
    }
    for node in graph.values():
        node["inputs"] |= {
            key: wires[value[0]]
            for key, value in node["inputs"].items()
            if isinstance(value, list) and value[0] in wires
        }
    return {name: node for name, node in graph.items() if name not in wires}


def test_windows_keep_a_long_video_moving_as_its_prompt_says(host):
    rng = random.Random(5)
    right = {"with": 0, "without": 0}
    for seed in range(4):
        facts = held_out(rng)
        graph = windowed(caption(facts, random.Random(seed)), seed)
        for kind, one in (("with", graph), ("without", without_windows(graph))):
            video = frames_of(host, one)
            assert len(video) == 2 * CLIP - 1
            right[kind] += look(video).motion == facts["motion"]
    assert right["with"] >= 3 and right["without"] <= 1, right
