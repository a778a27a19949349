"""Prompts -> the text features that the diffusion models attend to: a tokenizer and UMT5."""

import torch
from torch import Tensor

from .tokenizer import WanTokenizer
from .umt5 import UMT5Encoder


class TextEncoder:
    """UMT5 with its tokenizer; `network` is the one to place on a device."""

    def __init__(self, network: UMT5Encoder, tokenizer: WanTokenizer) -> None:
        self.network, self.tokenizer = network, tokenizer

    @torch.no_grad()
    def __call__(self, prompt: str) -> Tensor:
        """A prompt -> features [1, text_len, dim] in the network's compute dtype, zero past the prompt's end."""
        device = next(self.network.parameters()).device
        ids, mask = self.tokenizer([prompt])
        return self.network.encode(ids.to(device), mask.to(device))
