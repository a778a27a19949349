"""What directs a video, by meaning: a prompt for each clip, a schedule of the prompt, keyframes, context windows."""

import json
import random

from demo.inputs import write_picture, write_start
from demo.miniature import frames_of
from devhost.host import ROOT
from training.world.measure import look, obeyed, psnr
from training.world.objects import held_out
from training.world.words import caption

API = ROOT / "example_workflows" / "api"
BALL = {"kind": "ball", "colour": "red", "background": "blue", "speed": "fast", "size": "small"}
WAYS = ("right", "down")
CLIP = 17


def long_video(seed):
    """The example's, of two clips that go on from last frames, without its LoRAs."""
    graph = json.loads((API / "long_video_i2v_a14b.json").read_text(encoding="utf-8"))
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


def test_a_video_begins_with_the_text_of_its_beginning(host):
    """Of two texts of a schedule. Where both hold everywhere, the model takes the one that it likes better."""

    def begins_as_told(strength):
        right = 0
        for seed, pair in enumerate((("red", "green"), ("yellow", "purple"), ("blue", "orange"))):
            for first, second in (pair, pair[::-1]):
                graph = json.loads((API / "t2v_a14b_prompt_schedule.json").read_text(encoding="utf-8"))
                for node in graph.values():
                    if node["class_type"] == "WanPromptSchedule":
                        lines = [f"A {colour} ball before a grey background." for colour in (first, second)]
                        lines = f"0-50%: {lines[0]}\n50-100%: {lines[1]}"
                        node["inputs"] |= {"lines": lines, "frames": CLIP, "strength": strength}
                    if node["class_type"] == "WanEmptyLatent":
                        node["inputs"] |= {"width": 96, "height": 96, "frames": CLIP}
                    if node["class_type"] == "WanMoESampler":
                        node["inputs"]["seed"] = seed
                right += look(frames_of(host, graph)[: CLIP // 3]).colour == first
        return right

    assert begins_as_told(1.0) >= 5
    assert begins_as_told(0.0) <= 4


def test_a_keyframe_says_the_way(make, inputs):
    """A picture in the middle, where the caption tells no direction."""

    def add_keyframe(graph):
        graph["key"] = {"class_type": "LoadImage", "inputs": {"image": "middle.png"}}
        for node in graph.values():
            if node["class_type"] == "WanI2VCondition":
                node["inputs"] |= {"keyframes": ["key", 0], "positions": "12"}

    rng, like, gained, right = random.Random(80), [], [], 0
    for seed in range(6):
        facts = held_out(rng) | {"speed": "fast"}
        true = write_start(inputs, facts, CLIP, rng)
        write_picture(inputs / "middle.png", true[12])
        told = caption({name: value for name, value in facts.items() if name != "motion"}, rng)
        plain, video = (
            make("i2v", told, change=change, WanMoESampler={"seed": seed}) for change in (None, add_keyframe)
        )
        like.append(psnr(video[12], true[12]))
        gained.append(like[-1] - psnr(plain[12], true[12]))
        right += obeyed(look(video), facts, ("motion",))
    assert right >= 5
    assert sum(like) / 6 >= 22 and sum(gained) / 6 >= 3, (like, gained)


def test_context_windows_keep_a_long_video_to_its_prompt(make):
    """Four times as long as what the model knows: most parts of it show what is told, and hardly any without."""
    length = 4 * (CLIP - 1) + 1

    def add_windows(graph):
        (sampler,) = (node["inputs"] for node in graph.values() if node["class_type"] == "WanMoESampler")
        windows = {
            "context_length": CLIP, "context_overlap": 8, "context_schedule": "standard_static", "context_stride": 1,
            "closed_loop": False, "fuse_method": "pyramid", "freenoise": True,
        }  # fmt: skip
        for name in ("model_high", "model_low"):
            inputs = {"model": sampler[name], **windows}
            graph[name] = {"class_type": "WanContextWindowsManual", "inputs": inputs}
            sampler[name] = [name, 0]

    def share(change):
        rng, right = random.Random(77), []
        for seed in range(6):
            facts = held_out(rng)
            told = caption({name: value for name, value in facts.items() if name != "motion"}, rng, "en")
            settings = {"WanEmptyLatent": {"frames": length}, "WanMoESampler": {"seed": seed}}
            video = make("t2v", told, change=change, **settings)
            right += [obeyed(look(part), facts, ("colour", "background")) for part in video.split(13)]
        return sum(right) / len(right)

    kept, lost = share(add_windows), share(None)
    assert kept >= 0.5 and kept >= lost + 0.25, (kept, lost)
