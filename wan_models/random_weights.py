"""Random weights for untrained models, for tests, timings and demos."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def random_state_dict(build: Callable[[], nn.Module], seed: int) -> dict[str, Tensor]:
    """A state dict of random weights, scaled so that activations neither vanish nor explode.

    build: makes the module that the weights are for, on the default device."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        network = build()
    # the fixed kernels that checkpoints hold, where a network has any
    kernels = [name for name in network.state_dict() if name.endswith("kernel")]
    built = build().state_dict() if kernels else {}
    state = {name: built[name] for name in kernels}
    for name, param in network.named_parameters():
        noise = torch.randn(param.shape, generator=generator)
        fan_in = param[0].numel() if param.dim() > 1 else 1
        is_scale = name.endswith(("gamma", "audio_encoder.weights")) or (
            param.dim() == 1 and "norm" in name and name.endswith("weight")
        )
        if is_scale:
            state[name] = 1 + 0.1 * noise
        elif "embedding.weight" in name and "token" in name:
            state[name] = noise
        elif "motion_encoder" in name and param.dim() > 1 and not name.endswith("bias"):
            state[name] = noise  # its layers scale by the fan-in themselves
        else:
            state[name] = noise * (0.1 if param.dim() == 1 else fan_in**-0.5)
    return state
