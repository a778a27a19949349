"""Both autoencoders against the official ones, at a tiny size."""

from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import pytest
import torch
from tests_support import on_meta, randomize_, rel_l2

from wan_models.config import VAE_2_2, VAEConfig
from wan_models.vae import streaming, wan21, wan22
from wan_models.vae.causal import RMSNorm
from wan_models.vae.wan21 import WanVAE21
from wan_models.vae.wan22 import WanVAE22

RAW = (0.0, 1.0)  # the official scale argument (mean, 1 / std) that leaves latents as they are
SETTINGS = {"dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "temperal_downsample": [False, True, True]}


@dataclass
class Kind:
    """One of the two: where it is in both codes, and a size in pixels of an odd number of latents."""

    module: Any
    network: type
    config: VAEConfig
    official: str
    wrapper: str
    size: tuple[int, int]

    def pair(self, dim, dec_dim=None):
        """The official network and ours of the same random weights."""
        widths = {} if dec_dim is None else {"dec_dim": dec_dim}
        theirs = import_module(self.official).WanVAE_
        reference = theirs(dim=dim, z_dim=self.config.z_dim, **widths, **SETTINGS)
        reference = randomize_(reference, std=0.1).eval()
        ours = on_meta(self.network, replace(self.config, base_dim=dim, **widths)).eval()
        ours.load_state_dict(reference.state_dict(), assign=True)
        return reference, ours


VAE21 = Kind(wan21, WanVAE21, VAEConfig(), "wan.modules.vae2_1", "Wan2_1_VAE", (48, 40))
VAE22 = Kind(wan22, WanVAE22, VAE_2_2, "wan.modules.vae2_2", "Wan2_2_VAE", (48, 80))
SMALL = [pytest.param(VAE21, (8,), id="2.1"), pytest.param(VAE22, (8, 8), id="2.2")]


@pytest.mark.parametrize("piece_bytes", [1, 32 << 20])
@pytest.mark.parametrize(
    ("kind", "frames", "dims"),
    [
        (VAE21, 1, (16,)), (VAE21, 5, (8,)), (VAE21, 17, (24,)), (VAE21, 29, (8,)),
        (VAE22, 1, (16, 24)), (VAE22, 5, (8, 16)), (VAE22, 21, (8, 8)),
    ],
    ids=lambda value: value.config.version if isinstance(value, Kind) else str(value),
)  # fmt: skip
@torch.no_grad()
def test_encode_and_decode_equal_official(official, monkeypatch, kind, frames, dims, piece_bytes):
    """Latent frames one by one and several at a time, batch 2, odd latent size."""
    monkeypatch.setitem(streaming.PIECE_BYTES, "cpu", piece_bytes)
    reference, ours = kind.pair(*dims)
    video = torch.rand(2, 3, frames, *kind.size) * 2 - 1
    latents = reference.encode(video, RAW)
    assert rel_l2(ours.encode(video), latents) < 1e-5
    z = torch.randn_like(latents)
    assert rel_l2(ours.decode(z), reference.decode(z, RAW).clamp(-1, 1)) < 1e-5


@pytest.mark.parametrize(("kind", "dims"), SMALL)
@torch.no_grad()
def test_normalisation_equals_official(official, monkeypatch, kind, dims):
    reference, ours = kind.pair(*dims)
    module = import_module(kind.official)
    monkeypatch.setattr(module, "_video_vae", lambda **_: reference)
    wrapper = getattr(module, kind.wrapper)(device="cpu")
    stride = kind.config.stride[1]
    video = torch.rand(1, 3, 5, 2 * stride, 3 * stride) * 2 - 1
    z = kind.module.normalize(ours.encode(video))
    assert rel_l2(z[0], wrapper.encode(list(video))[0]) < 1e-5
    assert rel_l2(ours.decode(kind.module.denormalize(z))[0], wrapper.decode(list(z))[0]) < 1e-5


@pytest.mark.parametrize(
    ("kind", "dims"), [pytest.param(VAE21, (16,), id="2.1"), pytest.param(VAE22, (8, 16), id="2.2")]
)
@torch.no_grad()
def test_half_precision_is_as_near_as_the_official_one(official, kind, dims):
    reference, ours = kind.pair(*dims)
    z = torch.randn(1, kind.config.z_dim, 3, 4, 6)
    exact = reference.decode(z, RAW).clamp(-1, 1)
    half = kind.network(ours.config).to(torch.bfloat16)
    half.load_state_dict(ours.state_dict())
    official_half = reference.to(torch.bfloat16).decode(z.bfloat16(), RAW).clamp(-1, 1)
    assert rel_l2(half.decode(z).float(), exact) <= 1.2 * rel_l2(official_half.float(), exact) < 0.1


@pytest.mark.parametrize(("frames", "height", "width"), [(4, 2, 2), (5, 1.5, 2), (5, 2, 2.5)])
@pytest.mark.parametrize(("kind", "dims"), SMALL)
def test_wrong_sizes_say_so(kind, dims, frames, height, width):
    """Frames, and height and width in latents."""
    stride = kind.config.stride[1]
    widths = dict(zip(("base_dim", "dec_dim"), dims, strict=False))
    with pytest.raises(ValueError, match=rf"4n \+ 1 frames of a size that divides by {stride}"):
        kind.network(replace(kind.config, **widths)).encode(
            torch.zeros(1, 3, frames, int(height * stride), int(width * stride))
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_norms_are_torchs_own(dtype):
    """In value and gradient, of positions without any signal too."""
    norm = RMSNorm(6, 3).to(dtype)
    x = torch.randn(2, 6, 3, 4, 5, dtype=dtype)
    x[..., 0] = 0
    found, expected = (x.clone().requires_grad_() for _ in range(2))
    out, plain = norm(found), torch.nn.functional.normalize(expected, dim=1) * 6**0.5
    weights = torch.randn_like(out)
    (out * weights).sum().backward()
    (plain * weights).sum().backward()
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-6
    assert rel_l2(out, plain) < tolerance
    alive = x != 0
    assert rel_l2(found.grad[alive], expected.grad[alive]) < tolerance
    assert found.grad.isfinite().all()


@pytest.mark.parametrize("bands", [2, 3])
@pytest.mark.parametrize(("kind", "dims"), SMALL)
@torch.no_grad()
def test_bands_are_the_whole(official, kind, dims, bands):
    _, vae = kind.pair(*dims)
    z, seen = torch.randn(2, kind.config.z_dim, 3, 45, 3), []
    found = vae.decode_in_bands(z, bands, lambda done, total: seen.append((done, total)))
    assert rel_l2(found, vae.decode(z)) < 1e-5
    assert seen == sorted(seen) and seen[-1] == (3 * bands, 3 * bands)


@pytest.mark.parametrize(("kind", "dims"), SMALL)
def test_a_row_depends_on_those_in_reach(official, kind, dims):
    """On all of them, and on none beyond."""
    decoder, factor = kind.pair(*dims)[1].decoder, 8
    x = torch.randn(1, decoder.conv1.out_channels, 1, 40, 1, requires_grad=True)
    out = decoder.upsample(x, {}, 1)
    rows = []
    for place in (20 * factor, 21 * factor - 1):  # the first and the last row of what row 20 becomes
        (slopes,) = torch.autograd.grad(out[:, :, :, place].sum(), x, retain_graph=True)
        rows += slopes.abs().sum((0, 1, 2, 4)).nonzero().flatten().tolist()
    assert (min(rows), max(rows)) == (20 - decoder.reach, 20 + decoder.reach)
