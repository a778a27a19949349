"""Training of S2V-14B's audio encoder: from its features one must read how loud a voice is, 50 times a second."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wan_models.audio.buckets import FEATURE_RATE

from .loop import Schedule, train
from .sizes import LISTENER
from .world.faces import FPS, SAMPLE_RATE, loudness, voice

_BATCH, _FRAMES = 8, 32


class _Listener(nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.ears = nn.Linear(network.config.hidden_size, 1)


def make_listener(schedule: Schedule, work: Path, folder: Path) -> None:
    """Trains a wav2vec2 and writes it to `folder`, as the official release has it."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    torch.manual_seed(schedule.seed)
    network = Wav2Vec2Model(Wav2Vec2Config(**LISTENER, layerdrop=0.0, apply_spec_augment=False))
    listener = _Listener(network)

    def loss(generator: torch.Generator) -> Tensor:
        rng = random.Random(int(torch.randint(2**31, (), generator=generator)))
        openings = [loudness(rng, _FRAMES) for _ in range(_BATCH)]
        sounds = torch.from_numpy(np.stack([voice(opening, rng) for opening in openings]))
        sounds = (sounds - sounds.mean(dim=1, keepdim=True)) / sounds.std(dim=1, keepdim=True)
        hidden = network(sounds).last_hidden_state
        times = (np.arange(hidden.shape[1]) + 0.5) / FEATURE_RATE
        middles = (np.arange(_FRAMES) + 0.5) / FPS
        targets = torch.from_numpy(
            np.stack([np.interp(times, middles, opening) for opening in openings])
        ).float()
        return F.mse_loss(listener.ears(hidden).squeeze(2), targets)

    train("listener", listener, loss, schedule, work)
    network.half().save_pretrained(folder)
    Wav2Vec2FeatureExtractor(
        sampling_rate=SAMPLE_RATE, do_normalize=True, return_attention_mask=True
    ).save_pretrained(folder)
