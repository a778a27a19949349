"""The official character animation, clip after clip, against ours in plain PyTorch."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from official_animate import small_motion_encoder
from official_pipelines import SIZES, OfficialVAE, Texts, official_run
from tests_support import randomize_, rel_l2

from devhost.official import per_frame_attention
from wan_models import Animate, DrivingVideos
from wan_models.config import CLIPConfig, DiTConfig, FaceConfig, VAEConfig
from wan_models.dit.animate import WanAnimateModel
from wan_models.images.resize import letterbox
from wan_models.pipelines.base import Models
from wan_models.sampling.clips import animate_clip_count, animate_clips, ping_pong
from wan_models.vae.wan21 import WanVAE21

FIVE_BLOCKS = SIZES | {"num_layers": 5, "in_dim": 36, "out_dim": 16}
STEPS, WIDTH, HEIGHT = 6, 48, 32


class OfficialTypes:
    """torch for wan.animate, which casts to bfloat16 by name: here that is float32."""

    bfloat16 = torch.float32

    def __getattr__(self, name):
        return getattr(torch, name)


class Tower(torch.nn.Module):
    """An image encoder that sees the same in every picture."""

    config, cls_embedding = CLIPConfig(), torch.zeros(1)

    def __init__(self, features):
        super().__init__()
        self.features = features

    def forward(self, pictures):
        assert pictures.shape == (1, 3, 224, 224)
        return self.features, None


@pytest.fixture
def models(official, seed, monkeypatch):
    import wan.animate
    from wan.modules.animate import face_blocks, model_animate
    from wan.modules.vae2_1 import WanVAE_

    monkeypatch.setattr(wan.animate, "torch", OfficialTypes())
    monkeypatch.setattr(face_blocks, "attention", per_frame_attention)
    theirs = model_animate.WanAnimateModel(**FIVE_BLOCKS)
    face = FaceConfig(channels=(4, 8, 8, 8))
    theirs.motion_encoder = small_motion_encoder(face)
    randomize_(theirs, std=0.15).eval()
    vae = randomize_(
        WanVAE_(dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], temperal_downsample=[False, True, True]), std=0.1
    )
    config = DiTConfig(family="animate", image_dim=1280, face=face, **FIVE_BLOCKS)
    with torch.device("meta"):
        model = WanAnimateModel(config)
        network = WanVAE21(VAEConfig(base_dim=8))
    model.load_state_dict(theirs.state_dict(), assign=True)
    network.load_state_dict(vae.state_dict(), assign=True)
    return theirs, vae, model.eval(), network


@pytest.mark.parametrize(
    ("replace_person", "carried", "scale", "frames", "solver"),
    [
        (False, 1, 1.0, 11, "dpm++"),
        (True, 5, 3.0, 24, "dpm++"),
        (True, 1, 3.0, 13, "unipc"),
        (False, 5, 1.0, 29, "unipc"),
    ],
)
@torch.no_grad()
def test_clips_equal_official(models, seed, monkeypatch, replace_person, carried, scale, frames, solver):
    from wan.animate import WanAnimate

    theirs, vae, model, network = models
    per_clip = 5 if carried == 1 else 13
    clips = animate_clip_count(frames, per_clip, carried)
    assert clips >= 3
    texts = {"a cat": torch.randn(5, 24), "blurry": torch.randn(9, 24)}
    bytes_of = lambda *shape: torch.randint(0, 256, shape, dtype=torch.uint8)  # noqa: E731
    pose, faces = bytes_of(frames, HEIGHT, WIDTH, 3), bytes_of(frames, 32, 32, 3)
    reference, background = bytes_of(HEIGHT, WIDTH, 3), bytes_of(frames, HEIGHT, WIDTH, 3)
    mask = (torch.rand(frames, HEIGHT // 4, WIDTH // 4) > 0.5).repeat_interleave(4, 1).repeat_interleave(4, 2)
    features = torch.randn(1, 257, 1280)

    run = official_run(WanAnimate, monkeypatch, texts, OfficialVAE(vae))
    run.noise_model, run.sample_prompt = theirs, "unused"
    run.clip = type("Tower", (), {"visual": staticmethod(lambda videos: features)})
    run.prepare_source = lambda *_, **__: (pose.numpy(), faces.numpy(), reference.numpy())
    run.prepare_source_for_replace = lambda *_: (background.numpy(), mask.double().numpy())
    expected = run.generate(
        "root", replace_person, per_clip, carried, 5.0, solver, STEPS, scale, "a cat", "blurry", seed, False
    )

    pipeline = Animate(Models(model, network, Texts(texts), image_encoder=Tower(features)))
    settings = replace(
        pipeline.settings, frames=per_clip, steps=STEPS, guidance=(scale, scale), solver=solver, seed=seed,
        negative_prompt="blurry",
    )  # fmt: skip
    driving = DrivingVideos(
        pose_video=pose.float() / 255,
        face_video=faces.float() / 255,
        background_video=background.float() / 255 if replace_person else None,
        mask=mask if replace_person else None,
    )
    found = pipeline("a cat", reference.float() / 255, driving, settings, carried=carried) * 2 - 1
    assert found.shape == (frames, HEIGHT, WIDTH, 3)
    assert rel_l2(found.movedim(-1, 0), expected) < 1e-4


@pytest.mark.parametrize("frames", [1, 5, 76, 77, 78, 153, 154])
@pytest.mark.parametrize("carried", [1, 5])
def test_clips_cover_the_video(frames, carried, official):
    from wan.animate import WanAnimate

    clips = animate_clip_count(frames, 77, carried)
    run = object.__new__(WanAnimate)
    if frames > carried:
        padded = run.get_valid_len(frames, 77, carried)
        assert clips == (padded - carried) // (77 - carried)
        assert run.inputs_padding(list(range(frames)), padded) == ping_pong(0, padded, frames)
    picture = torch.zeros(1, 2, 2, 3)
    seen = []

    def denoise(clip):
        seen.append(clip)
        frames = torch.full((1, 1, 20, 1, 1), float(clip.index + 1))
        return torch.cat([torch.zeros(1, 1, 1, 1, 1), frames], dim=2)

    def decode(latents):
        # each frame shows the number of its clip, and its place in it
        place = torch.arange(77).view(-1, 1, 1, 1) / 1000
        return latents.flatten()[0] + place.expand(-1, 2, 2, 3)

    lengths = {"frames_per_clip": 77, "carried": carried, "clips": clips}
    made = list(animate_clips(denoise, decode, picture, **lengths))
    assert torch.cat(made)[:frames].shape[0] == frames
    for before, clip, frames_made in zip(made, seen[1:], made[1:], strict=False):
        assert torch.equal(clip.carried, before[-carried:])  # a clip begins with the end of the one before
        assert frames_made.shape[0] == 77 - carried
    again = list(animate_clips(denoise, decode, picture, **lengths, done=made[:1]))
    assert all(torch.equal(a, b) for a, b in zip(again, made[1:], strict=True))


def test_clips_that_cannot_be_made_say_so():
    with pytest.raises(ValueError, match="the nearest that are: 77"):
        animate_clip_count(10, 76, 1)
    with pytest.raises(ValueError, match="5 carried frames do not go with clips of 5"):
        animate_clip_count(10, 5, 5)
    assert ping_pong(3, 5, 1) == [0] * 5


@pytest.mark.parametrize("size", [(97, 130), (640, 352), (33, 512), (1200, 900)])
def test_letterbox_equals_official(official, seed, size):
    from wan.animate import WanAnimate

    picture = torch.randint(0, 256, (*size[::-1], 3), dtype=torch.uint8)
    picture = torch.from_numpy(cv2.GaussianBlur(picture.numpy(), (7, 7), 0))
    expected = object.__new__(WanAnimate).padding_resize(picture.numpy(), height=320, width=240)
    found = letterbox(picture[None].float() / 255, 240, 320)[0].mul(255).round().numpy()
    difference = np.abs(found - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01
