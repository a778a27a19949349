"""The character animation transformer against the official one, at a tiny size."""

import contextlib

import pytest
import torch
from official_animate import learnt_at_unit_variance, small_motion_encoder
from tests_support import in_bfloat16, on_meta, randomize_, rel_l2

from devhost.official import per_frame_attention
from wan_models import ops as default_ops
from wan_models.config import DiTConfig, FaceConfig
from wan_models.dit.animate import AnimateInputs, WanAnimateModel
from wan_models.dit.face_motion import MotionEncoder

SIZES = {
    "dim": 96, "ffn_dim": 160, "freq_dim": 32, "text_dim": 48, "text_len": 20, "num_heads": 4, "num_layers": 10,
    "in_dim": 36, "out_dim": 16,
}  # fmt: skip
CONFIG = DiTConfig(family="animate", image_dim=1280, face=FaceConfig(channels=(4, 8, 8, 8)), **SIZES)


def clip_of(model, pose, faces, frames, strength=1.0):
    return model.prepare(AnimateInputs(pose, faces, strength), (frames, 0, 0))


@pytest.fixture
def pair(official, seed, monkeypatch):
    """The official model and ours of the same random weights."""
    from wan.modules.animate import face_blocks, model_animate

    monkeypatch.setattr(torch.amp, "autocast", lambda *a, **k: contextlib.nullcontext())
    monkeypatch.setattr(face_blocks, "attention", per_frame_attention)
    reference = model_animate.WanAnimateModel(**SIZES)
    reference.motion_encoder = small_motion_encoder(CONFIG.face)
    randomize_(reference, std=0.2)
    learnt_at_unit_variance(reference.motion_encoder)
    ours = on_meta(WanAnimateModel, CONFIG).eval()
    ours.load_state_dict(reference.eval().state_dict(), assign=True)
    return reference, ours


@torch.no_grad()
def test_face_tokens_equal_official(pair):
    reference, ours = pair
    faces = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    frames = faces[0].transpose(0, 1)
    motion = reference.motion_encoder.get_motion(frames)
    assert rel_l2(ours.motion_encoder(frames), motion) < 1e-5
    tokens = reference.face_encoder(motion[None])
    assert rel_l2(ours._encode_faces(faces, 3), tokens) < 1e-5
    x = torch.randn(1, 3 * 8, 96)
    frames = x.unflatten(1, (3, 8))[0]
    padded = torch.cat([torch.zeros(1, 1, *tokens.shape[2:]), tokens], dim=1)
    for index, keys_values in enumerate(clip_of(ours, None, faces, 3).faces):
        expected = reference.face_adapter.fuser_blocks[index](x, padded)
        attend = lambda q, k, v, heads: per_frame_attention(  # noqa: E731
            *(z.unflatten(-1, (heads, -1)) for z in (q, k, v)), q.shape[1], q.shape[0]
        )
        k, v = (x[0] for x in keys_values)
        change = ours.face_adapter.fuser_blocks[index](frames, k, v, attend)
        assert rel_l2(change.flatten(0, 1)[None], expected) < 1e-5


@torch.no_grad()
def test_motion_encoder_of_the_release_equals_official(official, seed):
    from wan.modules.animate.motion_encoder import Generator

    reference = learnt_at_unit_variance(Generator(size=512, style_dim=512, motion_dim=20))
    ours = on_meta(MotionEncoder, FaceConfig(), default_ops)
    ours.load_state_dict(reference.state_dict(), assign=True)
    faces = torch.rand(1, 3, 512, 512) * 2 - 1
    assert rel_l2(ours(faces), reference.get_motion(faces)) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(8, 12), (24, 8)])
def test_forward_equals_official(pair, height, width):
    reference, ours = pair
    x, y = torch.randn(1, 16, 3, height, width), torch.randn(1, 20, 3, height, width)
    pose, faces = torch.randn(1, 16, 2, height, width), torch.rand(1, 3, 5, 32, 32) * 2 - 1
    text, image, t = torch.randn(7, 48), torch.randn(1, 257, 1280), torch.tensor([713])
    given, clip = torch.cat([x, y], dim=1), clip_of(ours, pose, faces, 3)
    expected = reference(
        list(x), t, image, [text], 3 * height * width // 4, list(y), pose, faces
    )[0]  # fmt: skip
    found = ours(given, t, [text], image=image, conditions=clip)[0]
    assert rel_l2(found, expected) < 1e-5
    assert torch.equal(
        ours(given, t, [text], image=image, conditions=clip)[0], found
    )  # nothing in the clip was changed by its use

    # the neutral face of classifier-free guidance is one picture
    neutral = faces * 0 - 1
    expected = reference(list(x), t, image, [text], 3 * height * width // 4, list(y), pose, neutral)[0]
    found, without, faint = (
        ours(given, t, [text], image=image, conditions=clip_of(ours, pose, *face))[0]
        for face in ((neutral[:, :, :1], 3), (None, 3), (faces, 3, 0.0))
    )
    assert rel_l2(found, expected) < 1e-5
    assert rel_l2(faint, without) < 1e-6
    assert rel_l2(without, expected) > 1e-3


@torch.no_grad()
def test_pose_and_face_shorter_than_the_video_are_left_out_at_the_end(pair):
    _, ours = pair
    x, text, t = torch.randn(1, 36, 4, 8, 8), torch.randn(7, 48), torch.tensor([500])
    pose, faces = torch.randn(1, 16, 3, 8, 8), torch.rand(1, 3, 9, 32, 32) * 2 - 1
    short = clip_of(ours, pose[:, :, :1], faces[:, :, :5], 4)
    assert [k.shape[1] for k, _ in short.faces] == [4, 4]
    assert rel_l2(short.faces[0][0][:, :3], clip_of(ours, pose, faces, 4).faces[0][0][:, :3]) < 1e-5
    assert ours(x, t, [text], conditions=short).shape == (1, 16, 4, 8, 8)
    assert clip_of(ours, pose, faces, 2).pose.shape[2] == 1  # and what is too long is cut


@torch.no_grad()
def test_half_precision_is_near(pair):
    _, ours = pair
    x, text, t = torch.randn(1, 36, 3, 8, 8), torch.randn(7, 48), torch.tensor([500])
    pose, faces = torch.randn(1, 16, 2, 8, 8), torch.rand(1, 3, 1, 32, 32) * 2 - 1
    image = torch.ones(1, 257, 1280)
    exact = ours(x, t, [text], image=image, conditions=clip_of(ours, pose, faces, 3))
    half = in_bfloat16(ours)
    half.load_state_dict(ours.state_dict())
    found = half(x, t, [text], image=image, conditions=clip_of(half, pose, faces, 3))
    assert rel_l2(found, exact) < 0.05


def test_what_does_not_fit_says_so(pair):
    _, ours = pair
    with pytest.raises(ValueError, match="faces of 32x32 pixels"):
        clip_of(ours, None, torch.zeros(1, 3, 5, 64, 64), 3)
    clip = clip_of(ours, torch.zeros(1, 16, 2, 16, 16), None, 3)
    with pytest.raises(ValueError, match="the pose has latent size"):
        ours(torch.zeros(1, 36, 3, 8, 8), torch.tensor([1]), [torch.zeros(1, 48)], conditions=clip)
