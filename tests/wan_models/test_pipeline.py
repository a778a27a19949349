"""Whole official runs against our pipelines: two experts of different weights, text and image, TI2V in both modes."""

import math
from dataclasses import replace

import pytest
import torch
from official_pipelines import SIZES, Texts, official_run, picture
from tests_support import on_meta, randomize_, rel_l2

from wan_models import ImageToVideo, TextImageToVideo, TextToVideo
from wan_models.config import DiTConfig, VAEConfig
from wan_models.dit.base import WanModel
from wan_models.images.resize import resize_crop
from wan_models.images.sizes import size_for_ti2v
from wan_models.pipelines.base import Models, frame_of
from wan_models.sampling.denoise import denoise
from wan_models.vae import wan21, wan22
from wan_models.vae.wan21 import WanVAE21
from wan_models.vae.wan22 import WanVAE22

TEXT_LENGTHS = {"a cat": 5, "blurry": 9}


class OfficialVAE:
    """The official autoencoder as its pipelines use it, except that `decode` gives the latents back."""

    def __init__(self, model, module):
        self.model = model
        per_channel = [torch.tensor(values) for values in (module.LATENT_MEAN, module.LATENT_STD)]
        z_dim = model.z_dim
        self.scale = [per_channel[0][:z_dim], 1 / per_channel[1][:z_dim]]

    def encode(self, videos):
        return [self.model.encode(video[None], self.scale)[0] for video in videos]

    def decode(self, latents):
        return latents


def pair(count, **sizes):
    """`count` official transformers of random weights and ours of the same weights, and texts by prompt."""
    from wan.modules.model import WanModel as OfficialModel

    sizes = {**SIZES, **sizes}
    family = sizes.pop("family", "t2v")
    theirs = [randomize_(OfficialModel(model_type=family, **sizes), std=0.15).eval() for _ in range(count)]
    ours = [on_meta(WanModel, DiTConfig(family=family, **sizes)) for _ in range(count)]
    for model, source in zip(ours, theirs, strict=True):
        model.load_state_dict(source.state_dict(), assign=True)
    return theirs, ours, {prompt: torch.randn(n, 24) for prompt, n in TEXT_LENGTHS.items()}


def loaded(network, config, source):
    """Our network with the weights of an official one."""
    ours = on_meta(network, config)
    ours.load_state_dict(source.state_dict(), assign=True)
    return ours


@pytest.mark.parametrize(("solver", "steps"), [("unipc", 12), ("dpm++", 9)])
@torch.no_grad()
def test_text_to_video_equals_official(official, seed, monkeypatch, solver, steps):
    from wan.text2video import WanT2V

    experts, (high, low), texts = pair(2)
    vae = OfficialVAE(type("model", (), {"z_dim": 16}), wan21)
    run = official_run(WanT2V, monkeypatch, texts, vae, boundary=0.875)
    run.high_noise_model, run.low_noise_model = experts
    reference = run.generate(
        "a cat", n_prompt="blurry", size=(112, 80), frame_num=9, seed=seed, guide_scale=(3.0, 4.0), shift=12.0,
        sample_solver=solver, sampling_steps=steps, offload_model=False,
    )  # fmt: skip

    models, seen = Models(low, WanVAE21(VAEConfig(base_dim=8)), Texts(texts), high), []
    pipeline = TextToVideo(models)
    settings = replace(
        pipeline.settings, width=112, height=80, frames=9, steps=steps, solver=solver, seed=seed,
        negative_prompt="blurry",
    )  # fmt: skip
    latents = pipeline.latents("a cat", settings, lambda done, total: seen.append((done, total)))
    assert rel_l2(latents[0], reference) < 1e-4
    assert seen == [(done, steps) for done in range(1, steps + 1)]
    assert math.isfinite(latents.abs().max())
    one_expert = TextToVideo(replace(models, dit=high)).latents("a cat", settings)
    assert rel_l2(one_expert[0], reference) > 1e-2  # the experts differ, so the test sees the switch
    frames = pipeline("a cat", settings)
    assert frames.shape == (9, 80, 112, 3)
    assert torch.equal(frames, pipeline.decode(latents))


@pytest.mark.parametrize(
    ("solver", "steps", "size"), [("unipc", 10, (61, 97)), ("dpm++", 8, (130, 50)), ("unipc", 8, (1, 1))]
)
@torch.no_grad()
def test_image_to_video_equals_official(official, seed, monkeypatch, solver, steps, size):
    from wan.image2video import WanI2V
    from wan.modules.vae2_1 import WanVAE_

    experts, (high, low), texts = pair(2, family="i2v", in_dim=36)
    model = randomize_(
        WanVAE_(dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], temperal_downsample=[False, True, True]), std=0.1
    )
    run = official_run(WanI2V, monkeypatch, texts, OfficialVAE(model, wan21), boundary=0.9)
    run.high_noise_model, run.low_noise_model = experts
    image = picture(*size)
    reference = run.generate(
        "a cat", image, n_prompt="blurry", max_area=80 * 112, frame_num=9, seed=seed, guide_scale=(3.5, 2.5), shift=5.0,
        sample_solver=solver, sampling_steps=steps, offload_model=False,
    )  # fmt: skip

    vae = loaded(WanVAE21, VAEConfig(base_dim=8), model)
    pipeline = ImageToVideo(Models(low, vae, Texts(texts), high))
    settings = replace(
        pipeline.settings, width=112, height=80, frames=9, steps=steps, solver=solver, guidance=(3.5, 2.5), seed=seed,
        negative_prompt="blurry",
    )  # fmt: skip
    latents = pipeline.latents("a cat", image, settings)
    assert rel_l2(latents[0], reference) < 1e-4
    monkeypatch.setattr(
        "wan_models.pipelines.image_to_video.denoise",
        lambda *given, y, **more: denoise(*given, y=y.flip(1), **more),
    )
    other = pipeline.latents("a cat", image, settings)
    assert rel_l2(other[0], reference) > 1e-2  # the conditioning matters


def ti2v(seed, monkeypatch):
    from wan.modules.vae2_2 import WanVAE_
    from wan.textimage2video import WanTI2V

    experts, ours, texts = pair(1, family="ti2v", in_dim=48, out_dim=48)
    model = randomize_(
        WanVAE_(dim=8, dec_dim=8, z_dim=48, dim_mult=[1, 2, 4, 4], temperal_downsample=[False, True, True]),
        std=0.1,
    )
    run = official_run(WanTI2V, monkeypatch, texts, OfficialVAE(model, wan22), stride=(4, 16, 16))
    (run.model,) = experts
    config = VAEConfig(version="2.2", base_dim=8, dec_dim=8, z_dim=48, stride=(4, 16, 16))
    pipeline = TextImageToVideo(Models(*ours, loaded(WanVAE22, config, model), Texts(texts)))
    size = {"width": 160, "height": 96, "frames": 9}
    return run, pipeline, replace(pipeline.settings, **size, seed=seed, negative_prompt="blurry")


@torch.no_grad()
def test_ti2v_text_mode_equals_official(official, seed, monkeypatch):
    run, pipeline, settings = ti2v(seed, monkeypatch)
    reference = run.generate(
        "a cat", n_prompt="blurry", size=(160, 96), frame_num=9, seed=seed, guide_scale=5.0, sampling_steps=10,
        offload_model=False,
    )  # fmt: skip
    latents = pipeline.latents("a cat", None, replace(settings, steps=10))
    assert rel_l2(latents[0], reference) < 1e-4


@pytest.mark.parametrize(("solver", "steps", "size"), [("unipc", 10, (61, 97)), ("dpm++", 8, (300, 111))])
@torch.no_grad()
def test_ti2v_image_mode_equals_official(official, seed, monkeypatch, solver, steps, size):
    run, pipeline, settings = ti2v(seed, monkeypatch)
    image = picture(*size)
    area = 96 * 160
    reference = run.generate(
        "a cat", image, n_prompt="blurry", max_area=area, frame_num=9, seed=seed, guide_scale=3.0, shift=5.0,
        sample_solver=solver, sampling_steps=steps, offload_model=False,
    )  # fmt: skip

    width, height = size_for_ti2v(*size, area)
    z = pipeline.encode(resize_crop(frame_of(image), width, height))
    settings = replace(settings, steps=steps, solver=solver, guidance=(3.0, 3.0))
    latents = pipeline.latents("a cat", image, settings)
    assert rel_l2(latents[0], reference) < 1e-4
    assert torch.equal(latents[:, :, :1], z)
    from_text = pipeline.latents("a cat", None, replace(settings, width=width, height=height))
    assert rel_l2(from_text[0], reference) > 1e-2


def test_a_pipeline_refuses_other_models():
    vae = on_meta(WanVAE21, VAEConfig(base_dim=8))
    model = on_meta(WanModel, DiTConfig(family="i2v", in_dim=36, **SIZES))
    with pytest.raises(
        ValueError, match="TextToVideo is for text-to-video, and this model for image-to-video"
    ):
        TextToVideo(Models(model, vae, Texts({})))
    pipeline = ImageToVideo(Models(model, vae, Texts({})))
    with pytest.raises(ValueError, match=r"frames 8 is not 4n \+ 1"):
        pipeline("a cat", picture(64, 48), replace(pipeline.settings, frames=8))
