"""How far a strip of a video must reach beyond its columns: what the decoder's layers touch, and no more."""

from dataclasses import replace

import pytest
import torch

from wan_models.config import VAE_2_2, VAEConfig
from wan_models.models import build_network, network_class
from wan_models.tools.small_models import VAES


@pytest.mark.parametrize("config", [VAEConfig(), VAE_2_2], ids=["2.1", "2.2"])
def test_reach_of_the_released_decoders(config):
    assert build_network(config).decoder.reach == 13


@pytest.mark.parametrize("name", VAES)
@pytest.mark.parametrize("blocks", [1, 2])
def test_reach_is_what_a_column_touches(name, blocks):
    config = replace(VAES[name], num_res_blocks=blocks)
    vae = network_class(config)(config).eval().requires_grad_(False)
    columns, middle = vae.decoder.reach, 20

    def spoil(module, args, out):
        out[..., middle] = float("nan")  # spreads to all that is computed from it

    list(vae.decoder.middle)[-1].register_forward_hook(spoil)
    video = vae.decode(torch.randn(1, config.z_dim, 1, 2, 2 * middle + 1))
    touched = video.isnan().any(dim=1)[0, 0].any(dim=0).nonzero().flatten()
    scale = config.stride[2]
    before, after = middle * scale - int(touched[0]), int(touched[-1]) + 1 - (middle + 1) * scale
    assert columns - 1 < max(before, after) / scale <= columns, (before, after)
