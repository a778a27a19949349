"""Training of a video autoencoder: what goes in comes out, through latents of the official mean and deviation."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from wan_models.config import VAEConfig
from wan_models.models import build_network, network_class
from wan_models.random_weights import random_state_dict
from wan_models.vae.base import VideoVAE
from wan_models.vae.causal import Cache
from wan_models.vae.streaming import Autoencoder

from .loop import Schedule, train
from .sizes import FRAMES, side
from .videos import anything, objects, rendered, spread

PREVIEW = {
    "2.1": (
        (-0.1299, -0.1692, 0.2932), (0.0671, 0.0406, 0.0442), (0.3568, 0.2548, 0.1747), (0.0372, 0.2344, 0.1420),
        (0.0313, 0.0189, -0.0328), (0.0296, -0.0956, -0.0665), (-0.3477, -0.4059, -0.2925), (0.0166, 0.1902, 0.1975),
        (-0.0412, 0.0267, -0.1364), (-0.1293, 0.0740, 0.1636), (0.0680, 0.3019, 0.1128), (0.0032, 0.0581, 0.0639),
        (-0.1251, 0.0927, 0.1699), (0.0060, -0.0633, 0.0005), (0.3477, 0.2275, 0.2950), (0.1984, 0.0913, 0.1861),
    ),
}  # fmt: skip
"""Red, green and blue in -1..1 of each normalised latent channel, by version of the VAE. Source: ComfyUI's
latent_formats."""
_NOISE = 0.06
"""Deviation of what is added to latents in training, so that near latents mean near pictures."""
_LITTLE_NOISE = 0.03
"""The same, while the decoder is trained alone."""


def make_autoencoder(
    config: VAEConfig, videos: int, pictures: Schedule, schedule: Schedule, folder: Path
) -> VideoVAE:
    """A trained VAE; its latents of the world have mean 0 and deviation 1 per channel after `normalize`.

    videos: how many to learn from. pictures: schedule of the training on single frames, which comes first."""
    vae = build_network(config).to_empty(device="cpu")
    vae.load_state_dict(_fresh(config, schedule.seed))
    bank = make_bank(config, videos, folder)
    # what is in single pictures is learnt fast
    learn(f"{_name(config)}_pictures", vae, partial(pieces, bank, 8, 1), pictures, folder)
    learn(_name(config), vae, partial(pieces, bank, 2, FRAMES), schedule, folder)
    vae = standardize(vae, bank[:: max(1, len(bank) // 64)])
    return sharpen(vae, bank, Schedule(2000, 3e-4, 0.005, average=0.995, cooldown=1.0), folder)


def learn(
    name: str, vae: VideoVAE, draw: Callable[[torch.Generator], Tensor], schedule: Schedule, folder: Path
) -> None:
    """Trains encoder and decoder on the videos [B, 3, T, H, W] in -1..1 that are drawn."""

    def loss(generator: torch.Generator) -> Tensor:
        video = draw(generator)
        z = vae.statistics.normalize(vae.encode(video))
        noisy = z + _NOISE * torch.randn(z.shape, generator=generator)
        out = reconstruct(vae, vae.statistics.denormalize(noisy))
        flat = rearrange(z, "b c t h w -> c (b t h w)")
        spread = (flat.mean(dim=1) ** 2 + flat.std(dim=1).clamp_min(1e-3).log() ** 2).mean()
        return F.l1_loss(out, video) + 4 * F.mse_loss(out, video) + 0.02 * spread

    train(name, vae.requires_grad_(True), loss, schedule, folder)
    vae.requires_grad_(False)


def sharpen(vae: VideoVAE, bank: Tensor, schedule: Schedule, folder: Path) -> VideoVAE:
    """Trains the decoder on, for pixels alone: latents stay what they are, and so does what was trained on them.

    bank: videos [N, T, H, W, 3] of bytes."""
    vae.requires_grad_(False)
    vae.decoder.requires_grad_(True)
    vae.conv2.requires_grad_(True)

    def loss(generator: torch.Generator) -> Tensor:
        video = pieces(bank, 2, FRAMES, generator)
        with torch.no_grad():
            z = vae.statistics.normalize(vae.encode(video))
        noisy = z + _LITTLE_NOISE * torch.randn(z.shape, generator=generator)
        return F.mse_loss(reconstruct(vae, vae.statistics.denormalize(noisy)), video)

    train(f"{_name(vae.config)}_decoder", vae, loss, schedule, folder)
    return vae.requires_grad_(False)


def _name(config: VAEConfig) -> str:
    return f"vae_{config.version.replace('.', '_')}"


def pieces(bank: Tensor, batch: int, frames: int, generator: torch.Generator) -> Tensor:
    """Pieces of videos [B, 3, frames, H / 2, W / 2] in -1..1, as if they began there: a first frame is a latent of its
    own. bank: videos [N, T, H, W, 3] of bytes."""
    _, length, height, width, _ = bank.shape
    rows = torch.randint(len(bank), (batch,), generator=generator)
    start, top, left = (
        int(torch.randint(whole - part + 1, (), generator=generator))
        for whole, part in ((length, frames), (height, height // 2), (width, width // 2))
    )
    video = bank[rows, start : start + frames, top : top + height // 2, left : left + width // 2]
    return rearrange(video.float() / 127.5 - 1, "b t h w c -> b c t h w")


def _fresh(config: VAEConfig, seed: int) -> dict[str, Tensor]:
    """Weights to learn from: branches beside a shortcut count for nothing at first."""
    state = random_state_dict(lambda: network_class(config)(config), seed)  # type: ignore[arg-type]
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
    frames = [vae.decoder(vae.conv2(part, cache), cache, FRAMES) for part in parts]
    return torch.cat([vae.to_pixels(part) for part in frames], dim=2)


@torch.no_grad()
def standardize(vae: VideoVAE, videos: Tensor) -> VideoVAE:
    """Turns the latent space, in the last layer of the encoder and the first of the decoder: normalised latents of
    these videos [N, T, H, W, 3] of bytes then have mean 0 and a deviation near 1 in each channel, and the colours that
    ComfyUI's preview gives to the official latents."""
    z = rearrange(vae.statistics.normalize(encode(vae, videos)), "n c t h w -> c (n t h w)")
    matrix = torch.eye(len(z))
    if vae.config.version in PREVIEW:
        factors = torch.tensor(PREVIEW[vae.config.version]).T
        colours = _colours(videos, vae.config)
        centred, tones = (x - x.mean(dim=1, keepdim=True) for x in (z, colours))
        tints = torch.linalg.lstsq(centred.T, tones.T).solution.T  # colours of latents, [3, C]
        # what has colour goes where the factors see it, the rest where they do not
        matrix = torch.linalg.pinv(factors) @ tints + _unseen(factors).T @ _unseen(tints)
    return _change_latents(vae, matrix, (matrix @ z).mean(dim=1))


def _unseen(rows: Tensor) -> Tensor:
    """An orthonormal basis [C - n, C] of what n rows [n, C] do not see."""
    return torch.linalg.svd(rows)[2][len(rows) :]


def _colours(videos: Tensor, config: VAEConfig) -> Tensor:
    """Mean colours in -1..1 of the pixels of each latent cell, [3, cells]."""
    time, height, width = config.stride
    values = videos.float() / 127.5 - 1
    small = reduce(values, "n t (h q) (w r) c -> n t h w c", "mean", q=height, r=width)
    later = reduce(small[:, 1:], "n (t p) h w c -> n t h w c", "mean", p=time)
    return rearrange(torch.cat([small[:, :1], later], dim=1), "n t h w c -> c (n t h w)")


def _change_latents(vae: VideoVAE, matrix: Tensor, shift: Tensor) -> VideoVAE:
    """Makes matrix @ z - shift of what were normalised latents z, for encoder and decoder alike."""
    z_dim = vae.config.z_dim
    like = torch.zeros(1, z_dim, 1, 1, 1)
    mean = vae.statistics.denormalize(like).flatten()
    deviation = vae.statistics.denormalize(like + 1).flatten() - mean
    # of raw latents r = mean + deviation * z
    turn = deviation[:, None] * matrix / deviation
    back = torch.linalg.inv(turn)
    first, last = vae.conv1, vae.conv2
    weight, bias = first.weight[:z_dim].flatten(1), first.bias[:z_dim]
    first.weight[:z_dim] = (turn @ weight).view_as(first.weight[:z_dim])
    first.bias[:z_dim] = turn @ (bias - mean) + mean - deviation * shift
    weight = last.weight.flatten(1)
    last.bias += weight @ (mean + back @ (deviation * shift - mean))
    last.weight.copy_((weight @ back).view_as(last.weight))
    return vae


@torch.no_grad()
def encode(vae: Autoencoder, videos: Tensor, batch: int = 8) -> Tensor:
    """Raw latents of videos [N, T, H, W, 3] of bytes."""
    parts = []
    for part in videos.split(batch):
        parts.append(vae.encode(rearrange(part.float() / 127.5 - 1, "b t h w c -> b c t h w")))
    return torch.cat(parts)


def make_bank(config: VAEConfig, count: int, folder: Path) -> Tensor:
    """Videos [N, T, H, W, 3] of bytes that an autoencoder learns from, kept in `folder`."""
    size = side(config)
    file = folder / f"world_{count}_{size}.pt"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        kind = anything if config.version == "2.1" else objects  # all that TI2V-5B sees
        draw = partial(kind, frames=FRAMES, width=size, height=size)
        bank = torch.cat([videos for videos, _ in spread(partial(rendered, draw), range(count))])
        torch.save(bank, file)
    return torch.load(file, weights_only=True)
