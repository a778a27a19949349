"""Model files that change on disk while a server runs: loaded anew by the next prompt, never read half."""

import os
import shutil

import pytest
import torch
from forked import ForkedHost, run_script
from formats import write_gguf
from graphs import RELEASE, base_graph, latents, node, sampler, save
from safetensors.torch import load_file, save_file

from demo.tiny_release import DIT, write_listener, write_release
from devhost.errors import HostError
from wan_models.checkpoints.reader import open_checkpoint
from wan_models.dit.base import WanModel
from wan_models.random_weights import random_state_dict

SINGLE = "single.safetensors"


@pytest.fixture(scope="module")
def away(tmp_path_factory):
    return tmp_path_factory.mktemp("changed")


@pytest.fixture(scope="module")
def host(comfyui, away):
    """A server of its own: the files of the others' stay as they are."""
    write_release(away / "models" / "wan" / "T2V-A14B")
    for name in ("diffusion_models", "loras"):
        (away / "models" / name).mkdir()
    with ForkedHost(comfyui, base=away) as server:
        yield server


@pytest.fixture
def model(away, host):
    """A diffusion model as one file, whole."""
    source = next((away / "models/wan/T2V-A14B/low_noise_model").glob("*.safetensors"))
    return shutil.copy(source, away / "models/diffusion_models" / SINGLE)


def changed(file, factor):
    """The file's weights, of which one is multiplied, in a file beside it."""
    state = load_file(file)
    state["blocks.0.ffn.0.weight"] = state["blocks.0.ffn.0.weight"] * factor
    beside = file.with_suffix(".new")
    save_file(state, beside)
    return beside


def graph(**more):
    made = base_graph() | {"high": node("WanDiTLoader", model_name=SINGLE)}
    made["low"] = made.pop("high")
    return made | {"sample": sampler(steps=2, high=("low", 0)), "save": save()} | more


def put_back(away):
    """The release as it was."""
    write_release(away / "models" / "wan" / "T2V-A14B")


@pytest.mark.parametrize("how", ["beside and renamed", "in place"])
def test_the_next_prompt_loads_a_replaced_model(host, model, how):
    before = latents(host, graph())
    new = changed(model, 3)
    if how == "in place":
        model.write_bytes(new.read_bytes())
        new.unlink()
    else:
        new.replace(model)
    after = latents(host, graph())
    assert not torch.equal(before, after)
    again = latents(host, graph(other=node("WanDiTLoader", model_name=RELEASE + "low_noise_model")))
    assert torch.equal(after, again)


def pictures():
    made = graph()
    made["vae"] = node("WanVAELoader", vae_name=RELEASE + "Wan2.1_VAE.pth")
    made["pixels"] = node("WanVAEDecode", samples=("sample", 0), vae=("vae", 0))
    made["again"] = node("WanVAEEncode", frames=("pixels", 0), vae=("vae", 0))
    made["save"] = save(("again", 0))
    return made


@pytest.mark.parametrize("name", ["models_t5_umt5-xxl-enc-bf16.pth", "Wan2.1_VAE.pth"])
def test_the_next_prompt_loads_other_replaced_files(host, model, away, name):
    before = latents(host, pictures())
    file = away / "models/wan/T2V-A14B" / name
    state = torch.load(file)
    key = next(key for key in state if key.startswith(("decoder.conv1", "blocks.0.attn.q")))
    torch.save(state | {key: state[key] * 3}, file.with_suffix(".new"))
    file.with_suffix(".new").replace(file)
    assert not torch.equal(before, latents(host, pictures()))
    put_back(away)
    assert torch.equal(before, latents(host, pictures()))


def test_the_next_prompt_loads_a_replaced_lora(host, model, away):
    file = away / "models/loras/style.safetensors"
    made = graph(lora=node("WanLoRA", model_high=("low", 0), lora_name=file.name))
    made["sample"] = sampler(steps=2, high=("lora", 0))
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        stem = "diffusion_model.blocks.0.self_attn.q"
        up = torch.randn(256, 4) / 4
        save_file({f"{stem}.lora_A.weight": torch.randn(4, 256), f"{stem}.lora_B.weight": up}, file)
        found.append(latents(host, made))
    assert not torch.equal(*found)


def test_a_model_cut_short_in_place_is_refused_and_the_server_lives(host, model):
    latents(host, graph())
    whole = model.read_bytes()
    os.truncate(model, len(whole) // 3)
    with pytest.raises(HostError, match=f"{SINGLE} is cut short"):
        host.run(graph())
    model.write_bytes(whole)
    assert latents(host, graph()).isfinite().all()


PARTS = ("model", "gguf", "lora", "vae", "text encoder", "image encoder", "audio encoder")


@pytest.fixture(scope="module")
def uses(comfyui, tmp_path_factory):
    """What using a loaded model says after its file has changed; one process does all, and none of it ends it."""
    base = tmp_path_factory.mktemp("uses")
    models = base / "models"
    release = write_release(models / "wan" / "Animate-14B", name="Animate-14B")
    for name in ("diffusion_models", "vae", "loras", "audio_encoders/listener"):
        (models / name).mkdir(parents=True)
    state = random_state_dict(lambda: WanModel(DIT), 1)
    save_file(state, models / "diffusion_models/low.safetensors")
    write_gguf(models / "diffusion_models/low.gguf", state, "Q8_0")
    save_file(dict(open_checkpoint(release / "Wan2.1_VAE.pth")), models / "vae/vae.safetensors")
    stem = "diffusion_model.blocks.0.self_attn.q"
    lora = {f"{stem}.lora_A.weight": torch.rand(4, 256), f"{stem}.lora_B.weight": torch.rand(256, 4)}
    save_file(lora, models / "loras/lora.safetensors")
    write_listener(models / "audio_encoders/listener", 1)
    return run_script("changed_files_script.py", comfyui, base)


@pytest.mark.parametrize("part", PARTS)
def test_a_loaded_file_that_changed_is_not_used(uses, part):
    for how in ("cut", "overwritten"):
        assert "was changed after it was opened" in uses[f"{part} {how}"]
        assert "queue the prompt again" in uses[f"{part} {how}"]
    for how in ("replaced", "deleted"):  # what is mapped is there as it was
        assert uses[f"{part} {how}"] == "works"
