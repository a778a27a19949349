"""More motion in what a model is told of a video: the rule by hand, and what stays as it is."""

import pytest
import torch

from wan_models.images.motion import amplify_motion


@pytest.mark.parametrize("amplitude", [0.0, 0.7, 1.15, 2.0])
def test_unknown_latents_differ_more_from_the_first(seed, amplitude):
    y = torch.randn(2, 3, 5, 4, 6) * 3
    known = torch.zeros(17, dtype=torch.bool)
    known[[0, 6, 16]] = True  # latents 0, 2 and 4
    found = amplify_motion(y, known, amplitude)
    for latent in (0, 2, 4):
        assert torch.equal(found[:, :, latent], y[:, :, latent])
    for latent in (1, 3):
        for video in range(2):
            first = y[video, :, 0]
            difference = y[video, :, latent] - first
            mean = difference.mean()
            expected = (first + mean + (difference - mean) * amplitude).clamp(-6, 6)
            assert torch.allclose(found[video, :, latent], expected, atol=1e-5)
    assert (found[:, :, [1, 3]].abs() <= 6).all()


def test_1_is_off():
    y = torch.randn(1, 2, 3, 2, 2) * 9
    assert amplify_motion(y, torch.zeros(9, dtype=torch.bool), 1.0) is y


def test_the_first_latent_stays_though_nothing_of_it_is_known(seed):
    y = torch.randn(1, 2, 2, 2, 2) * 9
    found = amplify_motion(y, torch.zeros(5, dtype=torch.bool), 1.5)
    assert torch.equal(found[:, :, 0], y[:, :, 0])
    assert not torch.equal(found[:, :, 1], y[:, :, 1])


@pytest.mark.parametrize("amplitude", [-0.1, float("nan"), float("inf")])
def test_amplitudes_that_are_none(amplitude):
    with pytest.raises(ValueError, match="amplitude of motion must be a number from 0 up"):
        amplify_motion(torch.zeros(1, 1, 1, 1, 1), torch.zeros(1, dtype=torch.bool), amplitude)
