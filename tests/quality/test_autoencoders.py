"""The autoencoder of the miniatures gives back what it is given, in tiles too."""

import random

import torch

from demo.inputs import write_video
from demo.miniature import frames_of
from training.sizes import FRAMES, HEIGHT, WIDTH
from training.world.figures import Figure
from training.world.measure import psnr
from training.world.objects import Objects, held_out

FILE = "wan/T2V-A14B/Wan2.1_VAE.pth"
LEAST = 30
"""dB on the average of the world's videos."""
COUNT, TILE = 6, 64


def test_videos_of_the_world_come_back(host, inputs):
    rng = random.Random(80)
    drawn = [Objects.of_facts(held_out(rng), rng) for _ in range(COUNT)] + [
        Figure.draw(rng) for _ in range(2)
    ]
    whole, tiled = [], []
    for video in (one.frames(FRAMES, WIDTH, HEIGHT) for one in drawn):
        write_video(inputs / "video.mp4", video)
        for size, found in ((0, whole), (TILE, tiled)):
            found.append(psnr(frames_of(host, there_and_back(size)), video))
    assert sum(whole) / len(whole) >= LEAST, whole
    assert sum(tiled) / len(tiled) >= sum(whole) / len(whole) - 1, tiled
    assert torch.tensor(tiled).ne(torch.tensor(whole)).any()  # tiles were there


def there_and_back(tile):
    """input/video.mp4 encoded and decoded, in tiles of so many pixels; 0 for none."""
    tiles = {"tile_size": tile} if tile else {}
    return {
        "video": {
            "class_type": "WanLoadVideo",
            "inputs": {
                "file": "video.mp4",
                "fps": 0.0,
                "start": 0.0,
                "length": 0,
                "width": WIDTH,
                "height": HEIGHT,
                "fit": "original",
            },
        },
        "vae": {"class_type": "WanVAELoader", "inputs": {"vae_name": FILE}},
        "latent": {"class_type": "WanVAEEncode", "inputs": {"frames": ["video", 0], "vae": ["vae", 0]}},
        "back": {
            "class_type": "WanVAEDecode",
            "inputs": {"samples": ["latent", 0], "vae": ["vae", 0], **tiles},
        },
        "made": {"class_type": "CreateVideo", "inputs": {"images": ["back", 0], "fps": 16}},
    }
