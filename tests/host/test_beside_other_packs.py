"""What other packs do to the host: samplers and schedulers of theirs that come late, and lines in its log."""

import pytest
import torch
from graphs import RELEASE, base_graph, latents, node, sampler, save
from other_pack import REGISTER, SAMPLERS, SCHEDULERS, WARNING

from devhost.errors import HostError
from wan_models.sampling.solvers import SOLVERS

UNKNOWN = "Value not in list|is no choice"  # newer hosts look at lists before they run anything
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
        ours = [f"wan {name}" for name in SOLVERS]
        assert samplers[: len(ours) + 1] == [*ours, "euler"] and schedulers[0] == "wan official"
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


def test_of_all_warnings_only_the_misleading_one_is_left_out(host):
    """The host warns of a VAE without weights, of which ours is made; what others say then is kept."""
    before = len(host.log.read_bytes())
    graph = {"latent": base_graph()["latent"]}
    # a dtype that no other test of this host loads: what is loaded once may be kept
    graph["vae"] = node("WanVAELoader", vae_name=RELEASE + "Wan2.1_VAE.pth", weight_dtype="bf16")
    graph["decode"] = node("WanVAEDecode", samples=("latent", 0), vae=("vae", 0))
    graph["save"] = node("PreviewImage", images=("decode", 0))
    host.run(graph)
    log = host.log.read_bytes()[before:].decode(errors="replace")
    assert WARNING in log and "No VAE weights" not in log
