"""Tiny autoencoders in the real host: drafts by Wan Load VAE, and the moving preview."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from forked import ForkedHost, run_script
from graphs import base_graph, latents, node, sampler, save
from PIL import Image
from safetensors.torch import load_file, save_file
from tests_support import rel_l2

from devhost.errors import HostError
from wan_models.config import TinyVAEConfig, VAEConfig
from wan_models.models import load_vae
from wan_models.random_weights import random_state_dict
from wan_models.vae.tiny import TinyVAE
from wan_models.vae.wan21 import WanVAE21

WHOLE = TinyVAEConfig()
SMALL = TinyVAEConfig(enc_dim=4, dec_dims=(8, 4, 4, 4))


def write(file, config):
    save_file(random_state_dict(lambda: TinyVAE(config), 4), file)


@pytest.fixture(scope="module")
def found(comfyui, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "models" / "vae_approx").mkdir(parents=True)
    for version, config in (("2_1", WHOLE), ("2_2", replace(WHOLE, version="2.2", z_dim=48, patch=2))):
        for name in ("taew", "lighttaew"):
            write(folder / "models" / "vae_approx" / f"{name}{version}.safetensors", config)
    return run_script("tiny_vae_script.py", comfyui, folder)


def test_numbers_are_the_hosts(found):
    """Both VAEs' latents, raw and normalised, one frame and several, a batch of two."""
    differences = {
        (name, what): value for name, each in found["differences"].items() for what, value in each.items()
    }
    assert len(differences) == 16 and max(differences.values()) < 1e-5, differences


def test_previews_are_the_decoded_frames(found):
    """Four of nine, made smaller; the file is tried in the second step, and shows pictures from the third on."""
    for name, preview in found["previews"].items():
        assert preview["calls"] == [False, False, True, True], name
        assert preview["shape"] == [4, 8, 20, 3] and preview["difference"] <= 1, name


def test_previews_take_a_twentieth_of_the_steps_at_most(found):
    for cost, (part, count) in found["budget"].items():
        assert part <= 0.05, cost
        assert count == 0 if cost == "50.0 of a step" else count >= 2, cost
    assert found["budget"]["0.04 of a step"][1] > 190


@pytest.fixture(scope="module")
def draft_base(base, tmp_path_factory):
    """The session's models beside small tiny autoencoders, in a base folder of this file's own server."""
    folder = tmp_path_factory.mktemp("drafts")
    models = folder / "models"
    models.mkdir()
    for kind in ("wan", "loras", "text_encoders", "diffusion_models"):
        (models / kind).symlink_to(base / "models" / kind, target_is_directory=True)
    for kind in ("vae", "vae_approx"):
        (models / kind).mkdir()
    write(models / "vae_approx" / "taew2_1.safetensors", SMALL)
    write(
        models / "vae_approx" / "taew2_2 decoder.safetensors",
        replace(SMALL, version="2.2", z_dim=48, patch=2, enc_dim=0),
    )
    save_file(
        {"3.conv.0.weight": torch.zeros(4, 4, 3, 3)}, models / "vae_approx" / "taef1_decoder.safetensors"
    )
    save_file({"3.conv.0.weight": torch.zeros(4, 4, 3, 3)}, models / "vae" / "renamed taew2_1.safetensors")
    save_file(
        random_state_dict(lambda: WanVAE21(VAEConfig(base_dim=24)), 1),
        models / "vae" / "lightvaew2_1.safetensors",
    )
    return folder


@pytest.fixture(scope="module")
def drafts(comfyui, draft_base):
    with ForkedHost(comfyui, base=draft_base, arguments=("--preview-method", "auto")) as server:
        yield server


def test_the_list_has_those_for_wan(drafts):
    entry = drafts.get("/object_info/WanVAELoader")["WanVAELoader"]["input"]["required"]["vae_name"]
    names = entry[0] if isinstance(entry[0], list) else entry[1]["options"]
    assert {"taew2_1.safetensors", "taew2_2 decoder.safetensors", "lightvaew2_1.safetensors"} <= {*names}
    assert "taef1_decoder.safetensors" not in names


@pytest.mark.parametrize("device", ["default", "multi gpu"])
@pytest.mark.parametrize("decode", ["WanVAEDecode", "VAEDecode"])
def test_drafts_of_a_video(drafts, draft_base, decode, device):
    """Decoded and encoded again by our nodes and the host's, with a tiny autoencoder; several GPUs are not needed."""
    graph = base_graph() | {"sample": sampler(3, steps=2), "save": save()}
    graph["vae"] = node("WanVAELoader", vae_name="taew2_1.safetensors", device=device)
    graph["pixels"] = node(decode, samples=("sample", 0), vae=("vae", 0))
    graph["pictures"] = node("SaveImage", images=("pixels", 0), filename_prefix="draft")
    graph["again"] = node(
        "WanVAEEncode" if decode == "WanVAEDecode" else "VAEEncode", pixels=("pixels", 0), vae=("vae", 0)
    )
    if decode == "WanVAEDecode":
        graph["again"]["inputs"]["frames"] = graph["again"]["inputs"].pop("pixels")
    graph["save again"] = save(("again", 0), "again")
    entry = drafts.run(graph)
    files = drafts.outputs(entry)
    pictures = np.stack([np.array(Image.open(file)) for file in sorted(files) if file.suffix == ".png"])
    samples, again = (
        load_file(next(file for file in files if file.name.startswith(name)))["latent_tensor"]
        for name in ("test", "again")
    )
    vae = load_vae(draft_base / "models" / "vae_approx" / "taew2_1.safetensors")
    with torch.no_grad():
        video = vae.decode(samples)
        assert rel_l2(again, vae.encode(video)) < 1e-5
    expected = ((video[0].movedim(0, -1) + 1) * 127.5).numpy()
    assert pictures.shape == expected.shape == (9, 48, 64, 3)
    assert abs(pictures - expected).max() <= 1.01


def test_the_light_vae_decodes(drafts):
    graph = base_graph() | {"vae": node("WanVAELoader", vae_name="lightvaew2_1.safetensors")}
    graph["pixels"] = node("WanVAEDecode", samples=("latent", 0), vae=("vae", 0))
    graph["pictures"] = node("SaveImage", images=("pixels", 0), filename_prefix="light")
    assert len(drafts.outputs(drafts.run(graph))) == 9


def test_what_cannot_be_used_says_why(drafts):
    graph = base_graph() | {"vae": node("WanVAELoader", vae_name="renamed taew2_1.safetensors")}
    graph["pixels"] = node("WanVAEDecode", samples=("latent", 0), vae=("vae", 0))
    graph["pictures"] = node("PreviewImage", images=("pixels", 0))
    with pytest.raises(
        HostError, match=r"is a tiny autoencoder for pictures \(TAESD, taef1\).*a VAE was expected"
    ):
        drafts.run(graph)
    graph["vae"]["inputs"]["vae_name"] = "taew2_2 decoder.safetensors"
    with pytest.raises(
        HostError, match=r"the latent has shape .* and the VAE decodes video latents of 48 channels"
    ):
        drafts.run(graph)
    graph["latent"]["inputs"]["vae"] = ["vae", 0]
    graph["latent"]["inputs"]["height"] = 64
    graph["again"] = node("WanVAEEncode", frames=("pixels", 0), vae=("vae", 0))
    graph["save"] = save(("again", 0))
    with pytest.raises(HostError, match=r"has a decoder only.*encode with the Wan 2\.2 VAE"):
        drafts.run(graph)


def watched(host, steps):
    """Frames, width and height of the previews of a run of 33 frames of 96x64."""
    seen = []
    graph = base_graph() | {"sample": sampler(1, steps=steps), "save": save()}
    graph["latent"]["inputs"] |= {"width": 96, "height": 64, "frames": 33}
    latents(host, graph, lambda kind, data: kind == "wan22.preview" and seen.append(data))
    return [(message["frames"], message["width"], message["height"]) for message in seen]


def test_the_moving_preview_is_decoded(drafts):
    """First the colours of latents; once the steps have taken long enough, decoded frames, and only those."""
    seen = watched(drafts, 150)
    quick, decoded = (9, 12, 8), (32, 96, 64)
    assert seen[0] == quick and seen[-1] == decoded and {*seen} == {quick, decoded}
    assert seen == sorted(seen, key=lambda kind: kind == decoded)


def test_a_damaged_file_is_named_once(drafts, draft_base):
    """It comes before the other one, by its name; the previews are those without it."""
    damaged = draft_base / "models" / "vae_approx" / "lighttaew2_1.safetensors"
    damaged.write_bytes((draft_base / "models" / "vae_approx" / "taew2_1.safetensors").read_bytes()[:-100])
    try:
        assert {*watched(drafts, 60), *watched(drafts, 60)} == {(9, 12, 8)}
    finally:
        damaged.unlink()
    lines = [line for line in drafts.log.read_text().splitlines() if "previews are made without" in line]
    assert len(lines) == 1 and "lighttaew2_1.safetensors" in lines[0]
