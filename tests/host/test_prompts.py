"""Several prompts in one CONDITIONING: how a text is split, what a clip is given, and what other nodes make of it."""

import pytest
import torch
from graphs import base_graph, latents, node, sampler, save

from comfy_bridge.media import clip_prompts
from devhost.errors import HostError


@pytest.mark.parametrize(
    ("text", "prompts"),
    [
        ("one", ["one"]),
        (" one \n", ["one"]),
        ("one\nstill one", ["one\nstill one"]),
        ("one\n\ntwo", ["one", "two"]),
        ("one\r\n\r\ntwo", ["one", "two"]),
        ("one\n \t\n\n\n two\n\n", ["one", "two"]),
        ("one|two | three", ["one", "two", "three"]),
        ("| one |\n\n| two |", ["one", "two"]),
        ("第一\n\n第二|第三", ["第一", "第二", "第三"]),
    ],
)
def test_text_is_split(text, prompts):
    assert clip_prompts.split(text) == prompts


@pytest.mark.parametrize("text", ["", " \n\n", "|", " | \n | "])
def test_no_prompt_is_refused(text):
    with pytest.raises(ValueError, match="prompts holds no text"):
        clip_prompts.split(text)


def encoded(value, **options):
    return [[torch.full((1, 2, 3), float(value)), options]]


def values(conditioning):
    return [(float(text.mean()), options) for text, options in conditioning]


def test_a_clip_is_given_its_prompt_and_what_was_added():
    several = clip_prompts.in_turn([encoded(n, pooled_output=n) for n in (1, 2, 3)])
    assert [float(text.mean()) for text, _ in several] == [1]  # what any other node sees
    assert clip_prompts.count(several) == 3 and clip_prompts.count(encoded(1)) == clip_prompts.count([]) == 1
    for clip, mine in ((0, 1), (1, 2), (2, 3), (3, 3), (99, 3)):
        assert values(clip_prompts.of_clip(several, clip)) == [(mine, {"pooled_output": mine})]
    added = [[text, {**options, "start_percent": 0.5}] for text, options in several] + encoded(7, area=1)
    expected = [(2, {"pooled_output": 2, "start_percent": 0.5}), (7, {"area": 1})]
    assert values(clip_prompts.of_clip(added, 1)) == expected
    assert clip_prompts.in_turn([encoded(5)])[0][1] == {}
    assert values(clip_prompts.of_clip(encoded(5), 4)) == [(5, {})]


def test_texts_of_several_parts_keep_them_apart():
    several = clip_prompts.in_turn([encoded(n) + encoded(10 * n) for n in (1, 2)])
    assert values(clip_prompts.of_clip(several, 1)) == [(2, {}), (20, {})]


def test_a_sampler_takes_the_first_prompt(host):
    graph = base_graph("a cat") | {"sample": sampler(), "save": save()}
    expected = latents(host, graph)
    graph["text"] = node("WanPrompts", clip=("t5", 0), prompts="a cat\n\na dog | a bird", negative="blurry")
    assert torch.equal(latents(host, graph), expected)
    graph["sample"] = node(
        "KSampler", model=("high", 0), positive=("text", 0), negative=("text", 1), latent_image=("latent", 0), seed=7,
        steps=2, cfg=5.0, sampler_name="euler", scheduler="simple", denoise=1.0,
    )  # fmt: skip
    found = latents(host, graph)
    graph["text"] = base_graph("a cat")["text"]
    assert torch.equal(latents(host, graph), found)


def test_how_many_there_are_is_told(host):
    graph = base_graph()
    graph["text"] = node("WanPrompts", clip=("t5", 0), prompts="a cat\n\na dog | a bird")
    graph["shown"] = node("PreviewAny", source=("text", 2))
    assert host.run(graph)["outputs"]["shown"]["text"] == ["3"]
    graph["text"]["inputs"]["prompts"] = " \n\n | "
    with pytest.raises(HostError, match="write one prompt for each clip"):
        host.run(graph)
