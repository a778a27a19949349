"""Wan NAG over HTTP: under our samplers and the host's, and where it must be the run without it, to the bit."""

import pytest
import torch
from graphs import base_graph, latents, node, sampler, save
from tests_support import rel_l2

from devhost.errors import HostError


def nag(negative=("text", 1), high=("high", 0), low=("low", 0), scale=11.0, **settings):
    return node("WanNAG", model_high=high, model_low=low, negative=negative, scale=scale, **settings)


def ksampler(model, cfg=1.0):
    return node(
        "KSampler", model=model, positive=("text", 0), negative=("text", 1), latent_image=("latent", 0), seed=3,
        steps=3, cfg=cfg, sampler_name="euler", scheduler="simple", denoise=1.0,
    )  # fmt: skip


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_both_experts_with_and_without_cfg(host, seed, cfg):
    settings = {"seed": seed, "cfg_high": cfg, "cfg_low": cfg}
    graph = base_graph() | {"save": save()}
    plain = latents(host, graph | {"sample": sampler(**settings)})
    both = {"sample": sampler(high=("nag", 0), low=("nag", 1), **settings)}
    changed = latents(host, graph | both | {"nag": nag()})
    assert torch.isfinite(changed).all() and rel_l2(changed, plain) > 1e-3
    for nothing in ({"scale": 1.0}, {"alpha": 0.0}, {"negative": ("text", 0)}, {"scale": 1.0, "tau": 0.5}):
        assert torch.equal(latents(host, graph | both | {"nag": nag(**nothing)}), plain), nothing
    one = {"sample": sampler(low=("nag", 1), **settings), "nag": nag()}
    on_low = latents(host, graph | one)
    assert rel_l2(on_low, plain) > 1e-4 and rel_l2(on_low, changed) > 1e-4


def test_the_hosts_sampler_and_nodes(host):
    """KSampler over EasyCache and a LoRA; the part of the schedule; a second node takes the place of the first."""
    graph = base_graph() | {"save": save()}
    plain = latents(host, graph | {"sample": ksampler(("high", 0))})
    guided = graph | {"sample": ksampler(("nag", 0))}
    whole = latents(host, guided | {"nag": nag()})
    assert rel_l2(whole, plain) > 1e-3
    assert torch.equal(latents(host, guided | {"nag": nag(start_percent=0.99)}), plain)
    first = latents(host, guided | {"nag": nag(end_percent=0.0)})  # its first step is at sigma 1
    assert rel_l2(first, plain) > 1e-4 and rel_l2(first, whole) > 1e-4
    before = {"before": nag(scale=40.0), "nag": nag(high=("before", 0), low=("before", 1))}
    assert torch.equal(latents(host, guided | before), whole)
    patches = {
        "lora": node(
            "LoraLoaderModelOnly", model=("nag", 0), lora_name="lora.safetensors", strength_model=1.0
        ),
        "cache": node(
            "EasyCache",
            model=("lora", 0),
            reuse_threshold=0.0,
            start_percent=0.0,
            end_percent=1.0,
            verbose=False,
        ),
        "sample": ksampler(("cache", 0)),
    }
    patched = latents(host, graph | {"nag": nag()} | patches)
    assert rel_l2(patched, whole) > 1e-3
    patches["cache"]["inputs"]["model"] = ["high", 0]
    patches["lora"]["inputs"]["model"] = ["cache", 0]
    assert torch.equal(
        latents(host, graph | patches | {"nag": nag(high=("lora", 0)), "sample": ksampler(("nag", 0))}),
        patched,
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tau": 0.0}, "tau of NAG must be a number above 0, not 0"),
        ({"tau": ("wire", 0)}, "tau must be 0 to 100, not -2"),
        ({"scale": ("wire", 0)}, "scale must be 0 to 100, not -2"),
        ({"alpha": 2.0}, "alpha"),
        ({"alpha": ("wire", 0)}, "alpha must be 0 to 1, not -2"),
        (
            {"start_percent": 0.7, "end_percent": 0.2},
            r"start_percent of WanNAG \(0\.7\) is after its end_percent",
        ),
        ({"start_percent": ("wire", 0)}, "start_percent must be 0 to 1, not -2"),
    ],
)
def test_settings_that_cannot_be_are_named(host, settings, message):
    graph = base_graph() | {"nag": nag(**settings), "sample": ksampler(("nag", 0)), "save": save()}
    with pytest.raises(HostError, match=message):
        host.run(graph | {"wire": node("PrimitiveFloat", value=-2.0)})


def test_the_hosts_model_is_refused(host):
    graph = base_graph() | {
        "high": node("UNETLoader", unet_name="high.safetensors", weight_dtype="default"),
        "nag": node("WanNAG", model_high=("high", 0), negative=("text", 1), scale=11.0),
        "sample": ksampler(("nag", 0)),
        "save": save(),
    }
    with pytest.raises(HostError, match="WanNAG works inside the models of WanDiTLoader"):
        host.run(graph)
