"""A prompt for each clip of a long video, by meaning: the object of the picture turns where the second clip begins."""

import json
import random

from demo.inputs import write_start
from demo.miniature import frames_of
from devhost.host import ROOT
from training.world.measure import look

BALL = {"kind": "ball", "colour": "red", "background": "blue", "speed": "fast", "size": "small"}
WAYS = ("right", "down")
CLIP = 17


def long_video(seed):
    """The example's, of two clips that go on from last frames, without its LoRAs."""
    file = ROOT / "example_workflows" / "api" / "long_video_i2v_a14b.json"
    graph = json.loads(file.read_text(encoding="utf-8"))
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
