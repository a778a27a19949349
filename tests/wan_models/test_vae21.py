"""The 2.1 autoencoder against the official one: numbers at tiny size, names and shapes at the released size."""

import pytest
import torch
from tests_support import randomize_, rel_l2

from wan_models.config import VAEConfig
from wan_models.vae import base, wan21
from wan_models.vae.wan21 import WanVAE21

RAW = (0.0, 1.0)  # the official scale argument (mean, 1 / std) that leaves latents as they are


def pair(official, base_dim):
    from wan.modules.vae2_1 import WanVAE_

    settings = {"dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "temperal_downsample": [False, True, True]}
    reference = randomize_(WanVAE_(dim=base_dim, z_dim=16, **settings), std=0.1).eval()
    with torch.device("meta"):
        ours = WanVAE21(VAEConfig(base_dim=base_dim)).eval()
    ours.load_state_dict(reference.state_dict(), assign=True)
    return reference, ours


@pytest.mark.parametrize("piece_bytes", [1, 32 << 20])
@pytest.mark.parametrize(("frames", "base_dim"), [(1, 16), (5, 8), (17, 24), (29, 8)])
@torch.no_grad()
def test_encode_and_decode_equal_official(official, seed, monkeypatch, frames, base_dim, piece_bytes):
    """Latent frames one by one and several at a time, batch 2, odd latent size."""
    monkeypatch.setitem(base._PIECE_BYTES, "cpu", piece_bytes)
    reference, ours = pair(official, base_dim)
    video = torch.rand(2, 3, frames, 48, 40) * 2 - 1
    latents = reference.encode(video, RAW)
    assert rel_l2(ours.encode(video), latents) < 1e-5
    z = torch.randn_like(latents)
    assert rel_l2(ours.decode(z), reference.decode(z, RAW).clamp(-1, 1)) < 1e-5


@torch.no_grad()
def test_normalisation_equals_official(official, seed, monkeypatch):
    from wan.modules import vae2_1

    reference, ours = pair(official, 8)
    monkeypatch.setattr(vae2_1, "_video_vae", lambda **_: reference)
    wrapper = vae2_1.Wan2_1_VAE(device="cpu")
    video = torch.rand(1, 3, 5, 16, 24) * 2 - 1
    z = wan21.normalize(ours.encode(video))
    assert rel_l2(z[0], wrapper.encode(list(video))[0]) < 1e-5
    assert rel_l2(ours.decode(wan21.denormalize(z))[0], wrapper.decode(list(z))[0]) < 1e-5


def test_parameters_of_the_release(official):
    from wan.modules.vae2_1 import WanVAE_

    with torch.device("meta"):
        reference = WanVAE_(
            dim=96, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, temperal_downsample=[False, True, True]
        )
        ours = WanVAE21(VAEConfig())
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in reference.state_dict().items()
    }


@torch.no_grad()
def test_half_precision_is_near(official, seed):
    reference, ours = pair(official, 16)
    z = torch.randn(1, 16, 3, 4, 6)
    exact = reference.decode(z, RAW).clamp(-1, 1)
    half = WanVAE21(VAEConfig(base_dim=16)).to(torch.bfloat16)
    half.load_state_dict(ours.state_dict())
    official_half = reference.to(torch.bfloat16).decode(z.bfloat16(), RAW).clamp(-1, 1)
    assert rel_l2(half.decode(z).float(), exact) <= 1.2 * rel_l2(official_half.float(), exact) < 0.1


@torch.no_grad()
def test_progress_and_cancel_leave_nothing_behind(seed, monkeypatch):
    monkeypatch.setitem(base._PIECE_BYTES, "cpu", 1)
    vae = randomize_(WanVAE21(VAEConfig(base_dim=8)), std=0.1)
    z = torch.randn(1, 16, 4, 2, 2)
    seen = []
    whole = vae.decode(z, on_frames=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]

    def cancel(done, total):
        if done == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        vae.decode(z, on_frames=cancel)
    assert torch.equal(vae.decode(z), whole)


@pytest.mark.parametrize("shape", [(1, 3, 4, 16, 16), (1, 3, 5, 12, 16), (1, 3, 5, 16, 20)])
def test_wrong_sizes_say_so(shape):
    with pytest.raises(ValueError, match=r"4n \+ 1 frames of a size that divides by 8"):
        WanVAE21(VAEConfig(base_dim=8)).encode(torch.zeros(shape))
