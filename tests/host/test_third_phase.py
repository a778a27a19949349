"""A base model for the first steps, before both experts: against three of the host's samplers, and against the pure
solvers, whose history runs through all phases."""

import pytest
import torch
from graphs import base_graph, latents, node, sampler, save
from tests_support import rel_l2

from devhost.errors import HostError
from wan_models import load_dit, load_text_encoder
from wan_models.sampling.denoise import Experts, SamplingSettings, denoise
from wan_models.sampling.guidance import guide
from wan_models.sampling.schedule import timesteps
from wan_models.vae import wan21

STEPS, BASE = 8, 2
LORA = {"lora_name": "lora.safetensors", "strength_model": 1.0}
PHASES = {"cfg_high": 1.0, "cfg_low": 2.0, "base_cfg": 3.5}


@pytest.fixture(scope="module")
def high(host):
    """Steps at high noise of STEPS."""
    found = host.get("/wan22/schedule", preset="custom", steps=STEPS, shift=12.0, boundary=0.875)["at_high"]
    assert BASE < found < STEPS
    return found


def three_phases(seed, **settings):
    """The high-noise expert plain, then with a LoRA, then the low-noise one: a LoRA's weights come and go."""
    graph = base_graph() | {"lora": node("LoraLoaderModelOnly", model=("high", 0), **LORA), "save": save()}
    settings = {"steps": STEPS, "base_steps": BASE, **PHASES} | settings
    graph["sample"] = sampler(seed, high=("lora", 0), model_base=("high", 0), **settings)
    return graph


def changed(graph, **inputs):
    """The graph with other inputs of its sampler; None takes one out."""
    inputs = graph["sample"]["inputs"] | inputs
    kept = {name: value for name, value in inputs.items() if value is not None}
    return graph | {"sample": {**graph["sample"], "inputs": kept}}


def test_euler_equals_three_of_the_hosts_samplers(host, seed, high):
    graph = three_phases(seed, sampler="euler", scheduler="simple")
    found = latents(host, graph)
    parts = [("high", 3.5, 0, BASE), ("lora", 1.0, BASE, high), ("low", 2.0, high, STEPS)]
    latent = "latent"
    for i, (model, cfg, first, last) in enumerate(parts):
        graph[f"phase {i}"] = node(
            "KSamplerAdvanced", model=(model, 0), positive=("text", 0), negative=("text", 1),
            latent_image=(latent, 0), noise_seed=seed, steps=STEPS, cfg=cfg, sampler_name="euler", scheduler="simple",
            start_at_step=first, end_at_step=last, add_noise="disable" if first else "enable",
            return_with_leftover_noise="enable" if last < STEPS else "disable",
        )  # fmt: skip
        latent = f"phase {i}"
    del graph["sample"]
    graph["save"] = save((latent, 0))
    # the host rounds between its samplers, where it takes latents out of the model's space and back
    assert rel_l2(latents(host, graph), found) < 1e-5


@pytest.mark.parametrize("solver", ["unipc", "dpm++"])
@torch.no_grad()
def test_an_official_solver_keeps_its_history_through_all_phases(host, base, seed, solver):
    """The base is one model, the high-noise expert another, and the low-noise one the first again, at another scale."""
    release = base / "models" / "wan" / "T2V-A14B"
    encode = load_text_encoder(release / "models_t5_umt5-xxl-enc-bf16.pth", dtype=torch.float32)
    texts = [encode(text) for text in ("two cats surf in the evening sun", "blurry")]
    models = {name: load_dit(release / f"{name}_noise_model") for name in ("high", "low")}

    def guided(name, scale):
        def velocity(x, t):
            with_text, without = (models[name](x, t, context=text) for text in texts)
            return guide(with_text, without, scale)

        return velocity

    first_of_high = timesteps(STEPS, 12.0, solver)[BASE]
    base_model, high_model, low_model = guided("high", 3.5), guided("low", 1.0), guided("high", 2.0)

    def before_boundary(x, t):
        return (base_model if t[0] > first_of_high else high_model)(x, t)

    noise = torch.randn((1, 16, 3, 6, 8), generator=torch.Generator().manual_seed(seed))
    settings = SamplingSettings(STEPS, 12.0, (1.0, 1.0), solver, 0.875)
    expected = denoise(Experts(low_model, before_boundary), noise, {}, {}, settings)
    graph = three_phases(seed, sampler=f"wan {solver}")
    graph = changed(graph, model_high=["low", 0], model_low=["high", 0])
    assert rel_l2(wan21.normalize(latents(host, graph)), expected) < 1e-4


def test_the_guider_does_the_same_and_0_steps_are_off(host, seed):
    graph = three_phases(seed)
    whole = latents(host, graph)
    inputs = graph["sample"]["inputs"]
    names = (
        "model_high",
        "model_low",
        "model_base",
        "positive",
        "negative",
        "boundary",
        "base_steps",
        *PHASES,
    )
    parts = graph | {
        "guider": {"class_type": "WanMoEGuider", "inputs": {name: inputs[name] for name in names}},
        "noise": node("RandomNoise", noise_seed=seed),
        "sigmas": node("WanSigmas", steps=STEPS, shift=12.0),
        "solver": node("WanSolver", solver="unipc"),
        "sample": node(
            "SamplerCustomAdvanced", noise=("noise", 0), guider=("guider", 0), sampler=("solver", 0),
            sigmas=("sigmas", 0), latent_image=("latent", 0),
        ),
    }  # fmt: skip
    assert torch.equal(latents(host, parts), whole)

    off = latents(host, changed(graph, base_steps=0))
    assert torch.equal(latents(host, changed(graph, base_steps=None, model_base=None, base_cfg=None)), off)
    assert rel_l2(off, whole) > 1e-4


def test_parts_of_a_run_count_the_bases_steps_from_its_beginning(host, seed, high):
    """Cut inside of the base's steps, and where it leaves none to the high-noise expert."""
    for base_steps in (BASE, high):
        graph = three_phases(seed, sampler="euler", base_steps=base_steps)
        first = changed(graph, end_step=1)["sample"]
        second = changed(graph, start_step=1, add_noise=False, latent_image=["first", 0])["sample"]
        whole = latents(host, graph)
        assert rel_l2(latents(host, graph | {"first": first, "sample": second}), whole) < 1e-5


def test_report_and_schedule_name_the_bases_steps(host, seed, high):
    (text,) = host.run(three_phases(seed, sampler="heun"))["outputs"]["sample"]["text"]
    low = STEPS - high
    assert text.startswith(f"{high - BASE} of {STEPS} steps on the high-noise expert, {low} on the low-noise")
    assert text.endswith(f"; {BASE} on the base model before them (CFG 3.5)")
    (text,) = host.run(three_phases(seed, start_step=1, end_step=BASE + 1))["outputs"]["sample"]["text"]
    assert text.startswith("1 of 2 steps on the high-noise expert, 0 on the low-noise expert")
    assert "; 1 on the base model" in text
    found = host.get("/wan22/schedule", preset="I2V-A14B 4-step LoRA", base_steps=1, start_step=0)
    assert (found["base"], found["at_base"], found["at_high"], found["last"]) == (1, 1, 1, 4)
    assert found["high"] == [True, True, False, False]


def broken():
    def no_base():
        return changed(three_phases(1), model_base=None)

    def past_the_boundary():
        return changed(three_phases(1), base_steps=STEPS)

    def past_the_boundary_in_the_guider():
        graph = three_phases(1)
        names = ("model_high", "model_low", "model_base", "positive", "negative", "boundary")
        inputs = {name: graph["sample"]["inputs"][name] for name in names}
        graph["guider"] = {"class_type": "WanMoEGuider", "inputs": inputs | {"base_steps": 3}}
        graph["noise"] = node("RandomNoise", noise_seed=1)
        graph["sigmas"] = node("WanSigmas", steps=4, shift=5.0)
        graph["solver"] = node("KSamplerSelect", sampler_name="euler")
        graph["sample"] = node(
            "SamplerCustomAdvanced", noise=("noise", 0), guider=("guider", 0), sampler=("solver", 0),
            sigmas=("sigmas", 0), latent_image=("latent", 0),
        )  # fmt: skip
        return graph

    return [
        pytest.param(no_base, "base_steps is 2, and no model_base is connected", id="no base"),
        pytest.param(past_the_boundary, "base_steps 8 goes past the boundary", id="past the boundary"),
        pytest.param(past_the_boundary_in_the_guider, "base_steps 3 goes past the boundary", id="guider"),
    ]


@pytest.mark.parametrize(("graph", "message"), broken())
def test_what_cannot_work_says_why(host, graph, message):
    with pytest.raises(HostError, match=message):
        host.run(graph())
