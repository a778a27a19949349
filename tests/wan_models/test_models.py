"""The public loaders: every kind of model from every kind of file, and an import that costs nothing."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from formats import write_gguf, write_scaled_fp8
from safetensors.torch import save_file

import wan_models
from demo.tiny_release import DITS, write_release
from wan_models.audio.wav2vec import Wav2Vec
from wan_models.checkpoints.errors import CheckpointError, UnsupportedModelError, WrongModelError
from wan_models.checkpoints.reader import open_model
from wan_models.checkpoints.release_folder import ReleaseFolder
from wan_models.families import FAMILIES
from wan_models.models import build_network
from wan_models.text.tokenizer import TokenizerNotFoundError

ROOT = Path(__file__).parents[2]
PROMPT = "two cats surf"


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("releases")
    return {name: write_release(folder / name, name=name) for name in DITS}


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()


def test_the_import_costs_nothing():
    assert run("import sys, wan_models, wan_models.families; print('torch' in sys.modules)") == ["False"]
    code = "import sys; from wan_models import *; print(*{'transformers', 'diffusers'} & set(sys.modules))"
    assert run(code) == []


def test_networks_are_built_without_torchs_compiler():
    """Whose import takes seconds; some of torch's functions import it for the meta device."""
    code = """
        import sys
        from wan_models.models import build_network
        from wan_models.tools.small_models import CONFIGS, T5, VAES
        from wan_models.config import CLIPConfig, TinyVAEConfig
        for config in (*CONFIGS.values(), *VAES.values(), T5, CLIPConfig(num_layers=1), TinyVAEConfig()):
            build_network(config)
        print("torch._dynamo" in sys.modules)
    """
    assert run(dedent(code)) == ["False"]


def test_all_public_names_are_there():
    for name in wan_models.__all__:
        assert getattr(wan_models, name).__name__ == name
        assert name in dir(wan_models)
    with pytest.raises(AttributeError, match="no attribute 'load_nothing'"):
        wan_models.load_nothing  # noqa: B018


@pytest.mark.parametrize("name", DITS)
def test_a_model_of_each_family(releases, name):
    path, _ = ReleaseFolder(releases[name]).find_experts()
    info = wan_models.read_info(path)
    model = wan_models.load_dit(path)
    assert (info.kind, info.config, model.config) == ("dit", DITS[name], DITS[name])
    assert type(model) is FAMILIES[info.config.family].network_class
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert model.dtype == model.compute_dtype == torch.float32
    state, expected = model.state_dict(), open_model(path)
    assert state.keys() == set(expected) and all(torch.equal(state[k], expected[k]) for k in state)
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))


def test_the_dtype_is_that_of_large_weights_and_of_computation(releases):
    model = wan_models.load_dit(releases["T2V-A14B"] / "low_noise_model", dtype=torch.bfloat16)
    assert model.dtype == model.compute_dtype == model.blocks[0].ffn[0].weight.dtype == torch.bfloat16
    assert model.blocks[0].modulation.dtype == model.blocks[0].norm3.weight.dtype == torch.float32


@pytest.mark.parametrize("kind", ["Q8_0", "scaled fp8", "fp8"])
def test_narrow_weights_are_computed_in_bfloat16(releases, tmp_path, kind):
    state = dict(open_model(releases["T2V-A14B"] / "low_noise_model"))
    path = tmp_path / ("m.gguf" if kind == "Q8_0" else "m.safetensors")
    if kind == "Q8_0":
        write_gguf(path, state, kind)
    elif kind == "scaled fp8":
        write_scaled_fp8(path, state)
    else:
        save_file({k: w.to(torch.float8_e4m3fn) if w.dim() == 2 else w for k, w in state.items()}, path)
    model = wan_models.load_dit(path)
    assert model.compute_dtype == torch.bfloat16
    weight = model.blocks[0].ffn[0].weight
    assert weight.dtype == (torch.float8_e4m3fn if kind == "fp8" else torch.bfloat16)
    difference = weight.float() - state["blocks.0.ffn.0.weight"]
    assert difference.norm() < 0.05 * state["blocks.0.ffn.0.weight"].norm()
    with torch.no_grad():
        out = model(torch.randn(1, 16, 1, 4, 4), torch.tensor([500]), torch.randn(1, 3, 4096))
    assert out.shape == (1, 16, 1, 4, 4) and out.isfinite().all()


def test_vaes_and_encoders(releases):
    release = releases["Animate-14B"]
    for name, version in (("Animate-14B", "2.1"), ("TI2V-5B", "2.2")):
        vae = wan_models.load_vae(ReleaseFolder(releases[name]).find("vae"))
        assert (vae.config.version, vae.dtype) == (version, torch.float32)
    assert wan_models.load_vae(release / "Wan2.1_VAE.pth", dtype=torch.bfloat16).dtype == torch.bfloat16
    t5 = release / "models_t5_umt5-xxl-enc-bf16.pth"
    features = wan_models.load_text_encoder(t5)(PROMPT)
    assert (features.shape, features.dtype) == ((1, 512, 4096), torch.bfloat16)
    exact = wan_models.load_text_encoder(t5, dtype=torch.float32)(PROMPT)
    assert (features - exact).norm() < 0.05 * exact.norm()
    tower = wan_models.load_image_encoder(ReleaseFolder(release).find("clip_vision"))
    assert tower.cls_embedding.dtype == torch.float16 and not tower.training
    listener = wan_models.load_audio_encoder(ReleaseFolder(releases["S2V-14B"]).find("wav2vec2"))
    assert isinstance(listener, Wav2Vec)


def test_wrong_files_are_refused(releases, tmp_path):
    release = releases["T2V-A14B"]
    with pytest.raises(WrongModelError, match=r"is a Wan 2.1 VAE .*; a diffusion model was expected"):
        wan_models.load_dit(release / "Wan2.1_VAE.pth")
    with pytest.raises(WrongModelError, match="a UMT5 text encoder was expected"):
        wan_models.load_text_encoder(release / "low_noise_model")
    network = build_network(replace(DITS["T2V-A14B"], in_dim=48))
    save_file(
        {k: torch.zeros(w.shape) for k, w in network.state_dict().items()}, tmp_path / "control.safetensors"
    )
    with pytest.raises(UnsupportedModelError, match="Fun-Control"):
        wan_models.load_dit(tmp_path / "control.safetensors")
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "t5.pth").write_bytes((release / "models_t5_umt5-xxl-enc-bf16.pth").read_bytes())
    with pytest.raises(
        TokenizerNotFoundError, match=r"No tokenizer was found for t5.pth.*google/umt5-xxl"
    ) as caught:
        wan_models.load_text_encoder(tmp_path / "alone" / "t5.pth")
    assert caught.value.folder == tmp_path / "alone"


def test_a_release_folder_says_what_is_missing(releases, tmp_path):
    release = ReleaseFolder(releases["T2V-A14B"])
    low, high = release.find_experts()
    assert (low.name, high.name) == ("low_noise_model", "high_noise_model")
    with pytest.raises(
        CheckpointError, match="does not hold a wav2vec2 audio encoder: download the whole release"
    ):
        release.find("wav2vec2")
    (tmp_path / "Wan2.1_VAE.pth").write_bytes(b"<html>")
    with pytest.raises(CheckpointError, match=r"does not hold a VAE \(.*a web page that was saved"):
        ReleaseFolder(tmp_path).find("vae")
    with pytest.raises(ValueError, match="there is no release folder"):
        ReleaseFolder(tmp_path / "nowhere")


def test_a_diffusers_folder_is_a_release_folder(releases, tmp_path):
    for ours, theirs in (("high_noise_model", "transformer"), ("low_noise_model", "transformer_2")):
        (tmp_path / theirs).mkdir()
        state = dict(open_model(releases["T2V-A14B"] / ours))
        save_file(state, tmp_path / theirs / "diffusion_pytorch_model.safetensors")
    low, high = ReleaseFolder(tmp_path).find_experts()
    assert (low.name, high.name) == ("transformer_2", "transformer")
