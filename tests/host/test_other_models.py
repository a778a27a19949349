"""Wan models that this pack does not run itself, and files as they lie about, in the real host.

The other models: named by our loader and by Wan Model Info, and the advice that they give is followed: the host's
loader, its conditioning node, our sampler.
"""

import shutil
from dataclasses import replace

import pytest
import torch
from graphs import RELEASE, base_graph, latents, node, sampler, save
from safetensors.torch import load_file, save_file
from tests_support import rel_l2

from demo.tiny_release import DIT, write_release
from devhost.errors import HostError
from wan_models.dit.base import WanModel
from wan_models.random_weights import random_state_dict

SIZE = {"width": 64, "height": 48, "length": 9, "batch_size": 1}
DIM = DIT.dim


def transformer(seed, **config):
    return random_state_dict(lambda: WanModel(replace(DIT, **config)), seed)


def linear(name, *shape):
    return {
        f"{name}.weight": torch.randn(shape) / shape[1] ** 0.5,
        f"{name}.bias": torch.randn(shape[0]) / 10,
    }


def vace(seed):
    state = transformer(seed)
    for i in range(2):
        state |= {
            f"vace_blocks.{i}.{k[9:]}": v.clone() for k, v in state.items() if k.startswith("blocks.0.")
        }
        state |= linear(f"vace_blocks.{i}.after_proj", DIM, DIM)
    state |= linear("vace_blocks.0.before_proj", DIM, DIM)
    return state | {
        "vace_patch_embedding.weight": torch.randn(DIM, 96, 1, 2, 2) / 20,
        "vace_patch_embedding.bias": torch.zeros(DIM),
    }


def camera(seed, **config):
    state = transformer(seed, **config)
    for name, shape in (
        ("conv", (DIM, 24 * 64, 2, 2)),
        *((f"residual_blocks.0.conv{i}", (DIM, DIM, 3, 3)) for i in (1, 2)),
    ):
        weight = torch.randn(shape)
        state[f"control_adapter.{name}.weight"] = weight / weight[0].numel() ** 0.5
        state[f"control_adapter.{name}.bias"] = torch.zeros(DIM)
    return state


CLIP_WIDE = 1280  # of the host's image embedding, which cannot be made smaller
MODELS = {
    "vace": (vace, "Wan VACE", "WanVaceToVideo"),
    "camera 2.1": (lambda s: camera(s, in_dim=32, image_dim=CLIP_WIDE), "Fun-Camera", "WanCameraImageToVideo"),
    "camera 2.2": (lambda s: camera(s, in_dim=36), "Fun-Camera", "WanCameraImageToVideo"),
    "control 2.1": (
        lambda s: transformer(s, in_dim=48, image_dim=CLIP_WIDE), "Wan Fun-Control", "WanFunControlToVideo",
    ),
    "control 2.2": (
        lambda s: transformer(s, in_dim=52)
        | {"ref_conv.weight": torch.randn(DIM, 16, 2, 2) / 8, "ref_conv.bias": torch.zeros(DIM)},
        "Fun-Control", "Wan22FunControlToVideo",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(base):
    torch.manual_seed(4)
    folder = base / "models" / "diffusion_models"
    for name, (make, *_) in MODELS.items():
        for expert, seed in (("high", 1), ("low", 2)):
            save_file(make(seed), folder / f"{name} {expert}.safetensors")
    return folder


def graph_of(name, conditioning, control):
    graph = base_graph() | {"sample": sampler(3), "save": save()}
    graph["vae"] = node("VAELoader", vae_name="vae.safetensors")
    inputs = {"positive": ("text", 0), "negative": ("text", 1), "vae": ("vae", 0), **SIZE}
    if conditioning == "WanVaceToVideo":
        inputs["strength"] = 1.0
    graph["picture"] = node("EmptyImage", width=64, height=48, batch_size=9, color=control)
    if conditioning == "WanCameraImageToVideo":
        pose = "Zoom In" if control else "Pan Left"
        graph["pose"] = node("WanCameraEmbedding", camera_pose=pose, width=64, height=48, length=9, speed=5.0)
        inputs["camera_conditions"] = ("pose", 0)
    else:
        inputs["control_video"] = ("picture", 0)
    graph["condition"] = node(conditioning, **inputs)
    for expert in ("high", "low"):
        graph[expert] = node("UNETLoader", unet_name=f"{name} {expert}.safetensors", weight_dtype="default")
    graph["sample"]["inputs"] |= {
        "positive": ["condition", 0], "negative": ["condition", 1], "latent_image": ["condition", 2],
    }  # fmt: skip
    return graph


@pytest.mark.parametrize("name", MODELS)
def test_other_models_are_named_and_the_road_works(host, folder, name):
    _, says, conditioning = MODELS[name]
    graph = base_graph() | {"sample": sampler(3), "save": save()}
    graph["high"] = node("WanDiTLoader", model_name=f"{name} high.safetensors")
    with pytest.raises(
        HostError,
        match=rf"{name} high.safetensors is .*{says}.*Load Diffusion Model.*Wan MoE Sampler.*{conditioning}",
    ):
        host.run(graph)
    info = node("WanModelInfo", file_name=f"{name} high.safetensors", width=832, height=480, frames=81)
    report = host.run({"info": info})["outputs"]["info"]["text"][0]
    for part in (says, "none of the models that this pack runs itself", "Wan MoE Sampler", conditioning):
        assert part in report, report

    found = latents(host, graph_of(name, conditioning, 0))
    assert found.isfinite().all() and found.std() > 0.1
    assert (
        rel_l2(latents(host, graph_of(name, conditioning, 0xFFFFFF)), found) > 1e-4
    )  # the control is looked at
    for expert, other in (("high", "low"), ("low", "high")):  # and so is each expert
        one = graph_of(name, conditioning, 0)
        one[expert] = one[other]
        assert rel_l2(latents(host, one), found) > 1e-3
    # as the only model, too
    one["sample"]["inputs"].pop("model_low")
    assert torch.equal(
        latents(host, one), latents(host, one | {"sample": graph_of(name, conditioning, 0)["sample"]})
    )


@pytest.mark.parametrize(
    ("place", "name", "says"),
    [
        (
            "high",
            "Wan2.1_VAE.pth",
            r"VAE.pth is a Wan 2.1 VAE .*; a diffusion model was expected.*WanVAELoader",
        ),
        (
            "t5",
            "low_noise_model",
            "text-to-video diffusion model.*; a UMT5 text encoder was expected.*WanDiTLoader",
        ),
        ("vae", "models_t5_umt5-xxl-enc-bf16.pth", "UMT5 text encoder.*; a VAE was expected.*WanT5Loader"),
    ],
)
def test_wrong_kind_names_the_right_loader(host, place, name, says):
    graph = base_graph() | {"sample": sampler(3), "save": save()}
    graph["vae"] = node("WanVAELoader", vae_name=f"{RELEASE}Wan2.1_VAE.pth", weight_dtype="fp32")
    graph["frames"] = node("WanVAEDecode", samples=("sample", 0), vae=("vae", 0), tile_size=0)
    graph["image"] = node("SaveImage", images=("frames", 0), filename_prefix="frames")
    (name_of_file,) = (key for key in graph[place]["inputs"] if key.endswith("_name"))
    graph[place]["inputs"][name_of_file] = RELEASE + name
    with pytest.raises(HostError, match=says):
        host.run(graph)


# --- files as they lie about ---


def offered(host, loader, name):
    entry = host.get(f"/object_info/{loader}")[loader]["input"]["required"][name]
    return entry[0] if isinstance(entry[0], list) else entry[1]["options"]


def test_links_capitals_hidden_files_and_shards(host, base, tmp_path):
    """A release behind links, with what file systems and downloads leave in it: listed once, and the same video."""
    models = base / "models"
    release = write_release(tmp_path / "kept" / "T2V-A14B")
    away = models / "wan" / "linked"
    shutil.copytree(release / "high_noise_model", tmp_path / "high")
    (tmp_path / "high" / "config.json").unlink()  # shards and their index alone
    (tmp_path / "high" / "._diffusion_pytorch_model-00001-of-00002.safetensors").write_bytes(
        b"\0\5\x16\7\0\2"
    )
    away.mkdir()
    (away / "high").symlink_to(tmp_path / "high")
    (away / "LOW.SAFETENSORS").symlink_to(release / "low_noise_model" / "diffusion_pytorch_model.safetensors")
    (away / "gone.safetensors").symlink_to(tmp_path / "nowhere.safetensors")
    (away / ".cache").mkdir()
    (away / ".cache" / "x.safetensors").write_bytes(b"")
    (away / "google").symlink_to(release / "google")
    t5 = torch.load(release / "models_t5_umt5-xxl-enc-bf16.pth")
    torch.save(
        {f"model.{k}": v for k, v in t5.items()}, away / "T5.PTH", _use_new_zipfile_serialization=False
    )
    state = load_file(release / "low_noise_model" / "diffusion_pytorch_model.safetensors")
    names = sorted(state)
    for i in range(2):
        file = models / "diffusion_models" / f"split-0000{i + 1}-of-00002.safetensors"
        save_file({f"model.{n}": state[n] for n in names[i::2]}, file)
    (models / "diffusion_models" / "dangling.safetensors").symlink_to(tmp_path / "nowhere")
    (models / "diffusion_models" / "._split.safetensors").write_bytes(b"\0\5\x16\7")

    listed = offered(host, "WanDiTLoader", "model_name")
    assert [name for name in listed if name.startswith("wan/linked")] == [
        "wan/linked/LOW.SAFETENSORS", "wan/linked/T5.PTH", "wan/linked/high",
    ]  # fmt: skip
    assert "split-00001-of-00002.safetensors" in listed
    for name in ("split-00002-of-00002.safetensors", "dangling.safetensors", "._split.safetensors"):
        assert name not in listed

    def run(high, low, t5):
        graph = base_graph() | {"sample": sampler(3), "save": save()}
        graph["high"], graph["low"] = (node("WanDiTLoader", model_name=name) for name in (high, low))
        graph["t5"]["inputs"]["t5_name"] = t5
        return latents(host, graph)

    encoder = "models_t5_umt5-xxl-enc-bf16.pth"
    expected = run(RELEASE + "high_noise_model", RELEASE + "low_noise_model", RELEASE + encoder)
    assert torch.equal(run("wan/linked/high", "wan/linked/LOW.SAFETENSORS", "wan/linked/T5.PTH"), expected)
    found = run(RELEASE + "high_noise_model", "split-00001-of-00002.safetensors", RELEASE + encoder)
    assert torch.equal(found, expected)
