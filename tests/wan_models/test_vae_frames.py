"""Where frames are large, an autoencoder on a GPU works on one at a time and convolutions on some rows: to the bit."""

import pytest
import torch
from tests_support import rel_l2

from wan_models.models import build_network
from wan_models.random_weights import random_state_dict
from wan_models.tools.small_models import VAES
from wan_models.vae import base, causal


@pytest.mark.parametrize("cells", [1, 3])
@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("version", VAES)
@torch.inference_mode()
def test_frames_one_by_one(monkeypatch, version, frames, cells):
    vae, z, video = _vae(version, cells)
    assert vae._frames(96 * 128, z.device) >= 9
    whole = vae.decode(z), vae.encode(video)
    monkeypatch.setattr(base.VideoVAE, "_frames", lambda *_: frames)
    assert torch.equal(vae.decode(z), whole[0])
    assert torch.equal(vae.encode(video), whole[1])


@pytest.mark.parametrize("version", VAES)
@torch.inference_mode()
def test_rows_in_strips(monkeypatch, version):
    vae, z, video = _vae(version, 3)
    whole = vae.decode(z), vae.encode(video)
    heights = []
    slide = torch.mkldnn_convolution

    def noted(x, *args):
        heights.append(x.shape[3])
        return slide(x, *args)

    monkeypatch.setattr(torch, "mkldnn_convolution", noted)
    monkeypatch.setattr(causal, "_is_short", lambda device: True)
    monkeypatch.setattr(causal, "_STRIP_BYTES", 100_000)
    assert torch.equal(vae.decode(z), whole[0])
    assert torch.equal(vae.encode(video), whole[1])
    assert max(heights) < 96


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@torch.inference_mode()
def test_a_processor_without_instructions_for_half_precision(monkeypatch, dtype):
    """oneDNN refuses there what torch's own kernels do."""
    slide = torch.mkldnn_convolution

    def refuses(x, *args):
        if x.dtype != torch.float32:
            raise RuntimeError("mkldnn_convolution: this path needs the cpu support")
        return slide(x, *args)

    monkeypatch.setattr(torch, "mkldnn_convolution", refuses)
    for dtypes in ("bf16", "fp16"):
        monkeypatch.setattr(torch.ops.mkldnn, f"_is_mkldnn_{dtypes}_supported", lambda: False)
    vae, z, video = _vae("VAE 2.1", 1)
    exact = vae.decode(z), vae.encode(video)
    vae.to(dtype)
    tolerance = {torch.bfloat16: 0.05, torch.float16: 0.01}.get(dtype, 1e-4)
    assert rel_l2(vae.decode(z.to(dtype)), exact[0]) < tolerance
    assert rel_l2(vae.encode(video.to(dtype)), exact[1]) < tolerance


def _vae(version, cells):
    config = VAES[version]
    vae = build_network(config)
    vae.load_state_dict(random_state_dict(lambda: type(vae)(config), 4), assign=True)
    z = torch.randn(1, config.z_dim, cells, 96 // config.stride[1], 128 // config.stride[2])
    return vae, z, torch.rand(1, 3, 4 * cells - 3, 96, 128) * 2 - 1
