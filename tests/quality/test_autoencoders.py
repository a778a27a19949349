"""The autoencoders of the miniatures give back what they are given, in tiles too."""

import random

import pytest
import torch

from demo.inputs import write_video
from demo.miniature import frames_of
from training.sizes import FRAMES, VAE, VAE_2_2, side
from training.world.figures import Figure
from training.world.measure import psnr
from training.world.objects import Objects, held_out

COUNT = 6


@pytest.mark.parametrize(
    ("file", "config", "figures", "least"),
    [("T2V-A14B/Wan2.1_VAE.pth", VAE, 2, 30), ("TI2V-5B/Wan2.2_VAE.pth", VAE_2_2, 0, 28)],
    ids=["2.1", "2.2"],
)
def test_videos_of_the_world_come_back(host, inputs, file, config, figures, least):
    """least: dB on the average of what its releases see of the world."""
    rng, size = random.Random(80), side(config)
    drawn = [Objects.of_facts(held_out(rng), rng) for _ in range(COUNT)] + [
        Figure.draw(rng) for _ in range(figures)
    ]
    whole, tiled = [], []
    for video in (one.frames(FRAMES, size, size) for one in drawn):
        write_video(inputs / "video.mp4", video)
        for tile, found in ((0, whole), (size * 2 // 3, tiled)):
            found.append(psnr(frames_of(host, there_and_back(f"wan/{file}", size, tile)), video))
    assert sum(whole) / len(whole) >= least, whole
    assert sum(tiled) / len(tiled) >= sum(whole) / len(whole) - 1, tiled
    assert torch.tensor(tiled).ne(torch.tensor(whole)).any()  # tiles were there


def there_and_back(file, size, tile):
    """input/video.mp4, `size` pixels wide and high, encoded and decoded, in tiles of so many pixels; 0 for none."""
    tiles = {"tile_size": tile} if tile else {}
    return {
        "video": {
            "class_type": "WanLoadVideo",
            "inputs": {
                "file": "video.mp4",
                "fps": 0.0,
                "start": 0.0,
                "length": 0,
                "width": size,
                "height": size,
                "fit": "original",
            },
        },
        "vae": {"class_type": "WanVAELoader", "inputs": {"vae_name": file}},
        "latent": {"class_type": "WanVAEEncode", "inputs": {"frames": ["video", 0], "vae": ["vae", 0]}},
        "back": {
            "class_type": "WanVAEDecode",
            "inputs": {"samples": ["latent", 0], "vae": ["vae", 0], **tiles},
        },
        "made": {"class_type": "CreateVideo", "inputs": {"images": ["back", 0], "fps": 16}},
    }
