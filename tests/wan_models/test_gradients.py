"""Models can be trained: their gradients are those of what they compute, though tokens are worked on in place."""

import pytest
import torch

from wan_models.models import build_network
from wan_models.random_weights import random_state_dict
from wan_models.text.umt5 import UMT5Encoder
from wan_models.tools.small_models import CONFIGS, T5, VAES, inputs_of


def trainable(config):
    network = build_network(config).to_empty(device="cpu")
    network.load_state_dict(random_state_dict(lambda: type(network)(config), 1))
    return network.requires_grad_(True)


def check(network, loss):
    """The slope along the gradient, by small steps both ways, is the square of its length."""
    value = loss()
    value.backward()
    parameters = [p for p in network.parameters() if p.grad is not None]
    assert len(parameters) == len(list(network.parameters()))
    length = torch.stack([p.grad.norm() for p in parameters]).norm()
    step = 1e-3 * value.detach() / length**2  # the loss changes by a thousandth
    values = []
    with torch.no_grad():
        for sign in (1, -2):
            for p in parameters:
                p.add_(p.grad, alpha=float(sign * step))
            values.append(loss())
    assert float((values[0] - values[1]) / (2 * step)) == pytest.approx(float(length**2), rel=0.02)


@pytest.mark.parametrize("family", CONFIGS)
def test_diffusion_models(family):
    config = CONFIGS[family]
    network = trainable(config)
    inputs = inputs_of(config, 3, batch=1)
    x, t, context = (inputs.pop(name) for name in ("x", "timestep", "context"))
    image, unconditional = inputs.pop("image", None), inputs.pop("unconditional", None)

    def loss():
        given = network.inputs_class(**inputs)
        conditions = network.prepare(given, tuple(x.shape[2:]))
        if unconditional is not None:
            conditions = conditions.with_unconditional(unconditional)
        return network(x, t, context, image=image, conditions=conditions).pow(2).mean()

    check(network, loss)


@pytest.mark.parametrize("version", VAES)
def test_autoencoders(version):
    vae = trainable(VAES[version])
    video = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    check(vae, lambda: (vae.decode(vae.encode(video)) - video).pow(2).mean())


def test_text_encoder():
    network = trainable(T5)
    assert isinstance(network, UMT5Encoder)
    ids, mask = torch.randint(1, 50, (2, 7)), torch.ones(2, 7, dtype=torch.int64)
    check(network, lambda: network(ids, mask).pow(2).mul(torch.arange(24.0)).mean())
