"""Sizes, crops and masks of image conditioning against the official rules, and images nobody thought of."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

from wan_models import images


def test_sizes_follow_the_official_rules(official, seed):
    from wan.utils.utils import best_output_size

    chance = random.Random(seed)
    for _ in range(300):
        width, height = chance.randint(16, 5000), chance.randint(16, 5000)
        area = chance.choice([480 * 832, 704 * 1280, 720 * 1280, chance.randint(300_000, 1_000_000)])
        if not 0.05 < width / height < 20:
            continue
        assert images.best_area_size(width, height, area) == best_output_size(width, height, 32, 32, area)
        wide, high = images.latent_area_size(width, height, area)
        aspect = height / width  # the formula as NUMERICS of the release gives it
        assert high == round(np.sqrt(area * aspect) // 8 // 2 * 2) * 8
        assert wide == round(np.sqrt(area / aspect) // 8 // 2 * 2) * 8


@pytest.mark.parametrize("rule", [images.latent_area_size, images.best_area_size])
def test_too_narrow_images_are_refused(rule):
    with pytest.raises(ValueError, match="5000x1 has no video size of its aspect"):
        rule(5000, 1, 480 * 832)
    assert min(rule(1, 1, 480 * 832)) >= 16


def test_cover_equals_the_official_resize_and_crop(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (53, 117, 3), dtype=np.uint8)
    width, height = 96, 64
    pil = Image.fromarray(pixels)
    scale = max(width / pil.width, height / pil.height)
    pil = pil.resize((round(pil.width * scale), round(pil.height * scale)), Image.LANCZOS)
    left, top = (pil.width - width) // 2, (pil.height - height) // 2
    expected = np.asarray(pil.crop((left, top, left + width, top + height)), dtype=np.float32) / 255
    found = images.cover(torch.from_numpy(pixels)[None].float() / 255, width, height)
    assert torch.equal(found[0], torch.from_numpy(expected))


def test_known_frames_and_mask():
    start, end = torch.zeros(2, 4, 6, 3), torch.ones(1, 4, 6, 3)
    video, known = images.known_frames(start, end, 9)
    assert known.tolist() == [True, True, *[False] * 6, True]
    assert (video[:2] == 0).all() and (video[2:8] == 0.5).all() and (video[8] == 1).all()
    mask = images.mask_channels(known, 2, 3)
    assert mask.shape == (4, 3, 2, 3)
    # the first latent frame is all known; the second holds frames 1 to 4, the third 5 to 8
    assert mask[:, :, 0, 0].T.tolist() == [[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 1]]
    with pytest.raises(ValueError, match="3 images are given for a video of 1 frames"):
        images.known_frames(start, end, 1)


def test_rgb_takes_grey_and_alpha_and_refuses_the_rest():
    assert images.rgb(torch.rand(5, 7, 4)).shape == (1, 5, 7, 3)
    grey = torch.rand(2, 5, 7, 1)
    assert torch.equal(images.rgb(grey), grey.repeat(1, 1, 1, 3))
    for bad in (torch.rand(1, 5, 7, 2), torch.rand(0, 5, 7, 3), torch.rand(5, 7)):
        with pytest.raises(ValueError, match="cannot be used"):
            images.rgb(bad)
