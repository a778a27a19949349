"""LoRAs in the real host: each naming against weights merged by hand in float32, on plain and on packed models."""

import pytest
import torch
from formats import write_gguf
from graphs import base_graph, latents, node, sampler, save
from safetensors.torch import load_file, save_file
from tests_support import rel_l2

from devhost.errors import HostError
from wan_models.checkpoints.keys import to_foreign
from wan_models.checkpoints.reader import open_model

MODULES = [f"blocks.{i}.{name}" for i in range(2) for name in ("self_attn.q", "cross_attn.o", "ffn.0")]
RANK, ALPHA, STRENGTHS = 4, 2.0, (1.0, 0.6)
SCALE = ALPHA / RANK


@pytest.fixture(scope="module")
def weights(base):
    release = base / "models" / "wan" / "T2V-A14B"
    return [
        {k: v.clone() for k, v in open_model(release / f"{e}_noise_model").items()} for e in ("high", "low")
    ]


@pytest.fixture(scope="module")
def parts(weights):
    """The change itself: factors (down, up) per module, lengths per row, and plain differences."""
    generator = torch.Generator().manual_seed(8)
    draw = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    shape = lambda module: weights[0][f"{module}.weight"].shape  # noqa: E731
    return {
        "factors": {m: (draw(RANK, shape(m)[1]) / 16, draw(shape(m)[0], RANK)) for m in MODULES},
        "lengths": {m: 1 + draw(shape(m)[0]).abs() for m in MODULES},
        "differences": {
            "blocks.0.norm3.weight": draw(256) / 4,
            "blocks.1.ffn.2.bias": draw(256) / 4,
            "blocks.0.modulation": draw(1, 6, 256) / 4,
        },
    }


def low_rank(parts, prefix, ends, alpha=False, scale=1.0, rename=lambda module: module):
    """A file of factors; trainers that write no alpha have folded it in."""
    out = {}
    for module, (down, up) in parts["factors"].items():
        name = prefix + rename(module)
        out[f"{name}.{ends[0]}"], out[f"{name}.{ends[1]}"] = down, up * scale
        if alpha:
            out[f"{name}.alpha"] = torch.tensor(ALPHA)
    return out


def underscored(module):
    return module.replace(".", "_")


def diffusers(module):
    return to_foreign("diffusers transformer", [module])[module]


def processors(module):
    return diffusers(module).replace(".to_", ".processor.to_").replace("to_out.0", "to_out")


AB, DOWN_UP = ("lora_A.weight", "lora_B.weight"), ("lora_down.weight", "lora_up.weight")
NAMINGS = {
    "diffusion_model": lambda p: low_rank(p, "diffusion_model.", AB, alpha=True),
    "peft": lambda p: low_rank(
        p, "base_model.model.", ("lora_A.default.weight", "lora_B.default.weight"), scale=SCALE
    ),
    "diffusers": lambda p: low_rank(p, "transformer.", AB, scale=SCALE, rename=diffusers),
    "kohya": lambda p: low_rank(p, "lora_unet_", DOWN_UP, alpha=True, rename=underscored),
    "lightx2v": lambda p: (
        low_rank(p, "diffusion_model.", DOWN_UP, scale=SCALE)
        | {
            "diffusion_model.blocks.0.norm3.diff": p["differences"]["blocks.0.norm3.weight"],
            "diffusion_model.blocks.1.ffn.2.diff_b": p["differences"]["blocks.1.ffn.2.bias"],
            "diffusion_model.blocks.0.diff_m": p["differences"]["blocks.0.modulation"],
        }
    ),
    "dora": lambda p: (
        low_rank(p, "diffusion_model.", AB, alpha=True)
        | {f"diffusion_model.{m}.dora_scale": length[:, None] for m, length in p["lengths"].items()}
    ),
    "peft dora": lambda p: (
        low_rank(p, "base_model.model.", AB, scale=SCALE)
        | {f"base_model.model.{m}.lora_magnitude_vector": length for m, length in p["lengths"].items()}
    ),
}


DIFFSYNTH = ("lora_A.default.weight", "lora_B.default.weight")
NAMINGS |= {
    "VideoX-Fun": lambda p: low_rank(p, "lora_unet__", DOWN_UP, alpha=True, rename=underscored),
    "DiffSynth-Studio": lambda p: low_rank(p, "pipe.dit.", DIFFSYNTH, scale=SCALE),
    "older diffusers": lambda p: low_rank(
        p, "transformer._orig_mod.", ("lora.down.weight", "lora.up.weight"), scale=SCALE, rename=processors
    ),
}


def merged(weights, parts, strength, naming):
    """By hand, in float32."""
    out = dict(weights)
    for module, (down, up) in parts["factors"].items():
        weight = out[f"{module}.weight"]
        changed = weight + SCALE * up @ down
        if "dora" in naming:
            changed = changed / changed.norm(dim=1, keepdim=True) * parts["lengths"][module][:, None]
        out[f"{module}.weight"] = weight + strength * (changed - weight)
    if naming == "lightx2v":
        for name, difference in parts["differences"].items():
            out[name] = out[name] + strength * difference
    return out


@pytest.fixture(scope="module")
def files(base, weights, parts):
    models = base / "models"
    for naming, write in NAMINGS.items():
        save_file(
            {k: v.contiguous() for k, v in write(parts).items()}, models / "loras" / f"{naming}.safetensors"
        )
        for expert, state, strength in zip(("high", "low"), weights, STRENGTHS, strict=True):
            state = merged(state, parts, strength, naming)
            save_file(state, models / "diffusion_models" / f"{naming} {expert}.safetensors")
    return models


def with_lora(name, high=STRENGTHS[0], low=STRENGTHS[1]):
    graph = base_graph()
    graph["lora"] = node(
        "WanLoRA", model_high=("high", 0), model_low=("low", 0), lora_name=f"{name}.safetensors",
        strength_high=high, strength_low=low,
    )  # fmt: skip
    graph |= {"sample": sampler(3, ("lora", 0), ("lora", 1)), "save": save()}
    return graph


def by_hand(host, naming):
    graph = base_graph() | {"sample": sampler(3), "save": save()}
    for expert in ("high", "low"):
        graph[expert] = node("WanDiTLoader", model_name=f"{naming} {expert}.safetensors")
    return latents(host, graph)


@pytest.mark.parametrize("naming", NAMINGS)
def test_every_naming_equals_merging_by_hand(host, files, naming):
    graph = with_lora(naming)
    entry = {}

    def keep(kind, data):
        if kind == "executed" and data["node"] == "lora":
            entry.update(data["output"])

    found = latents(host, graph, keep)
    assert rel_l2(found, by_hand(host, naming)) < 1e-5
    count = len(load_file(files / "loras" / f"{naming}.safetensors"))
    lines = entry["text"][0].split("\n")
    assert lines[0] == f"{naming}.safetensors on the high-noise model at 1: {count} of {count} keys applied"
    assert "low-noise model at 0.6" in lines[1]
    plain = latents(host, base_graph() | {"sample": sampler(3), "save": save()})
    assert rel_l2(found, plain) > 1e-2


@pytest.mark.parametrize("naming", ["diffusion_model", "kohya"])
def test_the_hosts_loader_gives_the_same(host, files, naming):
    graph = base_graph() | {"save": save()}
    for expert, strength in zip(("high", "low"), STRENGTHS, strict=True):
        name = f"lora {expert}"
        graph[name] = node(
            "LoraLoaderModelOnly",
            model=(expert, 0),
            lora_name=f"{naming}.safetensors",
            strength_model=strength,
        )
    graph["sample"] = sampler(3, ("lora high", 0), ("lora low", 0))
    assert rel_l2(latents(host, graph), by_hand(host, naming)) < 1e-5


# what LyCORIS makes of a weight [256, 256]
OTHER_KINDS = {
    "loha": lambda draw: {"hada_w1_a": draw(256, 3), "hada_w1_b": draw(3, 256), "hada_w2_a": draw(256, 3) / 16,
                          "hada_w2_b": draw(3, 256) / 16, "alpha": torch.tensor(2.0)},
    "lokr": lambda draw: {"lokr_w1": draw(4, 4), "lokr_w2_a": draw(64, 2) / 8, "lokr_w2_b": draw(2, 64) / 8,
                          "alpha": torch.tensor(1.0)},
    "oft": lambda draw: {"oft_blocks": draw(32, 8, 8) / 4},
    "boft": lambda draw: {"oft_blocks": draw(2, 32, 8, 8) / 4},  # without alpha, of which the host makes an error
    "glora": lambda draw: {"a1.weight": draw(256, 4) / 64, "a2.weight": draw(4, 256) / 64, "b1.weight": draw(256, 4),
                           "b2.weight": draw(4, 256) / 64, "alpha": torch.tensor(2.0)},
}  # fmt: skip


def changed(kind, p, weight):
    """By hand, in float32, at strength 1."""
    if kind == "loha":
        return weight + 2 / 3 * (p["hada_w1_a"] @ p["hada_w1_b"]) * (p["hada_w2_a"] @ p["hada_w2_b"])
    if kind == "lokr":
        return weight + 1 / 2 * torch.kron(p["lokr_w1"], p["lokr_w2_a"] @ p["lokr_w2_b"])
    if kind == "glora":
        return weight + 2 / 4 * (weight @ p["a1.weight"] @ p["a2.weight"] + p["b1.weight"] @ p["b2.weight"])
    blocks = p["oft_blocks"] - p["oft_blocks"].transpose(-1, -2)
    turns = (torch.eye(8) + blocks) @ torch.linalg.inv(torch.eye(8) - blocks)
    if kind == "oft":
        return torch.einsum("knm,kn...->km...", turns, weight.view(32, 8, -1)).reshape(256, -1)
    for i, turn in enumerate(turns):  # rows of a block lie 2^i apart by halves
        rows = torch.arange(256).view(-1, 2, 2**i * 4).transpose(1, 2).reshape(-1, 8)
        weight = weight.clone()
        weight[rows] = torch.einsum("bij,bj...->bi...", turn, weight[rows])
    return weight


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_other_kinds_of_change_under_a_trainers_names(host, files, weights, kind):
    generator = torch.Generator().manual_seed(11)
    parts = OTHER_KINDS[kind](lambda *shape: torch.randn(shape, generator=generator))
    stem = "lycoris_blocks_1_attn1_to_q" if kind != "oft" else "lora_unet__blocks_1_self_attn_q"
    save_file({f"{stem}.{end}": p for end, p in parts.items()}, files / "loras" / f"{kind}.safetensors")
    for expert, state in zip(("high", "low"), weights, strict=True):
        key = "blocks.1.self_attn.q.weight"
        state = state | {key: changed(kind, parts, state[key])}
        save_file(state, files / "diffusion_models" / f"{kind} {expert}.safetensors")
    found = latents(host, with_lora(kind, low=1.0))
    assert rel_l2(found, by_hand(host, kind)) < 1e-5
    assert rel_l2(found, latents(host, base_graph() | {"sample": sampler(3), "save": save()})) > 1e-3


def test_a_file_for_both_experts(host, files, parts):
    """Under the names of diffusers' two transformers, each part on its own expert."""
    high, low = (
        low_rank(parts, "transformer.", AB, rename=diffusers),
        low_rank(parts, "diffusion_model.", AB, scale=-1),
    )
    name = "transformer_2."
    low = {name + key.removeprefix("diffusion_model."): value for key, value in low.items()}
    save_file(
        {key: value.clone() for key, value in (high | low).items()}, files / "loras" / "both.safetensors"
    )
    for expert, part in (("high part", high), ("low part", low)):
        save_file(part, files / "loras" / f"{expert}.safetensors")
    both = latents(host, with_lora("both"))
    graph = with_lora("high part", low=0.0)
    graph["second"] = node(
        "WanLoRA", model_high=("lora", 0), model_low=("lora", 1), lora_name="low part.safetensors", strength_high=0.0,
        strength_low=STRENGTHS[1],
    )  # fmt: skip
    graph["sample"] = sampler(3, ("second", 0), ("second", 1))
    assert torch.equal(both, latents(host, graph))
    assert rel_l2(both, latents(host, with_lora("high part"))) > 1e-3


def test_on_the_hosts_own_model(host, files, weights):
    """What our node makes of a Wan model of the host's is what the host's loader makes of it."""
    graph = with_lora("kohya")
    for expert, state in zip(("high", "low"), weights, strict=True):
        save_file(state, files / "diffusion_models" / f"plain {expert}.safetensors")
        graph[expert] = node("UNETLoader", unet_name=f"plain {expert}.safetensors", weight_dtype="default")
    found = latents(host, graph)
    for expert, strength in zip(("high", "low"), STRENGTHS, strict=True):
        graph[f"lora {expert}"] = node(
            "LoraLoaderModelOnly", model=(expert, 0), lora_name="kohya.safetensors", strength_model=strength
        )
    graph["sample"] = sampler(3, ("lora high", 0), ("lora low", 0))
    del graph["lora"]
    assert rel_l2(latents(host, graph), found) < 1e-6


def test_on_packed_weights_it_equals_merging_into_the_unpacked(host, files, weights, parts):
    graph = with_lora("lightx2v")
    expected = base_graph() | {"sample": sampler(3), "save": save()}
    for expert, state, strength in zip(("high", "low"), weights, STRENGTHS, strict=True):
        left = write_gguf(files / "diffusion_models" / f"lora {expert}.gguf", state, "Q8_0")
        save_file(
            merged(left, parts, strength, "lightx2v"),
            files / "diffusion_models" / f"left {expert}.safetensors",
        )
        graph[expert] = node("WanDiTLoader", model_name=f"lora {expert}.gguf")
        expected[expert] = node("WanDiTLoader", model_name=f"left {expert}.safetensors")
    assert rel_l2(latents(host, graph), latents(host, expected)) < 1e-5
    # the same file without the LoRA, after it, is as it was
    plain = base_graph() | {"sample": sampler(3), "save": save()}
    for expert in ("high", "low"):
        plain[expert] = graph[expert]
    found = latents(host, plain)
    host.free()
    assert torch.equal(latents(host, plain), found)
    assert rel_l2(found, latents(host, expected)) > 1e-2


def test_another_strength_loads_nothing_again(host, files):
    full = latents(host, with_lora("lightx2v"))
    cached = []

    def keep(kind, data):
        if kind == "execution_cached":
            cached.extend(data["nodes"])

    half = latents(host, with_lora("lightx2v", high=0.5), keep)
    assert {"high", "low", "t5", "text"} <= set(cached) and "lora" not in cached
    assert rel_l2(half, full) > 1e-3
    assert rel_l2(latents(host, with_lora("lightx2v")), full) < 1e-6
    plain = latents(host, base_graph() | {"sample": sampler(3), "save": save()})
    assert torch.equal(latents(host, with_lora("lightx2v", high=0.0, low=0.0)), plain)


def test_two_files_add_up(host, files):
    graph = with_lora("lightx2v", high=0.4, low=0.1)
    graph["second"] = node(
        "WanLoRA", model_high=("lora", 0), model_low=("lora", 1), lora_name="lightx2v.safetensors", strength_high=0.6,
        strength_low=0.5,
    )  # fmt: skip
    graph["sample"] = sampler(3, ("second", 0), ("second", 1))
    assert rel_l2(latents(host, graph), by_hand(host, "lightx2v")) < 1e-5


def test_loras_of_other_models_are_named(host, files):
    name = "diffusion_model.blocks.0.self_attn.q"
    save_file(
        {f"{name}.lora_A.weight": torch.zeros(4, 3072), f"{name}.lora_B.weight": torch.zeros(3072, 4)},
        files / "loras" / "5b.safetensors",
    )
    save_file(
        {"lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": torch.zeros(4, 4)},
        files / "loras" / "flux.safetensors",
    )
    with pytest.raises(
        HostError,
        match=r"made for another model.*2 of its 2 keys do not fit.*self_attn\.q.*3072 wide, as TI2V-5B",
    ):
        host.run(with_lora("5b"))
    with pytest.raises(
        HostError, match=r"fits no weight.*looks like a LoRA for Flux or HunyuanVideo.*lora_unet_double"
    ):
        host.run(with_lora("flux"))


def test_distilled_preset_checks_the_lora(host, files):
    def report(graph, preset):
        graph["sample"]["inputs"]["preset"] = preset
        return host.run(graph)["outputs"]["sample"]["text"][0]

    text = report(with_lora("lightx2v"), "T2V-A14B 4-step LoRA")
    assert (
        text
        == "2 of 4 steps on the high-noise expert, 2 on the low-noise expert (boundary 0.875, shift 5, CFG 1 / 1)"
    )
    plain = base_graph() | {"sample": sampler(3), "save": save()}
    text = report(plain, "T2V-A14B 4-step LoRA")
    assert "no LoRA on the high-noise model" in text and "no LoRA on the low-noise model" in text
    del plain["sample"]["inputs"]["model_low"]
    text = report(plain, "T2V-A14B 4-step LoRA")
    assert text.count("There is no LoRA on the model") == 1 and text.endswith("\n4 steps (shift 5, CFG 1)")
    text = report(plain, "T2V-A14B")
    assert text.startswith("40 steps (shift 12, CFG 4 / 3)")
    text = report(with_lora("lightx2v"), "I2V-A14B 4-step LoRA")
    assert "is for image-to-video, and this is a text-to-video model" in text
    wrong = files / "loras" / "wan2.2_i2v_low_noise.safetensors"
    wrong.write_bytes((files / "loras" / "lightx2v.safetensors").read_bytes())
    text = report(with_lora(wrong.stem), "T2V-A14B 4-step LoRA")
    assert f"{wrong.name} on the high-noise model looks made for i2v" in text
