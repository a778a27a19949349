"""Wan Prompt Schedule over HTTP: under our samplers and the host's, in context windows, and what it refuses."""

import pytest
import torch
from graphs import SIZE, base_graph, context_windows, latents, node, sampler, save
from tests_support import rel_l2

from devhost.errors import HostError

PROMPT = "two cats surf in the evening sun"  # that of `base_graph`
LINES = f"{PROMPT}\n0-50%: a red boat\n50-100%: a green bird"


def schedule(lines, clip=("t5", 0), **settings):
    given = {"frames": SIZE["frames"], "fps": 16.0, "negative": "blurry", **settings}
    return node("WanPromptSchedule", clip=clip, lines=lines, **given)


def test_one_text_for_all_of_it_is_the_plain_prompt_to_the_bit(host, seed):
    graph = base_graph() | {"sample": sampler(seed), "save": save()}
    plain = latents(host, graph)
    for lines in (PROMPT, f"0-9: {PROMPT}", f"0-100%: {PROMPT}", f"\n 0-9s: {PROMPT} \n"):
        assert torch.equal(latents(host, graph | {"text": schedule(lines)}), plain), lines


def test_parts_of_the_clip(host, seed):
    """Units say the same; a factor of 0 is all texts as one prompt; without a guiding CFG and by the host's sampler."""
    graph = base_graph() | {"sample": sampler(seed, cfg_high=1.0, cfg_low=1.0), "save": save()}

    def run(text):
        return latents(host, graph | {"text": text})

    found = run(schedule(LINES))
    together = run(
        node("WanT5Encode", clip=("t5", 0), positive=LINES.replace("0-50%:", "").replace("50-100%:", ""))
    )
    assert rel_l2(found, together) > 1e-3
    assert torch.equal(run(schedule(LINES, strength=0.0)), together)
    assert torch.equal(run(schedule(LINES.replace("0-50%", "0-5").replace("50-100%", "5-9"))), found)
    assert rel_l2(run(schedule(LINES.replace("50%", "90%"))), found) > 1e-4
    (report,) = host.run(graph | {"text": schedule(LINES, strength=0.9)})["outputs"]["text"]["text"]
    assert report == f"all frames: {PROMPT}\nframes 0 to 4: a red boat\nframes 5 to 8: a green bird"
    hosts = graph | {
        "text": schedule(LINES),
        "sample": node(
            "KSampler", model=("high", 0), positive=("text", 0), negative=("text", 1), latent_image=("latent", 0),
            seed=3, steps=2, cfg=3.0, sampler_name="euler", scheduler="simple", denoise=1.0,
        ),
    }  # fmt: skip
    sampled = latents(host, hosts)
    assert rel_l2(sampled, latents(host, hosts | {"text": schedule(LINES, strength=0.0)})) > 1e-4
    # windows hold parts of the clip, and a frame stays the one that it is
    hosts["plain"] = hosts["high"]
    hosts["high"] = context_windows(host, ("plain", 0), context_length=5, context_overlap=1)
    assert torch.isfinite(latents(host, hosts)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": schedule("a\n8: b")}, "line 2 of the schedule: '8' is no range"),
        ({"text": schedule("x\n0-50%: " + "a cat " * 300)}, "tokens together, and Wan models look at 512"),
        ({"text": schedule("40-20: a")}, "line 1 of the schedule: 40-20 ends before it begins"),
        ({"text": schedule("a\n50-120%: b")}, "line 2 of the schedule: 120% is more than the whole video"),
        ({"text": schedule(" \n")}, "the schedule is empty: write lines such as"),
        (
            {"text": schedule("0-4: a\n4-8: b", strength=("wire", 0))},
            "strength must be 0 to 100, not -1",
        ),
        ({"text": schedule("a", fps=("wire", 0))}, "fps must be 1 to 240, not -1"),
        ({"text": schedule("a", frames=7)}, "7 frames are no length"),
        ({"text": schedule(LINES, frames=13)}, "for a video of 4 latent frames, and this one has 3"),
        (
            {
                "text": schedule(LINES),
                "high": node("UNETLoader", unet_name="high.safetensors", weight_dtype="default"),
            },
            "only models of WanDiTLoader follow",
        ),
        (
            {
                "text": schedule(LINES),
                "nag": node("WanNAG", model_high=("high", 0), negative=("text", 0), scale=11.0),
                "sample": sampler(1, high=("nag", 0)),
            },
            "the negative of WanNAG has a schedule",
        ),
    ],
)
def test_mistakes(host, change, message):
    # hosts do not look at ranges of what comes over a wire
    wire = {"wire": node("PrimitiveFloat", value=-1.0)}
    with pytest.raises(HostError, match=message):
        host.run(base_graph() | {"sample": sampler(1), "save": save()} | wire | change)
