"""The 2.2 autoencoder against the official one: numbers at tiny size, names and shapes at the released size."""

from dataclasses import replace

import pytest
import torch
from tests_support import randomize_, rel_l2

from wan_models.config import VAE_2_2
from wan_models.vae import base, wan22
from wan_models.vae.wan22 import WanVAE22

RAW = (0.0, 1.0)  # the official scale argument (mean, 1 / std) that leaves latents as they are
SETTINGS = {"dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "temperal_downsample": [False, True, True]}


def pair(official, base_dim, dec_dim, z_dim=48):
    from wan.modules.vae2_2 import WanVAE_

    reference = randomize_(WanVAE_(dim=base_dim, dec_dim=dec_dim, z_dim=z_dim, **SETTINGS), std=0.1).eval()
    with torch.device("meta"):
        ours = WanVAE22(replace(VAE_2_2, base_dim=base_dim, dec_dim=dec_dim, z_dim=z_dim)).eval()
    ours.load_state_dict(reference.state_dict(), assign=True)
    return reference, ours


@pytest.mark.parametrize("piece_bytes", [1, 32 << 20])
@pytest.mark.parametrize(("frames", "dims"), [(1, (16, 24)), (5, (8, 16)), (21, (8, 8))])
@torch.no_grad()
def test_encode_and_decode_equal_official(official, seed, monkeypatch, frames, dims, piece_bytes):
    """Latent frames one by one and several at a time, batch 2, odd latent size."""
    monkeypatch.setitem(base._PIECE_BYTES, "cpu", piece_bytes)
    reference, ours = pair(official, *dims)
    video = torch.rand(2, 3, frames, 48, 80) * 2 - 1
    latents = reference.encode(video, RAW)
    assert rel_l2(ours.encode(video), latents) < 1e-5
    z = torch.randn_like(latents)
    assert rel_l2(ours.decode(z), reference.decode(z, RAW).clamp(-1, 1)) < 1e-5


@torch.no_grad()
def test_normalisation_equals_official(official, seed, monkeypatch):
    from wan.modules import vae2_2

    reference, ours = pair(official, 8, 8)
    monkeypatch.setattr(vae2_2, "_video_vae", lambda **_: reference)
    wrapper = vae2_2.Wan2_2_VAE(device="cpu")
    video = torch.rand(1, 3, 5, 32, 48) * 2 - 1
    z = wan22.normalize(ours.encode(video))
    assert rel_l2(z[0], wrapper.encode(list(video))[0]) < 1e-5
    assert rel_l2(ours.decode(wan22.denormalize(z))[0], wrapper.decode(list(z))[0]) < 1e-5


def test_parameters_of_the_release(official):
    from wan.modules.vae2_2 import WanVAE_

    with torch.device("meta"):
        reference = WanVAE_(dim=160, dec_dim=256, z_dim=48, **SETTINGS)
        ours = WanVAE22(VAE_2_2)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in reference.state_dict().items()
    }


@torch.no_grad()
def test_half_precision_is_near(official, seed):
    reference, ours = pair(official, 8, 16)
    z = torch.randn(1, 48, 3, 4, 6)
    exact = reference.decode(z, RAW).clamp(-1, 1)
    half = WanVAE22(ours.config).to(torch.bfloat16)
    half.load_state_dict(ours.state_dict())
    official_half = reference.to(torch.bfloat16).decode(z.bfloat16(), RAW).clamp(-1, 1)
    assert rel_l2(half.decode(z).float(), exact) <= 1.2 * rel_l2(official_half.float(), exact) < 0.1


@pytest.mark.parametrize("shape", [(1, 3, 4, 32, 32), (1, 3, 5, 24, 32), (1, 3, 5, 32, 40)])
def test_wrong_sizes_say_so(shape):
    with pytest.raises(ValueError, match=r"4n \+ 1 frames of a size that divides by 16"):
        WanVAE22(replace(VAE_2_2, base_dim=8, dec_dim=8)).encode(torch.zeros(shape))
