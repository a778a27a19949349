"""Training of diffusion models: flow matching (arXiv 2210.02747) at the official shift, each in its noise range."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from wan_models.config import NEGATIVE_PROMPT, DiTConfig
from wan_models.dit.animate2 import Animate2Inputs
from wan_models.dit.base import WanModel
from wan_models.dit.tokens import Inputs
from wan_models.families import Release
from wan_models.models import build_network
from wan_models.pipelines.animate2 import DRIVING_PROMPT
from wan_models.pipelines.base import grid_of
from wan_models.random_weights import random_state_dict
from wan_models.text.encoder import TextEncoder

from .clips import Batch
from .loop import Schedule, train
from .world.words import Facts, caption, some_facts

_BATCH = 16
_UNTOLD, _WRONG = 0.1, 0.15
"""Shares of videos with an empty or with the negative caption, and with that of another video. People's captions are
wrong now and then too: this is what guidance is for."""


class Draws(Protocol):
    """Clips to learn from."""

    def draw(self, count: int, generator: torch.Generator) -> Batch: ...


@dataclass(frozen=True)
class NoiseRange:
    """Noise levels from `low` to `high`, drawn as dense as a schedule of this shift has them."""

    low: float
    high: float
    shift: float

    @classmethod
    def of_experts(cls, release: Release) -> tuple["NoiseRange", "NoiseRange"]:
        """Ranges of the high-noise and of the low-noise expert."""
        boundary = release.boundary
        assert boundary is not None
        return cls(boundary, 1.0, release.shift), cls(0.0, boundary, release.shift)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Noise levels [count], spread evenly over the range's part of a schedule."""
        even = (torch.arange(count) + torch.rand(count, generator=generator)) / count
        return self.at(even[torch.randperm(count, generator=generator)])

    def at(self, share: Tensor) -> Tensor:
        """The noise levels at these shares, 0 to 1, of the range's part of a schedule."""
        low, high = (s / (self.shift - (self.shift - 1) * s) for s in (self.low, self.high))
        uniform = low + (high - low) * share
        return self.shift * uniform / (1 + (self.shift - 1) * uniform)


class TextRows:
    """Captions as a model sees them, without the cost of their padding: all rows of it are alike, so cross-attention
    counts one of them as many times as it is there."""

    def __init__(self, encoder: TextEncoder, text_len: int) -> None:
        self._encoder, self._text_len = encoder, text_len
        self.rows, self._bias = 0, torch.empty(0)

    @torch.no_grad()
    def __call__(self, captions: list[str]) -> Tensor:
        """Captions -> features [B, rows, C], the last row of each zero; to be attended to by `attention`."""
        ids, mask = self._encoder.tokenizer(captions)
        self.rows = int(mask.sum(dim=1).max()) + 1
        ids, mask = ids[:, : self.rows], mask[:, : self.rows]
        lengths = mask.sum(dim=1, keepdim=True)
        times = (self._text_len - lengths) / (self.rows - lengths)
        self._bias = torch.where(mask > 0, 0.0, times.log())[:, None, None]
        return self._encoder.network(ids, mask) * mask[..., None]

    def attention(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        """An `Attention` for a batch whose captions were the last ones."""
        bias = None
        if k.shape[1] == self.rows:  # one text for a batch is that of the driving videos, the last one
            bias = (self._bias[-1:] if len(k) < len(q) else self._bias[: len(q)]).to(q.dtype)
            k, v = (x.expand(len(q), -1, -1) for x in (k, v))
        q, k, v = (rearrange(x, "b l (h d) -> b h l d", h=heads) for x in (q, k, v))
        return rearrange(F.scaled_dot_product_attention(q, k, v, attn_mask=bias), "b h l d -> b l (h d)")

    def velocity(
        self,
        model: WanModel,
        x: Tensor,
        t: Tensor,
        captions: list[str],
        inputs: Inputs | None = None,
        image: Tensor | None = None,
    ) -> Tensor:
        """model(x, t, captions) with padding that is counted, not computed; inputs: those of its family; image: CLIP
        features."""
        config = model.config
        if isinstance(inputs, Animate2Inputs):
            *rows, driving = self([*captions, DRIVING_PROMPT])
            context, inputs = torch.stack(rows), replace(inputs, driving_text=driving[None])
        else:
            context = self(captions)
        model.config = replace(config, text_len=self.rows)
        try:
            conditions = None if inputs is None else model.prepare(inputs, grid_of(x))
            return model(x, t, context, image=image, conditions=conditions, attention=self.attention)
        finally:
            model.config = config


def captions_for(facts: Sequence[Facts], rng: random.Random) -> list[str]:
    """A caption for each video: a right one mostly."""
    nothing = rng.choice(["", "", "", NEGATIVE_PROMPT])

    def one(true: Facts) -> str:
        chance = rng.random()
        if chance < _UNTOLD:
            return nothing
        told = rng.choice(facts) if chance < _UNTOLD + _WRONG else true
        return caption(some_facts(told, rng), rng)

    return [one(true) for true in facts]


def make_expert(
    name: str,
    start: WanModel,
    clips: Draws,
    encoder: TextEncoder,
    noise: NoiseRange,
    schedule: Schedule,
    folder: Path,
    begun: float = 0.0,
) -> WanModel:
    """A trained diffusion model, with the weights of `start` to begin with.

    begun: share of the videos whose first latent frame is given, at timestep 0 (TI2V-5B)."""
    model = start
    model.compute_dtype = torch.bfloat16
    model.requires_grad_(True)
    text = TextRows(encoder, model.config.text_len)

    def loss(generator: torch.Generator) -> Tensor:
        rng = random.Random(int(torch.randint(2**31, (), generator=generator)))
        clip = clips.draw(_BATCH, generator)
        latents, sigma = clip.latents, noise.draw(_BATCH, generator)
        drawn = torch.randn(latents.shape, generator=generator)
        noisy = torch.lerp(latents, drawn, sigma.view(-1, 1, 1, 1, 1))
        t = (sigma * 1000)[:, None].repeat(1, latents.shape[2])
        is_begun = torch.rand(_BATCH, generator=generator) < begun
        t[is_begun, 0], noisy[is_begun, :, 0] = 0, latents[is_begun, :, 0]
        x = noisy if clip.y is None else torch.cat([noisy, clip.y], dim=1)
        captions = captions_for(clip.facts, rng)
        velocity = text.velocity(model, x, t if begun else t[:, 0], captions, clip.inputs, clip.image)
        error = (velocity - (drawn - latents)) ** 2
        error[is_begun, :, 0] = 0  # what is given is not learnt
        return error.mean()

    train(name, model, loss, schedule, folder)
    return model.requires_grad_(False)


def fresh(config: DiTConfig, seed: int) -> WanModel:
    """A model with weights to learn from: as the official code starts, so that its velocity is zero at first."""
    model = build_network(config).to_empty(device="cpu")
    model.load_state_dict(random_state_dict(lambda: type(model)(config), seed))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif "norm" in name:
                parameter.fill_(1.0)
            elif "modulation" in name:
                parameter.normal_(std=config.dim**-0.5, generator=generator)
            elif name.startswith(("time_embedding", "text_embedding")):
                parameter.normal_(std=0.02 if "time" in name else config.text_dim**-0.5, generator=generator)
            elif parameter.dim() > 1 and "motion_encoder" not in name:  # that one scales its weights itself
                fan = parameter[0].numel() + parameter.shape[0]
                parameter.uniform_(-math.sqrt(6 / fan), math.sqrt(6 / fan), generator=generator)
        nn.init.zeros_(model.head.head.weight)
    return model


def begun_as(model: WanModel, config: DiTConfig, seed: int) -> WanModel:
    """A model that begins with the weights of another one, where both have them; channels that only it takes in beside
    the latents count for nothing at first."""
    target = fresh(config, seed)
    state, source = target.state_dict(), model.state_dict()
    for name, weight in source.items():
        if name in state and state[name].shape == weight.shape:
            state[name] = weight
    if config.out_dim == model.config.out_dim and config.in_dim > model.config.in_dim:
        wide = torch.zeros_like(state["patch_embedding.weight"])
        wide[:, : model.config.in_dim] = source["patch_embedding.weight"]
        state["patch_embedding.weight"] = wide
    target.load_state_dict(state)
    return target
