"""The same tiny weights in every format people have: one video, through the real host."""

import re
import shutil

import pytest
import torch
from formats import vocabulary, write_diffusers, write_gguf, write_scaled_fp8
from graphs import RELEASE, base_graph, latents, node, sampler, save
from safetensors.torch import save_file
from tests_support import rel_l2

from devhost.errors import HostError
from wan_models.checkpoints.keys import to_foreign
from wan_models.checkpoints.reader import open_model

K_BLOCKS = ("Q6_K", "Q5_K", "Q4_K")


@pytest.fixture(scope="module")
def weights(base):
    """The release's networks: transformer (low), VAE and text encoder."""
    release = base / "models" / "wan" / "T2V-A14B"
    parts = {"dit": "low_noise_model", "vae": "Wan2.1_VAE.pth", "t5": "models_t5_umt5-xxl-enc-bf16.pth"}
    return {
        kind: {k: v.clone() for k, v in open_model(release / part).items()} for kind, part in parts.items()
    }


@pytest.fixture(scope="module")
def files(base, weights):
    """Every format; for those that round, also `<name> unpacked` with what is left of the weights."""
    models, dit = base / "models", weights["dit"]
    folder = models / "diffusion_models"
    save_file(dit, folder / "single.safetensors")
    save_file({f"model.diffusion_model.{k}": v for k, v in dit.items()}, folder / "prefixed.safetensors")
    torch.save({"module": dit}, folder / "pickled.pth")
    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
        save_file({k: v.to(dtype) for k, v in dit.items()}, folder / f"{name}.safetensors")
        save_file({k: v.to(dtype).float() for k, v in dit.items()}, folder / f"{name} unpacked.safetensors")
    for name, dtype in (("fp8_e4m3fn", torch.float8_e4m3fn), ("fp8_e5m2", torch.float8_e5m2)):
        plain = {k: v.to(dtype) if v.dim() == 2 else v for k, v in dit.items()}
        save_file(plain, folder / f"{name}.safetensors")
        save_file({k: v.float() for k, v in plain.items()}, folder / f"{name} unpacked.safetensors")
    for name, style, dtype in (
        ("scaled", "older", torch.float8_e4m3fn),
        ("scaled_e5m2", "older", torch.float8_e5m2),
        ("comfy_quant", "newer", torch.float8_e4m3fn),
    ):
        left = write_scaled_fp8(folder / f"{name}.safetensors", dit, dtype, style, "model.diffusion_model.")
        save_file(left, folder / f"{name} unpacked.safetensors")
    for kind in ("F32", "F16", "Q8_0", "Q4_0", *K_BLOCKS):
        left = write_gguf(folder / f"{kind}.gguf", dit, kind)
        save_file(left, folder / f"{kind} unpacked.safetensors")
    diffusers = models / "wan" / "diffusers"
    write_diffusers(diffusers / "transformer_2", "diffusers transformer", dit, {"num_attention_heads": 2})
    write_diffusers(diffusers / "vae", "diffusers VAE 2.1", weights["vae"])
    write_gguf(
        folder / "other.gguf", {"double_blocks.0.img_attn.qkv.weight": torch.zeros(4, 32)}, "F32", "flux"
    )
    return models


def run(host, name, seed=5, **loader):
    graph = base_graph() | {"sample": sampler(seed), "save": save()}
    for expert in ("high", "low"):
        graph[expert] = node("WanDiTLoader", model_name=name, **loader)
    return latents(host, graph)


@pytest.fixture(scope="module")
def expected(host, files):
    return run(host, RELEASE + "low_noise_model")


@pytest.mark.parametrize(
    "name",
    ["single.safetensors", "prefixed.safetensors", "pickled.pth", "F32.gguf", "wan/diffusers/transformer_2"],
)
def test_lossless_formats_are_bit_equal(host, expected, name):
    assert torch.equal(run(host, name), expected)


# Relative error of a rounded weight: half the last of so many bits; of blocks of 32, whose steps are a part of their
# greatest (about 2.5 of their deviation): step / sqrt(12)
ROUNDING = {
    "bf16.safetensors": 2**-9,
    "fp16.safetensors": 2**-12,
    "fp8_e4m3fn.safetensors": 2**-5,
    "fp8_e5m2.safetensors": 2**-4,
    "scaled.safetensors": 2**-5,
    "scaled_e5m2.safetensors": 2**-4,
    "comfy_quant.safetensors": 2**-5,
    "F16.gguf": 2**-12,
    "Q8_0.gguf": 2.5 / 127 / 12**0.5,
    "Q4_0.gguf": 2.5 / 8 / 12**0.5,
}


@pytest.mark.parametrize("name", [*ROUNDING, *(f"{kind}.gguf" for kind in K_BLOCKS)])
def test_rounding_formats_equal_their_unpacked_weights(host, expected, name):
    found = run(host, name)
    assert rel_l2(found, run(host, f"{name.rsplit('.')[0]} unpacked.safetensors")) < 1e-5
    if name in ROUNDING:  # K blocks hold weights of their own; measured: 0.9 to 1.1 of the format's error
        assert 0.5 < rel_l2(found, expected) / ROUNDING[name] < 2


def test_a_chosen_precision_unpacks_at_load(host, files):
    assert rel_l2(run(host, "Q8_0.gguf", weight_dtype="fp32"), run(host, "Q8_0.gguf")) < 1e-5


def decoded(host, vae_name, seed=5):
    graph = base_graph() | {"sample": sampler(seed)}
    graph["vae"] = node("WanVAELoader", vae_name=vae_name)
    graph["pixels"] = node("WanVAEDecode", samples=("sample", 0), vae=("vae", 0))
    graph["again"] = node("WanVAEEncode", frames=("pixels", 0), vae=("vae", 0))
    graph["save"] = save(("again", 0))
    return latents(host, graph)


def test_vae_formats(host, files, weights):
    expected = decoded(host, RELEASE + "Wan2.1_VAE.pth")
    vae = weights["vae"]
    save_file(vae, files / "vae" / "single.safetensors")
    left = write_gguf(files / "wan" / "vae.gguf", vae, "F16")
    assert all(torch.equal(left[k], v) for k, v in vae.items())  # a VAE has no matrices: nothing was rounded
    for name in ("single.safetensors", "wan/vae.gguf", "wan/diffusers/vae"):
        assert torch.equal(decoded(host, name), expected), name
    save_file({k: v.half() for k, v in vae.items()}, files / "vae" / "fp16.safetensors")
    save_file({k: v.half().float() for k, v in vae.items()}, files / "vae" / "fp16 unpacked.safetensors")
    assert torch.equal(decoded(host, "fp16.safetensors"), decoded(host, "fp16 unpacked.safetensors"))


def test_text_encoder_formats(comfyui, host, files, weights):
    model, fields = vocabulary()
    spiece = {"spiece_model": torch.tensor(list(model), dtype=torch.uint8)}
    folder = files / "text_encoders"
    t5 = {k: v.float() for k, v in weights["t5"].items()}
    names = to_foreign("transformers UMT5", t5)
    hugging_face = {names[k]: v for k, v in t5.items()}
    hugging_face["encoder.embed_tokens.weight"] = t5["token_embedding.weight"].clone()

    def text(name, **options):
        graph = base_graph("two cats surf") | {"sample": sampler(5), "save": save()}
        graph["t5"] = node("WanT5Loader", t5_name=name, **options)
        return latents(host, graph)

    save_file({k: v.bfloat16() for k, v in hugging_face.items()} | spiece, folder / "repackaged.safetensors")
    save_file({k: v.bfloat16() for k, v in t5.items()} | spiece, folder / "official names.safetensors")
    expected = text("official names.safetensors")
    assert torch.equal(text("repackaged.safetensors"), expected)
    llama = {v: t5[k] for k, v in to_foreign("llama.cpp UMT5", t5).items()}
    write_gguf(folder / "F32.gguf", llama, "F32", "t5encoder", fields)
    assert torch.equal(text("F32.gguf", weight_dtype="bf16"), expected)

    # a diffusers folder, whose tokenizer lies beside the encoder's folder
    release, diffusers = files / "wan" / "T2V-A14B", files / "wan" / "diffusers"
    write_diffusers(diffusers / "text_encoder", "transformers UMT5", weights["t5"])
    shutil.copytree(release / "google" / "umt5-xxl", diffusers / "tokenizer")
    assert torch.equal(text("wan/diffusers/text_encoder"), text(RELEASE + "models_t5_umt5-xxl-enc-bf16.pth"))

    unpacked = {
        "scaled.safetensors": write_scaled_fp8(folder / "scaled.safetensors", hugging_face, extra=spiece),
        "Q8_0.gguf": write_gguf(folder / "Q8_0.gguf", llama, "Q8_0", "t5encoder", fields),
    }
    # a host that holds these weights itself rounds their scales to bfloat16
    is_host = "disabled=[]" in (comfyui / "comfy" / "ops.py").read_text()
    near = {"scaled.safetensors": 0.05 if is_host else 1e-5, "Q8_0.gguf": 1e-5}
    for name, left in unpacked.items():
        save_file({k: v.contiguous() for k, v in left.items()} | spiece, folder / "unpacked.safetensors")
        assert rel_l2(text(name), text("unpacked.safetensors", weight_dtype="bf16")) < near[name], name
        assert rel_l2(text(name), expected) > 1e-4  # it is another encoder by its rounding
        host.free()  # the file of that name is written anew


def test_gguf_of_another_architecture_is_named(host, files):
    with pytest.raises(HostError, match=r"other.gguf is no model this pack knows \(the file says 'flux'"):
        run(host, "other.gguf")


def test_unknown_quantised_format_is_named(host, files, weights):
    import json

    state = {k: v for k, v in weights["dit"].items()}
    state["blocks.0.ffn.0.comfy_quant"] = torch.tensor(
        list(json.dumps({"format": "nf4"}).encode()), dtype=torch.uint8
    )
    save_file(state, files / "diffusion_models" / "nf4.safetensors")
    with pytest.raises(HostError, match="the weight's format is 'nf4'"):
        run(host, "nf4.safetensors")


def test_model_info_reads_headers(host, files):
    def report(name, **size):
        graph = {
            "info": node(
                "WanModelInfo", file_name=name, **({"width": 832, "height": 480, "frames": 81} | size)
            )
        }
        return host.run(graph)["outputs"]["info"]["text"][0]

    text = report("Q4_0.gguf")
    for part in (
        "text-to-video",
        "GGUF, Q4_0",
        "16 channels in, 16 out",
        "the Wan 2.1 VAE",
        "832x480, 81 frames",
    ):
        assert part in text, text
    assert float(
        re.search(r"activations about ([\d.]+) GiB", report("Q4_0.gguf", width=1664))[1]
    ) > 1.9 * float(re.search(r"activations about ([\d.]+) GiB", text)[1])
    assert "fp8_scaled" in report("scaled.safetensors")
    assert "2 layers, 256 wide" in report("wan/diffusers/transformer_2")
    assert "Wan 2.1 VAE" in report(RELEASE + "Wan2.1_VAE.pth") and "8x8 pixels" in report(
        RELEASE + "Wan2.1_VAE.pth"
    )
    assert "UMT5 text encoder" in report(RELEASE + "models_t5_umt5-xxl-enc-bf16.pth")
    assert "no model this pack knows (the file says 'flux'" in report("other.gguf")
