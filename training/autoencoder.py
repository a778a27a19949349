"""Training of a video autoencoder: what goes in comes out, through latents of the official mean and deviation."""

from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from wan_models.config import VAEConfig
from wan_models.models import build_network, network_class
from wan_models.random_weights import random_state
from wan_models.vae.base import VideoVAE
from wan_models.vae.causal import Cache

from .loop import Schedule, train
from .sizes import FRAMES, HEIGHT, WIDTH
from .videos import anything, rendered, spread

_SIZE = 48
"""Width and height of the pieces of pictures that are learnt from."""
_NOISE = 0.06
"""Deviation of what is added to latents in training, so that near latents mean near pictures."""


def make_autoencoder(
    config: VAEConfig, videos: int, pictures: Schedule, schedule: Schedule, folder: Path
) -> VideoVAE:
    """A trained VAE; its latents of the world have mean 0 and deviation 1 per channel after `normalize`.

    videos: how many to learn from. pictures: schedule of the training on single frames, which comes first."""
    name = f"vae_{config.version.replace('.', '_')}"
    vae = build_network(config).to_empty(device="cpu")
    vae.load_state_dict(_fresh(config, schedule.seed))
    vae.requires_grad_(True)
    bank = _bank(videos, folder)

    def loss(batch: int, frames: int, generator: torch.Generator) -> Tensor:
        # a piece of a video, as if it began there: its first frame is a latent of its own
        rows = torch.randint(len(bank), (batch,), generator=generator)
        start, top, left = (
            int(torch.randint(whole - part + 1, (), generator=generator))
            for whole, part in ((FRAMES, frames), (HEIGHT, _SIZE), (WIDTH, _SIZE))
        )
        video = bank[rows, start : start + frames, top : top + _SIZE, left : left + _SIZE].float() / 127.5 - 1
        video = rearrange(video, "b t h w c -> b c t h w")
        z = vae.statistics.normalize(vae.encode(video))
        noisy = z + _NOISE * torch.randn(z.shape, generator=generator)
        out = reconstruct(vae, vae.statistics.denormalize(noisy))
        flat = rearrange(z, "b c t h w -> c (b t h w)")
        spread = (flat.mean(dim=1) ** 2 + flat.std(dim=1).clamp_min(1e-3).log() ** 2).mean()
        return F.l1_loss(out, video) + 4 * F.mse_loss(out, video) + 0.02 * spread

    train(f"{name}_pictures", vae, partial(loss, 8, 1), pictures, folder)  # what is in them is learnt fast
    train(name, vae.requires_grad_(True), partial(loss, 2, FRAMES), schedule, folder)
    vae.requires_grad_(False)
    return standardize(vae, bank[:: max(1, len(bank) // 64)])


def _fresh(config: VAEConfig, seed: int) -> dict[str, Tensor]:
    """Weights to learn from: branches beside a shortcut count for nothing at first."""
    state = random_state(lambda: network_class(config)(config), seed)  # type: ignore[arg-type]
    for name, weight in state.items():
        if name.endswith("bias") or ".residual.6." in name or ".proj." in name:
            weight.zero_()
        elif name.endswith("gamma"):
            weight.fill_(1.0)
    return state


def reconstruct(vae: VideoVAE, z: Tensor) -> Tensor:
    """As `decode`, with gradients also where pixels are out of range: z [B, z, t, h, w] -> [B, 3, T, H, W]."""
    cache: Cache = {}
    parts = [z[:, :, :1], z[:, :, 1:]] if z.shape[2] > 1 else [z]
    return torch.cat([vae.to_pixels(vae.decoder(vae.conv2(part, cache), cache)) for part in parts], dim=2)


@torch.no_grad()
def standardize(vae: VideoVAE, videos: Tensor) -> VideoVAE:
    """Moves what is left of means and deviations into the last layer of the encoder and the first of the decoder, so
    that normalised latents of these videos [N, T, H, W, 3] of bytes have mean 0 and deviation 1."""
    z = vae.statistics.normalize(encode(vae, videos))
    flat = rearrange(z, "n c t h w -> c (n t h w)")
    like = torch.zeros(1, vae.config.z_dim, 1, 1, 1)
    ones = vae.statistics.denormalize(like + 1)
    mean0, std0 = (
        vae.statistics.denormalize(like).flatten(),
        (ones - vae.statistics.denormalize(like)).flatten(),
    )
    # raw latents r = mean0 + std0 * z become mean0 + std0 * (z - m) / s = r / s + shift
    m, s = flat.mean(dim=1), flat.std(dim=1)
    shift = mean0 - (mean0 + std0 * m) / s
    z_dim = vae.config.z_dim
    weight, bias = vae.conv1.weight, vae.conv1.bias
    weight[:z_dim] /= s.view(-1, 1, 1, 1, 1)
    bias[:z_dim] = bias[:z_dim] / s + shift
    # the decoder's first layer undoes it: r = (r' - shift) * s
    after = vae.conv2
    after.bias += -(after.weight[:, :, 0, 0, 0] * (shift * s)).sum(dim=1)
    after.weight *= s.view(1, -1, 1, 1, 1)
    return vae


@torch.no_grad()
def encode(vae: VideoVAE, videos: Tensor, batch: int = 8) -> Tensor:
    """Raw latents of videos [N, T, H, W, 3] of bytes."""
    parts = []
    for part in videos.split(batch):
        parts.append(vae.encode(rearrange(part.float() / 127.5 - 1, "b t h w c -> b c t h w")))
    return torch.cat(parts)


def _bank(count: int, folder: Path) -> Tensor:
    file = folder / f"world_{count}.pt"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        draw = partial(anything, frames=FRAMES, width=WIDTH, height=HEIGHT)
        bank = torch.cat([videos for videos, _ in spread(partial(rendered, draw), range(count))])
        torch.save(bank, file)
    return torch.load(file, weights_only=True)
