"""Sizes, crops and masks of image conditioning against the official rules, and images nobody thought of."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from official_pipelines import official_run
from PIL import Image

from wan_models.images.conditioning import known_frames, mask_channels
from wan_models.images.pixels import rgb
from wan_models.images.resize import resize_crop
from wan_models.images.sizes import size_for_i2v, size_for_ti2v


class Seen(Exception):
    """Ends an official run with what a stand-in was given."""


def see(*given, **options):
    raise Seen(*given)


def official_size(run, monkeypatch, width, height, area):
    """Width and height in pixels of the latents that the official I2V makes for an image."""
    with monkeypatch.context() as patch, pytest.raises(Seen) as seen:  # noqa: PT012
        patch.setattr(torch, "randn", see)  # the noise is the first thing drawn
        run.generate("", Image.new("RGB", (width, height)), max_area=area, frame_num=5, seed=1)
    _, _, high, wide = seen.value.args
    return wide * 8, high * 8


def test_sizes_follow_the_official_rules(official, seed, monkeypatch):
    from wan.image2video import WanI2V
    from wan.utils.utils import best_output_size

    chance = random.Random(seed)
    for i in range(300):
        width, height = chance.randint(16, 5000), chance.randint(16, 5000)
        area = chance.choice([480 * 832, 704 * 1280, 720 * 1280, chance.randint(300_000, 1_000_000)])
        if not 0.05 < width / height < 20:
            continue
        assert size_for_ti2v(width, height, area) == best_output_size(width, height, 32, 32, area)
        if i < 60:  # of real pictures, so not too large
            width, height = width // 5 + 1, height // 5 + 1
            run = official_run(WanI2V, monkeypatch, {}, None)
            expected = official_size(run, monkeypatch, width, height, area)
            assert size_for_i2v(width, height, area) == expected


@pytest.mark.parametrize("rule", [size_for_i2v, size_for_ti2v])
def test_too_narrow_images_are_refused(rule):
    with pytest.raises(ValueError, match="5000x1 has no video size of its aspect"):
        rule(5000, 1, 480 * 832)
    assert min(rule(1, 1, 480 * 832)) >= 16


@pytest.mark.parametrize("area", [96 * 64, 64 * 160, 224 * 224])
@pytest.mark.parametrize("shape", [(53, 117), (300, 211), (64, 96), (31, 30)])
def test_cover_equals_the_official_resize_and_crop(official, seed, monkeypatch, shape, area):
    from wan.textimage2video import WanTI2V

    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    run = official_run(WanTI2V, monkeypatch, {}, SimpleNamespace(encode=see), stride=(4, 16, 16))
    run.vae.model = SimpleNamespace(z_dim=48)
    run.text_encoder = lambda prompts, device: [torch.zeros(1)]
    with pytest.raises(Seen) as seen:
        run.i2v("", Image.fromarray(pixels), max_area=area, frame_num=5, n_prompt="none", seed=1)
    ((expected,),) = seen.value.args
    width, height = size_for_ti2v(shape[1], shape[0], area)
    found = resize_crop(torch.from_numpy(pixels)[None].float() / 255, width, height)
    assert found.shape == (1, height, width, 3)
    assert torch.equal(found[0].permute(2, 0, 1).sub(0.5).div(0.5), expected[:, 0])


def test_known_frames_and_mask():
    start, end = torch.zeros(2, 4, 6, 3), torch.ones(1, 4, 6, 3)
    video, known = known_frames(start, end, 9)
    assert known.tolist() == [True, True, *[False] * 6, True]
    assert (video[:2] == 0).all() and (video[2:8] == 0.5).all() and (video[8] == 1).all()
    mask = mask_channels(known, 2, 3)
    assert mask.shape == (4, 3, 2, 3)
    # the first latent frame is all known; the second holds frames 1 to 4, the third 5 to 8
    assert mask[:, :, 0, 0].T.tolist() == [[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 1]]
    with pytest.raises(ValueError, match="3 images are given for a video of 1 frame: give"):
        known_frames(start, end, 1)


def test_rgb_takes_grey_and_alpha_and_refuses_the_rest():
    assert rgb(torch.rand(5, 7, 4)).shape == (1, 5, 7, 3)
    grey = torch.rand(2, 5, 7, 1)
    assert torch.equal(rgb(grey), grey.repeat(1, 1, 1, 3))
    for bad in (torch.rand(1, 5, 7, 2), torch.rand(0, 5, 7, 3), torch.rand(5, 7)):
        with pytest.raises(ValueError, match="cannot be used"):
            rgb(bad)
