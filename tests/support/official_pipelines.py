"""The official pipelines as tests run them: objects with just what their `generate` reads."""

import contextlib

import torch
from PIL import Image

from wan_models.vae import wan21

SIZES = {
    "dim": 48, "ffn_dim": 64, "freq_dim": 16, "text_dim": 24, "text_len": 12, "num_heads": 2, "num_layers": 2,
}  # fmt: skip
"""Of transformers that run through whole pipelines beside the official code."""


class OfficialVAE:
    """The official autoencoder as its pipelines use it."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, model):
        self.model = model
        self.scale = [torch.tensor(wan21.LATENT_MEAN), 1 / torch.tensor(wan21.LATENT_STD)]

    def encode(self, videos):
        return [self.model.encode(video[None], self.scale)[0] for video in videos]

    def decode(self, latents):
        return [self.model.decode(z[None], self.scale)[0].clamp(-1, 1) for z in latents]


class Texts:
    """A text encoder of our pipelines that knows the features of a few prompts, [L, C] each."""

    def __init__(self, features):
        self.features, self.network = features, torch.nn.Identity()

    def __call__(self, prompt):
        return self.features[prompt][None]


def official_run(kind, monkeypatch, texts, vae, stride=(4, 8, 8), boundary=None):
    """An official pipeline object with everything its `generate` reads but the models."""
    run = object.__new__(kind)
    run.lightning, run.t5_cpu, run.init_on_cpu, run.sp_size, run.rank = False, True, False, 1, 0
    run.device, run.param_dtype = torch.device("cpu"), torch.float32
    run.num_train_timesteps, run.boundary = 1000, boundary
    run.patch_size, run.vae_stride, run.sample_neg_prompt = (1, 2, 2), stride, "unused"
    run.text_encoder = lambda prompts, device: [texts[prompts[0]]]
    run.vae = vae
    monkeypatch.setattr(torch.amp, "autocast", lambda *a, **k: contextlib.nullcontext())
    return run


def picture(width, height):
    return Image.fromarray(torch.randint(0, 256, (height, width, 3), dtype=torch.uint8).numpy())
