"""Samplers and schedulers that other packs give the host, after this one was imported."""

import pytest
import torch
from graphs import base_graph, latents, sampler, save
from late_pack import REGISTER, SAMPLERS, SCHEDULERS

from demo.host import HostError

UNKNOWN = "Value not in list|this host has no sampler"  # newer hosts look at lists before they run anything
NODES = ("WanMoESampler", "WanMultiGPUSampler", "WanSpeechToVideo", "WanPoseAnimate")


def options(host, kind, name):
    """What the page offers for an input."""
    found = host.get(f"/object_info/{kind}")[kind]["input"]["optional"][name]
    return found[1]["options"] if found[0] == "COMBO" else found[0]


def run(host, sampler_name, scheduler):
    chosen = sampler(steps=3, sampler=sampler_name, scheduler=scheduler)
    return latents(host, {**base_graph(), "sample": chosen, "save": save()})


def test_late_samplers_are_listed_accepted_and_run(host):
    with pytest.raises(HostError, match=UNKNOWN):
        run(host, SAMPLERS[0], "simple")
    assert host.post(REGISTER).status_code == 200
    for kind in NODES:
        samplers, schedulers = (options(host, kind, name) for name in ("sampler", "scheduler"))
        assert set(SAMPLERS) < set(samplers) and set(SCHEDULERS) < set(schedulers)
        assert samplers[:3] == ["wan unipc", "wan dpm++", "euler"] and schedulers[0] == "wan official"
        assert len(set(samplers)) == len(samplers) and len(set(schedulers)) == len(schedulers)
    # all of them are the host's euler and simple by another name
    expected = run(host, "euler", "simple")
    for name in SAMPLERS:
        assert torch.equal(run(host, name, "late_handled"), expected)
    other = run(host, "euler", "late_sigmas")
    assert torch.equal(other, run(host, "euler", "exponential")) and not torch.equal(other, expected)
    with pytest.raises(HostError, match=UNKNOWN):
        run(host, "never_registered", "simple")


def test_the_chart_knows_late_schedulers(host):
    host.post(REGISTER)
    query = {"preset": "custom", "steps": 3, "sampler": SAMPLERS[0]}
    expected = host.get("/wan22/schedule", scheduler="simple", **query)
    assert host.get("/wan22/schedule", scheduler="late_handled", **query) == expected
