"""Tiny autoencoders: told by their headers, streaming, and refused where they are another model's.

Numbers are compared with the host's own in tests/host/test_tiny_vae.py."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from tests_support import rel_l2

from wan_models.checkpoints.errors import CheckpointError
from wan_models.config import TinyVAEConfig, VAEConfig
from wan_models.models import load_vae, read_info
from wan_models.random_weights import random_state_dict
from wan_models.vae import streaming
from wan_models.vae.tiny import TinyVAE
from wan_models.vae.wan21 import WanVAE21

SMALL = TinyVAEConfig(enc_dim=4, dec_dims=(16, 8, 4, 4))
SMALL_22 = replace(SMALL, version="2.2", z_dim=48, patch=2)
KINDS = pytest.mark.parametrize("config", [SMALL, SMALL_22], ids=["2.1", "2.2"])


def weights(config, dtype=torch.float32):
    return {name: w.to(dtype) for name, w in random_state_dict(lambda: TinyVAE(config), 3).items()}


def write(folder, name, config, dtype=torch.float32):
    save_file(weights(config, dtype), folder / name)
    return folder / name


@KINDS
@pytest.mark.parametrize("frames", [1, 5, 21])
@torch.no_grad()
def test_pieces_make_the_same_video(tmp_path, monkeypatch, config, frames):
    """Latent frames one by one and all at once, batch 2; the sizes are those of the VAE whose latents they are."""
    vae = load_vae(write(tmp_path, "taew.safetensors", config))
    size = config.stride[1]
    video = torch.rand(2, 3, frames, 2 * size, 3 * size) * 2 - 1
    z = torch.randn(2, config.z_dim, (frames + 3) // 4, 2, 3)
    results = []
    for piece_bytes in (1, 1 << 30):
        monkeypatch.setitem(streaming.PIECE_BYTES, "cpu", piece_bytes)
        results.append((vae.encode(video), vae.decode(z)))
    (latents, decoded), (latents_at_once, decoded_at_once) = results
    assert latents.shape == z.shape and decoded.shape == video.shape
    assert rel_l2(latents, latents_at_once) < 1e-6 and rel_l2(decoded, decoded_at_once) < 1e-6


@pytest.mark.parametrize(
    ("file", "dtype", "raw"),
    [
        ("taew2_1.safetensors", torch.float16, False), ("taew2_1.safetensors", torch.bfloat16, False),
        ("lighttaew2_1.safetensors", torch.float16, True), ("LightTAEW2_1 copy.safetensors", torch.float32, True),
        ("mine.safetensors", torch.float16, False), ("mine.safetensors", torch.bfloat16, True),
    ],
)  # fmt: skip
@torch.no_grad()
def test_latents_are_raw_for_all_kinds_of_files(tmp_path, file, dtype, raw):
    """What a file takes normalised latents of is given them, and gives them back as they are in the VAE."""
    path = write(tmp_path, file, SMALL, dtype)
    assert read_info(path).config == replace(SMALL, raw=raw)
    vae, as_it_is = load_vae(path), TinyVAE(replace(SMALL, raw=True))
    as_it_is.load_state_dict({name: w.float() for name, w in weights(SMALL, dtype).items()})
    z = torch.randn(1, 16, 2, 2, 2)
    assert rel_l2(vae.decode(z), as_it_is.decode(z if raw else vae.statistics.normalize(z))) < 1e-6
    video = torch.rand(1, 3, 5, 16, 16)
    latents = as_it_is.encode(video)
    assert rel_l2(vae.encode(video), latents if raw else vae.statistics.denormalize(latents)) < 1e-6


@KINDS
def test_description(tmp_path, config):
    info = read_info(write(tmp_path, "taew.safetensors", config))
    assert (info.kind, info.config.version) == ("vae", config.version)
    said = f"a tiny autoencoder for the Wan {config.version} VAE's latents ({config.z_dim} channels), "
    assert info.description.startswith(said)


@KINDS
def test_a_prefix_is_left_out(tmp_path, config):
    save_file({f"vae.{name}": w for name, w in weights(config).items()}, tmp_path / "taew.safetensors")
    assert read_info(tmp_path / "taew.safetensors").config == config.__class__(
        **{**vars(config), "raw": False}
    )


@torch.no_grad()
def test_a_file_without_an_encoder_decodes_only(tmp_path):
    config = replace(SMALL, enc_dim=0)
    vae = load_vae(write(tmp_path, "taew2_1.safetensors", config))
    assert vae.decode(torch.zeros(1, 16, 2, 2, 2)).shape == (1, 3, 5, 16, 16)
    with pytest.raises(ValueError, match=r"has a decoder only.*encode with the Wan 2\.1 VAE"):
        vae.encode(torch.zeros(1, 3, 5, 16, 16))


@torch.no_grad()
def test_the_light_vae_is_a_narrow_wan_vae(tmp_path):
    """lightvaew2_1: a quarter of the channels of each layer, the names and latents of the whole one."""
    save_file(
        random_state_dict(lambda: WanVAE21(VAEConfig(base_dim=24)), 1), tmp_path / "lightvaew2_1.safetensors"
    )
    vae = load_vae(tmp_path / "lightvaew2_1.safetensors")
    assert vae.config == VAEConfig(base_dim=24)
    assert vae.decode(torch.zeros(1, 16, 1, 1, 1)).shape == (1, 3, 1, 8, 8)


def tensors(**shapes):
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


OTHERS = {
    "taehv": ("taehv.safetensors", weights(SMALL), "HunyuanVideo"),
    "taecvx": ("TAECVX.safetensors", weights(SMALL), "CogVideoX"),
    "taehv1_5": ("tae.safetensors", weights(replace(SMALL, z_dim=32, patch=2)), "HunyuanVideo 1.5"),
    "unheard of": ("tae.safetensors", weights(replace(SMALL, z_dim=7)), "another model (7 latent channels)"),
    "taef1": (
        "taef1_decoder.safetensors",
        tensors(**{"1.weight": (64, 16, 3, 3), "3.conv.0.weight": (64, 64, 3, 3)}),
        "a tiny autoencoder for pictures",
    ),
    "diffusers taef1": (
        "taef1.safetensors",
        tensors(**{"decoder.layers.3.conv.0.weight": (64, 64, 3, 3)}),
        "a tiny autoencoder for pictures",
    ),
    "sd": (
        "vae-ft-mse.safetensors",
        tensors(**{
            "decoder.conv_in.weight": (8, 4, 3, 3), "encoder.conv_in.weight": (8, 3, 3, 3),
            "encoder.down.0.block.0.norm1.weight": (8,),
        }),
        "a VAE for pictures",
    ),
    "diffusers sd": (
        "diffusion_pytorch_model.safetensors",
        tensors(**{
            "decoder.conv_in.weight": (8, 4, 3, 3), "encoder.conv_in.weight": (8, 3, 3, 3),
            "encoder.down_blocks.0.resnets.0.conv1.weight": (8, 8, 3, 3),
        }),
        "a VAE for pictures",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("file", "state", "said"), OTHERS.values(), ids=OTHERS)
def test_other_models_autoencoders_are_named(tmp_path, file, state, said):
    save_file(state, tmp_path / file)
    with pytest.raises(CheckpointError) as error:
        load_vae(tmp_path / file)
    assert file in str(error.value) and said in str(error.value)
    assert str(error.value).endswith("a VAE was expected here.")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("decoder.3.conv.2.weight"), "decoder.3.conv.2.weight"),
        (lambda state: state.pop("decoder.14.weight"), "decoder.14.weight is missing"),
        (lambda state: state.update({"encoder.8.weight": torch.zeros(4, 3, 3, 3)}), "encoder.8.weight"),
        (lambda state: state.update(more=torch.zeros(1)), "more"),
        (lambda state: state.update({"decoder.22.bias": torch.zeros(())}), "no model this pack knows"),
    ],
    ids=["missing", "missing of the header", "another shape", "too many", "no axes"],
)
def test_files_that_do_not_fit_say_where(tmp_path, change, said):
    state = weights(SMALL)
    change(state)
    save_file(state, tmp_path / "taew2_1.safetensors")
    with pytest.raises(CheckpointError) as error:
        load_vae(tmp_path / "taew2_1.safetensors")
    assert said in str(error.value) and "taew2_1.safetensors" in str(error.value)
