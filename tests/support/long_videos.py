"""What the tests of videos made clip by clip share."""

import re

import av
import pytest
import torch
from graphs import node, sampler, save
from safetensors.torch import load_file

from devhost.errors import HostError


def clips_of(folder, name):
    """The frames of each finished clip in a checkpoint folder."""
    return [
        load_file(file)["frames"] for file in sorted((folder / "output" / name).glob("clip_*.safetensors"))
    ]


def film_length(host, entry):
    """Frames of the one film that a run saved."""
    (file,) = [f for f in host.outputs(entry) if f.suffix == ".mp4"]
    with av.open(str(file)) as film:
        return sum(1 for _ in film.decode(video=0))


def by_hand(video, kind, seed, settings, **condition):
    """One clip through a conditioning node (its type) and WanMoESampler, saved as latents, in the place of the whole
    that the graph `video` makes in as many steps, with that shift and CFG."""
    scene = {k: v for k, v in video["video"]["inputs"].items() if k not in ("model", "seed", *settings)}
    out = {name: part for name, part in video.items() if name not in ("video", "film", "save")}
    out["one"] = node(kind, **(scene | {"frame_offset": 0} | condition))
    out["sample"] = sampler(
        seed, latent=("one", 2), steps=settings["steps"], shift=settings["shift"], cfg_high=settings["cfg"],
        boundary=0.0, sampler=settings["sampler"],
    )  # fmt: skip
    del out["sample"]["inputs"]["model_low"]
    out["sample"]["inputs"] |= {"positive": ["one", 0], "negative": ["one", 1]}
    out["keep"] = save()
    return out


def check_the_next_clip(host, one_clip, fps):
    """A clip of 5 frames and the one after it, which shares a frame with it, by our nodes and the host's: trim_latent,
    trim_image and frame_offset are what those want. one_clip(**inputs): `by_hand` of a test."""
    first = one_clip()
    first["cut"] = node("TrimVideoLatent", samples=("sample", 0), trim_amount=("one", 3))
    first["frames"] = node("VAEDecode", samples=("cut", 0), vae=("vae", 0))
    second = one_clip(motion_frames=("frames", 0), frame_offset=("one", 5))
    first["next"] = second["one"]
    first["next sample"] = second["sample"]
    first["next sample"]["inputs"] |= {
        "latent_image": ["next", 2], "positive": ["next", 0], "negative": ["next", 1],
    }  # fmt: skip
    first["next cut"] = node("TrimVideoLatent", samples=("next sample", 0), trim_amount=("next", 3))
    first["next frames"] = node("VAEDecode", samples=("next cut", 0), vae=("vae", 0))
    first["new"] = node("ImageFromBatch", image=("next frames", 0), batch_index=("next", 4), length=64)
    first["film"] = node("CreateVideo", images=("new", 0), fps=fps)
    first["save"] = node(
        "SaveVideo", video=("film", 0), filename_prefix="video/next", format="auto", codec="auto"
    )
    assert film_length(host, host.run(first)) == 4


def check_going_on(host, folder, part, steps, expected):
    """A run that keeps its clips, `part`, is cancelled in its second clip of `steps` steps; run again it goes on and
    makes the clips `expected`."""
    name = part["video"]["inputs"]["checkpoint_folder"]

    def cancel(kind, data):
        if kind == "progress" and data["node"] == "video" and data["value"] == steps + 2:
            host.interrupt()

    with pytest.raises(HostError, match="interrupted"):
        host.run(part, cancel)
    assert len(clips_of(folder, name)) == 1
    entry = host.run(part)
    assert all(torch.equal(a, b) for a, b in zip(clips_of(folder, name), expected, strict=True))
    assert "; 1 clip was there already" in entry["outputs"]["video"]["text"][0]


def check_prompts_of_clips(host, folder, graph, name):
    """A run of three clips with a prompt each: a prompt that changes has its clip, and those after it, made again; the
    first prompt is the run's own."""

    def run(prompts):
        graph["text"] = node("WanPrompts", clip=("t5", 0), prompts=prompts, negative="blurry")
        graph["video"]["inputs"]["checkpoint_folder"] = name
        (text,) = host.run(graph)["outputs"]["video"]["text"]
        found = re.search(r"; (\d+) clips? w(?:as|ere) there already", text)
        return int(found[1]) if found else 0, clips_of(folder, name)

    def same(one, other):
        return [torch.equal(a, b) for a, b in zip(one, other, strict=True)]

    kept, first = run("a cat\n\na dog | a bird")
    assert kept == 0 and len(first) == 3
    kept, second = run("a cat\n\n\n  a dog\n \na boat | a storm")  # more prompts than clips
    assert kept == 2 and same(first, second) == [True, True, False]
    # the last prompt stays, and what its clip goes on from does not
    kept, third = run("a cat | a horse | a boat")
    assert kept == 1 and same(second, third) == [True, False, False]
    with pytest.raises(HostError, match="what differs is positive: set"):
        run("a horse")
