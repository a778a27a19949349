"""Whole workflows over HTTP in a real host: the numbers, and that our objects and the host's own mix freely."""

import json

import av
import pytest
import torch
from graphs import RELEASE, SIZE, base_graph, latents, node, sampler, save
from tests_support import rel_l2

from devhost.host import ROOT
from wan_models import load_dit, load_text_encoder, load_vae
from wan_models.config import NEGATIVE_PROMPT
from wan_models.families import RELEASES
from wan_models.sampling.denoise import Experts, SamplingSettings, denoise
from wan_models.text.tokenizer import WanTokenizer
from wan_models.vae import wan21


@pytest.fixture(scope="module")
def models(base):
    """The release's networks in plain PyTorch."""
    release = base / "models" / "wan" / "T2V-A14B"

    t5 = release / "models_t5_umt5-xxl-enc-bf16.pth"
    return {
        "high": load_dit(release / "high_noise_model", dtype=torch.float32),
        "low": load_dit(release / "low_noise_model", dtype=torch.float32),
        "t5": load_text_encoder(t5, dtype=torch.float32).network,
        "t5 bf16": load_text_encoder(t5, dtype=torch.bfloat16).network,
        "vae": load_vae(release / "Wan2.1_VAE.pth"),
        "tokenizer": WanTokenizer.from_folder(release / "google" / "umt5-xxl"),
    }


@torch.no_grad()
def pure(models, prompt, negative, seed, shape, t5="t5", **settings):
    """The latents of the pure PyTorch pipeline with the host's noise for this seed."""
    texts = [models[t5].encode(*models["tokenizer"]([text])).float() for text in (prompt, negative)]
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    settings = {
        "steps": 40,
        "shift": 12.0,
        "guidance": (3.0, 4.0),
        "solver": "unipc",
        "boundary": 0.875,
    } | settings
    positive, negative = ({"context": text} for text in texts)
    experts = Experts(models["low"], models["high"])
    return denoise(experts, noise, positive, negative, SamplingSettings(**settings))


def test_demo_workflow_equals_pure_pipeline(host, models):
    """The very file that the demo posts, official preset of 40 steps, down to the video file."""
    graph = json.loads((ROOT / "example_workflows" / "api" / "t2v_a14b.json").read_text())
    by_type = {content["class_type"]: (name, content["inputs"]) for name, content in graph.items()}
    by_type["WanEmptyLatent"][1].update(SIZE)
    graph["save latent"] = save((by_type["WanMoESampler"][0], 0))
    entry = host.run(graph)
    files = {f.suffix: f for f in host.outputs(entry)}
    from safetensors.torch import load_file

    found = load_file(files[".latent"])["latent_tensor"]
    prompt = by_type["WanT5Encode"][1]["positive"]
    preset = RELEASES["T2V-A14B"]
    expected = pure(
        models,
        prompt,
        NEGATIVE_PROMPT,
        42,
        (1, 16, 3, 6, 8),
        t5="t5 bf16",
        steps=preset.steps,
        shift=preset.shift,
    )
    assert rel_l2(wan21.normalize(found), expected) < 1e-4
    with av.open(str(files[".mp4"])) as video:
        stream = video.streams.video[0]
        assert (stream.width, stream.height, float(stream.average_rate)) == (64, 48, 16)
        assert sum(1 for _ in video.decode(stream)) == 9
    (text,) = entry["outputs"][by_type["WanMoESampler"][0]]["text"]
    assert text.startswith("26 of 40 steps on the high-noise expert")


@pytest.mark.parametrize("solver", ["unipc", "dpm++"])
def test_custom_settings_equal_pure_pipeline(host, models, seed, solver):
    """Another shift, boundary and CFG per expert; also composed of single nodes, to the bit the same."""
    settings = {"steps": 8, "shift": 3.0, "cfg_high": 2.5, "cfg_low": 1.7, "boundary": 0.9}
    expected = pure(
        models, "a cat", "blurry", seed, (1, 16, 3, 6, 8), solver=solver, steps=8, shift=3.0, guidance=(1.7, 2.5),
        boundary=0.9,
    )  # fmt: skip
    graph = base_graph("a cat")
    graph |= {"sample": sampler(seed, sampler=f"wan {solver}", **settings), "save": save()}
    found = latents(host, graph)
    assert rel_l2(wan21.normalize(found), expected) < 1e-4

    graph["guider"] = node(
        "WanMoEGuider", model_high=("high", 0), model_low=("low", 0), positive=("text", 0), negative=("text", 1),
        cfg_high=2.5, cfg_low=1.7, boundary=0.9,
    )  # fmt: skip
    graph["noise"] = node("RandomNoise", noise_seed=seed)
    graph["sigmas"] = node("WanSigmas", steps=8, shift=3.0, solver=solver)
    graph["solver"] = node("WanSolver", solver=solver)
    graph["sample"] = node(
        "SamplerCustomAdvanced", noise=("noise", 0), guider=("guider", 0), sampler=("solver", 0), sigmas=("sigmas", 0),
        latent_image=("latent", 0),
    )  # fmt: skip
    assert torch.equal(latents(host, graph), found)


def test_batch_of_two(host, models, seed):
    graph = base_graph()
    graph["latent"]["inputs"]["batch_size"] = 2
    graph |= {"sample": sampler(seed), "save": save()}
    expected = pure(models, graph["text"]["inputs"]["positive"], "blurry", seed, (2, 16, 3, 6, 8), steps=4)
    assert rel_l2(wan21.normalize(latents(host, graph)), expected) < 1e-4


def test_start_and_end_step_make_up_the_whole(host, seed):
    """With a solver that keeps no history, two halves of a run are the whole run."""
    graph = base_graph()
    whole = {"sample": sampler(seed, sampler="euler"), "save": save()}
    halves = {
        "first": sampler(seed, sampler="euler", end_step=2),
        "sample": sampler(seed, sampler="euler", latent=("first", 0), start_step=2, add_noise=False),
        "save": save(),
    }
    assert rel_l2(latents(host, graph | halves), latents(host, graph | whole)) < 1e-5


def ksampler(model, seed, **settings):
    settings = {
        "steps": 4,
        "cfg": 3.0,
        "sampler_name": "euler",
        "scheduler": "simple",
        "denoise": 1.0,
        **settings,
    }
    return node(
        "KSampler",
        model=model,
        positive=("text", 0),
        negative=("text", 1),
        latent_image=("latent", 0),
        seed=seed,
        **settings,
    )


def test_model_in_the_hosts_sampler_and_patches(host, seed):
    """KSampler; LoRA changes the result and strength 0 restores it to the bit; shift; EasyCache."""
    graph = base_graph() | {"sample": ksampler(("high", 0), seed), "save": save()}
    plain = latents(host, graph)
    assert torch.isfinite(plain).all()

    def patched(class_type, **inputs):
        extra = {
            "patch": node(class_type, model=("high", 0), **inputs),
            "sample": ksampler(("patch", 0), seed),
        }
        return latents(host, graph | extra)

    assert (
        rel_l2(patched("LoraLoaderModelOnly", lora_name="lora.safetensors", strength_model=1.0), plain) > 1e-3
    )
    assert torch.equal(
        patched("LoraLoaderModelOnly", lora_name="lora.safetensors", strength_model=0.0), plain
    )
    assert torch.equal(patched("ModelSamplingSD3", shift=12.0), plain)  # the model's own default
    assert rel_l2(patched("ModelSamplingSD3", shift=3.0), plain) > 1e-3
    skipping = patched("EasyCache", reuse_threshold=3.0, start_percent=0.0, end_percent=1.0, verbose=True)
    assert torch.isfinite(skipping).all() and rel_l2(skipping, plain) > 1e-5
    never = patched("EasyCache", reuse_threshold=0.0, start_percent=0.0, end_percent=1.0, verbose=False)
    assert torch.equal(never, plain)


def test_patches_on_each_expert(host, seed):
    """A LoRA and EasyCache on one expert of the pair act on that expert's steps."""
    graph = base_graph() | {"sample": sampler(seed), "save": save()}
    plain = latents(host, graph)
    more = {"steps": 16, "shift": 5.0}
    unchanged = latents(host, graph | {"sample": sampler(seed, **more)})
    for expert in ("high", "low"):
        for patch in (
            node("LoraLoaderModelOnly", model=(expert, 0), lora_name="lora.safetensors", strength_model=1.0),
            node(
                "EasyCache",
                model=(expert, 0),
                reuse_threshold=3.0,
                start_percent=0.0,
                end_percent=1.0,
                verbose=True,
            ),
        ):
            changed = graph | {
                "patch": patch,
                "sample": sampler(seed, **{expert: ("patch", 0)}, **more),
            }
            assert rel_l2(latents(host, changed), unchanged) > 1e-5, (expert, patch)
    assert torch.equal(latents(host, graph), plain)


def test_text_encoder_in_the_hosts_node(host):
    """CLIPTextEncode gives the very conditioning of WanT5Encode."""
    graph = base_graph("a cat") | {"sample": sampler(7), "save": save()}
    ours = latents(host, graph)
    graph["text 0"] = node("CLIPTextEncode", clip=("t5", 0), text="a cat")
    graph["text 1"] = node("CLIPTextEncode", clip=("t5", 0), text="blurry")
    graph["sample"]["inputs"] |= {"positive": ["text 0", 0], "negative": ["text 1", 0]}
    assert torch.equal(latents(host, graph), ours)


def test_vae_in_the_hosts_nodes(host, models, base, seed):
    """VAEDecode, VAEDecodeTiled and VAEEncode with our VAE; the host's VAE in our nodes; all agree."""
    graph = base_graph() | {
        "latent": node("WanEmptyLatent", width=128, height=96, frames=9),
        "sample": sampler(seed),
        "vae": node("WanVAELoader", vae_name=RELEASE + "Wan2.1_VAE.pth"),
        "host vae": node("VAELoader", vae_name="vae.safetensors"),
        "pixels": node("WanVAEDecode", samples=("sample", 0), vae=("vae", 0)),
        "save z": save(("sample", 0), "z"),
    }

    def encoded(decoder, encoder):
        with_ends = graph | {"pixels": decoder, "again": encoder, "save": save(("again", 0))}
        del with_ends["save z"]
        return latents(host, with_ends)

    ours_decode = node("WanVAEDecode", samples=("sample", 0), vae=("vae", 0))
    ours_encode = node("WanVAEEncode", frames=("pixels", 0), vae=("vae", 0))
    reference = encoded(ours_decode, ours_encode)
    z = latents(host, {k: v for k, v in graph.items() if k != "pixels"})
    with torch.no_grad():
        video = models["vae"].decode(z)
        assert rel_l2(reference, models["vae"].encode(video)) < 1e-4
    host_nodes = (
        node("VAEDecode", samples=("sample", 0), vae=("vae", 0)),
        node("VAEEncode", pixels=("pixels", 0), vae=("vae", 0)),
    )
    host_vae = (
        node("WanVAEDecode", samples=("sample", 0), vae=("host vae", 0)),
        node("WanVAEEncode", frames=("pixels", 0), vae=("host vae", 0)),
    )
    assert rel_l2(encoded(*host_nodes), reference) < 1e-4
    assert rel_l2(encoded(*host_vae), reference) < 1e-4
    tiled = node(
        "VAEDecodeTiled",
        samples=("sample", 0),
        vae=("vae", 0),
        tile_size=64,
        overlap=32,
        temporal_size=64,
        temporal_overlap=8,
    )
    in_tiles = encoded(tiled, ours_encode)

    def ours_in_tiles(size):
        return encoded(
            node("WanVAEDecode", samples=("sample", 0), vae=("vae", 0), tile_size=size), ours_encode
        )

    # a tile does not see past its edges: the larger, the nearer to the whole, which one tile of its size is
    apart = {size: rel_l2(ours_in_tiles(size), reference) for size in (64, 96, 128)}
    assert rel_l2(ours_in_tiles(64), in_tiles) < 1e-5
    assert apart[128] < 1e-5 and 0.01 < apart[96] < apart[64] < 0.3  # measured: 0.07 and 0.16


def test_hosts_own_model_in_our_sampler(host, seed):
    """UNETLoader's MODEL of the same weights: equal where the schedule has whole timesteps, for ours rounds."""
    whole = {"shift": 1.0, "sampler": "wan dpm++"}
    graph = base_graph() | {"sample": sampler(seed, **whole), "save": save()}
    ours = latents(host, graph)
    for expert in ("high", "low"):
        graph[expert] = node("UNETLoader", unet_name=f"{expert}.safetensors", weight_dtype="default")
    assert rel_l2(latents(host, graph), ours) < 1e-4  # measured: 2e-6
    graph["high"], graph["low"] = graph["low"], graph["high"]
    assert rel_l2(latents(host, graph), ours) > 0.1  # measured: 0.6


def test_previews_and_progress_arrive(host):
    events = []
    graph = base_graph() | {"sample": sampler(11), "save": save()}
    latents(host, graph, on_event=lambda kind, data: events.append((kind, data)))
    steps = [data["value"] for kind, data in events if kind == "progress" and data["node"] == "sample"]
    assert steps == [1, 2, 3, 4]
    assert sum(kind == "preview" for kind, _ in events) >= 4


@pytest.mark.parametrize(
    ("dtype", "rounding"), [("fp32", 0.0), ("bf16", 2**-9), ("fp16", 2**-12), ("fp8_e4m3fn", 2**-5)]
)
def test_weight_precision(host, dtype, rounding):
    """Weights in another precision give a video that is as far from the default's as the weights are."""
    graph = base_graph() | {"sample": sampler(13), "save": save()}
    default = latents(host, graph)
    for expert in ("high", "low"):
        graph[expert]["inputs"]["weight_dtype"] = dtype
    apart = rel_l2(latents(host, graph), default)
    assert rounding / 2 <= apart <= rounding * 2 + 1e-6  # measured: 1.0 of it


def test_every_input_has_a_tooltip(host):
    ours = {
        name: info
        for name, info in host.get("/object_info").items()
        if info["category"].startswith("Wan2.2/")
    }
    assert set(ours) == set(json.loads((ROOT / "node_list.json").read_text()))
    standard = {
        "MODEL",
        "CLIP",
        "VAE",
        "CONDITIONING",
        "LATENT",
        "IMAGE",
        "SAMPLER",
        "SIGMAS",
        "GUIDER",
        "STRING",
        "CLIP_VISION_OUTPUT",
        "CLIP_VISION",
        "MASK",
        "POSE_KEYPOINT",  # of the host's own pose nodes, where it has them
        "INT",
        "FLOAT",
        "AUDIO",
        "VIDEO",
        "AUDIO_ENCODER",
        "AUDIO_ENCODER_OUTPUT",
    }
    for name, info in ours.items():
        assert set(info["output"]) <= standard, name
        assert info["description"], name
        for group in ("required", "optional"):
            for label, (kind, *options) in info["input"].get(group, {}).items():
                widget = isinstance(kind, list) or kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
                plain = label in ("seed", "positive", "negative", "samples", "vae")
                assert not widget or plain or options[0].get("tooltip"), (name, label)
                assert widget or kind in standard, (name, label, kind)
