"""Models whose weights stay packed under the host's own nodes, and quantised models of others under ours."""

import pytest
import torch
from forked import run_script
from formats import vocabulary, write_gguf, write_scaled_fp8
from safetensors.torch import load_file, save_file

from wan_models.checkpoints.keys import to_foreign
from wan_models.checkpoints.reader import open_model

KINDS = ("scaled", "newer", "Q8_0", "Q4_K")


def write_encoders(folder, weights):
    """A packed text encoder in two formats, and what is left of its weights."""
    model, fields = vocabulary()
    spiece = {"spiece_model": torch.tensor(list(model), dtype=torch.uint8)}
    save_file(spiece, folder / "spiece.safetensors")
    names = to_foreign("llama.cpp UMT5", weights)
    llama = {foreign: weights[name] for name, foreign in names.items()}
    left = write_gguf(folder / "t5 Q8_0.gguf", llama, "Q8_0", "t5encoder", fields)
    save_file({name: left[names[name]] for name in names}, folder / "t5 Q8_0 unpacked.safetensors")
    left = write_scaled_fp8(folder / "t5 scaled.safetensors", weights, extra=spiece)
    save_file(left, folder / "t5 scaled unpacked.safetensors")
    second = {name: weight.flip(0) if weight.dim() > 1 else weight for name, weight in weights.items()}
    save_file(
        {name: weight.contiguous() for name, weight in second.items()} | spiece, folder / "second.safetensors"
    )


def write_loras(folder, weights):
    """Low rank, differences and a bias; and the file of the session with a change of a bare parameter."""
    generator = torch.Generator().manual_seed(4)
    out = {}
    for name in ("blocks.0.self_attn.q", "blocks.1.cross_attn.v", "blocks.1.ffn.2", "head.head"):
        rows, columns = weights[f"{name}.weight"].shape
        out[f"diffusion_model.{name}.lora_A.weight"] = torch.randn(4, columns, generator=generator) / 16
        out[f"diffusion_model.{name}.lora_B.weight"] = torch.randn(rows, 4, generator=generator)
    out["diffusion_model.blocks.0.self_attn.k.diff"] = torch.randn(256, 256, generator=generator) / 16
    out["diffusion_model.blocks.0.self_attn.q.diff_b"] = torch.randn(256, generator=generator) / 4
    change = {"diffusion_model.blocks.1.diff_m": torch.randn(1, 6, 256, generator=generator) / 4}
    save_file(out | change, folder / "mixed.safetensors")
    save_file(load_file(folder / "lora.safetensors") | change, folder / "modulation.safetensors")


@pytest.fixture(scope="module")
def results(comfyui, base, tmp_path_factory):
    own = tmp_path_factory.mktemp("packed")
    for name in ("diffusion_models", "loras", "text_encoders", "wan"):
        (own / "models" / name).mkdir(parents=True)
    release = base / "models" / "wan" / "T2V-A14B"
    (own / "models" / "wan" / "T2V-A14B").symlink_to(release, target_is_directory=True)
    folder = own / "models" / "diffusion_models"
    for name in ("high", "low"):
        (folder / f"{name}.safetensors").symlink_to(
            base / "models" / "diffusion_models" / f"{name}.safetensors"
        )
    (own / "models" / "loras" / "lora.safetensors").symlink_to(base / "models" / "loras" / "lora.safetensors")

    dit = {k: v.clone() for k, v in open_model(release / "low_noise_model").items()}
    for name, style in (("scaled", "older"), ("comfy_quant", "newer")):
        left = write_scaled_fp8(folder / f"{name}.safetensors", dit, style=style)
        save_file(left, folder / f"{name} unpacked.safetensors")
    for kind in ("Q8_0", "Q4_K"):
        save_file(write_gguf(folder / f"{kind}.gguf", dit, kind), folder / f"{kind} unpacked.safetensors")
    t5 = open_model(release / "models_t5_umt5-xxl-enc-bf16.pth")
    write_encoders(own / "models" / "text_encoders", {k: v.float().contiguous() for k, v in t5.items()})
    write_loras(own / "models" / "loras", dit)

    return run_script("packed_script.py", comfyui, own)


def of(results, what, kind):
    """What was found of a kind that this pack unpacks itself."""
    if kind not in results[what]:
        pytest.skip("the host holds these weights in layers of its own: test_quantized")
    return results[what][kind]


@pytest.mark.parametrize("kind", KINDS)
def test_saved_models_are_unpacked_with_their_loras(results, kind):
    found = of(results, "saved", kind)
    assert found["names"] and found["dtypes"] == ["torch.float32"]  # what a CPU computes in
    assert max(found[how] for how in ("ours", "theirs", "afterwards")) < 1e-5
    assert found["checkpoint"] == 0 and found["partly loaded"] < 1e-6
    assert found["LoRAs"] > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_every_merge_equals_that_of_the_unpacked_weights(results, kind):
    found = dict(of(results, "merged", kind))
    assert found.pop("extracted") < 1e-3  # the host writes them in half precision
    assert len(found) == 5 * 2 + 3 + 1
    assert max(found.values()) < 1e-5, found


@pytest.mark.parametrize("kind", KINDS)
def test_every_reader_sees_the_weights_themselves(results, kind):
    found = of(results, "readers", kind)
    assert found["shapes"] and found["dtype"] == found["model_dtype"] == "torch.float32"
    assert 0 <= found["worst"] < 5e-4  # of a way through half precision
    assert found["size"] == pytest.approx(1, rel=5e-3)  # and some buffers
    assert found["writing is refused"]


@pytest.mark.parametrize("kind", ["scaled", "Q8_0"])
def test_a_lora_on_one_prompt(results, kind):
    found = of(results, "prompt LoRA", kind)
    assert max(found["with"], found["after"]) < 1e-5
    assert found["change"] > 1e-2


@pytest.mark.parametrize("file", ["t5 scaled.safetensors", "t5 Q8_0.gguf"])
def test_packed_text_encoders_are_merged_and_saved_unpacked(results, file):
    found = of(results, "text encoder", file)
    assert found["values"] < 1e-6 and found["second"] < 1e-6
    assert max(found[how] for how in ("plain", "saved", "first", "after")) < 1e-5
    assert found["change"] > 2e-2


def test_handing_an_unpacked_model_to_the_workers_takes_no_memory(results):
    for dtype, found in results["released"].items():
        assert found["bytes"] <= 1, dtype
        assert found["difference"] < 1e-6 and found["workers"] < 1e-4, dtype


def test_lora_on_quantised_models_of_others(results):
    foreign = results["foreign"]
    assert len(foreign) >= 5
    for what, found in foreign.items():
        assert found["difference"] < 1e-6, what
        assert found["modulation"] < 1e-6, what
        assert min(found["change"], found["seen"]) > 1e-3, what
