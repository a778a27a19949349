"""What the tests of videos made clip by clip share."""

import re

import av
import pytest
import torch
from graphs import node
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
