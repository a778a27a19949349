"""The speech-to-video transformer against the official one, at a tiny size."""

import contextlib

import pytest
import torch
from tests_support import in_bfloat16, on_meta, randomize_, rel_l2

from wan_models.config import MOTION_FRAMES, DiTConfig, SpeechConfig
from wan_models.dit.base import InputError
from wan_models.dit.speech import MOTION_LATENTS, SpeechInputs, WanSpeechModel

SIZES = {
    "dim": 96, "ffn_dim": 160, "freq_dim": 32, "text_dim": 48, "text_len": 20, "num_heads": 4, "num_layers": 4,
    "in_dim": 16, "out_dim": 16,
}  # fmt: skip
SPEECH = SpeechConfig(audio_dim=20, audio_layers=5, inject_layers=(0, 2, 3))
OFFICIAL = {
    "cond_dim": 16, "num_audio_token": 4, "enable_adain": True, "adain_mode": "attn_norm", "zero_init": True,
    "zero_timestep": True, "enable_motioner": False, "add_last_motion": True, "enable_framepack": True,
    "framepack_drop_mode": "padd",
}  # fmt: skip


@pytest.fixture
def pair(official, seed, monkeypatch):
    """The official model and ours of the same random weights; layers that start at zero are random too."""
    from wan.modules.s2v import audio_utils, model_s2v

    monkeypatch.setattr(torch.amp, "autocast", lambda *a, **k: contextlib.nullcontext())
    reference = model_s2v.WanModel_S2V(
        audio_dim=20, audio_inject_layers=list(SPEECH.inject_layers), **SIZES, **OFFICIAL
    )
    # the encoder mixes 25 layers by default and has no setting for it
    reference.casual_audio_encoder = audio_utils.CausalAudioEncoder(
        dim=20, num_layers=5, out_dim=96, num_token=4, need_global=True
    )
    randomize_(reference, std=0.2).eval()
    ours = on_meta(WanSpeechModel, DiTConfig(family="s2v", speech=SPEECH, **SIZES)).eval()
    ours.load_state_dict(reference.state_dict(), assign=True)
    return reference, ours


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("pose", [True, False])
@pytest.mark.parametrize(("frames", "height", "width"), [(4, 8, 16), (2, 24, 8)])
@torch.no_grad()
def test_forward_equals_official(pair, first, pose, frames, height, width):
    reference, ours = pair
    x = torch.randn(1, 16, frames, height, width)
    image, motion = torch.randn(1, 16, 1, height, width), torch.randn(1, 16, MOTION_LATENTS, height, width)
    condition = torch.randn_like(x) * pose
    audio = torch.randn(1, 5, 20, 4 * frames)
    text, t = torch.randn(7, 48), torch.tensor([713])
    expected = reference(
        list(x), t, [text], None, list(image), list(motion), list(condition), audio,
        motion_frames=[MOTION_FRAMES, MOTION_LATENTS], drop_motion_frames=first,
    )[0]  # fmt: skip
    clip = ours.prepare(
        SpeechInputs(image, None if first else motion, condition if pose else None, audio), x.shape[2:]
    )
    found = ours(x, t, [text], conditions=clip)[0]
    assert rel_l2(found, expected) < 1e-5
    assert torch.equal(
        ours(x, t, [text], conditions=clip)[0], found
    )  # nothing in the clip was changed by its use


@torch.no_grad()
def test_an_impulse_of_audio_reaches_the_latent_frames_that_it_does_officially(pair):
    reference, ours = pair
    frames, size = 6, (8, 8)
    x, image = torch.randn(1, 16, frames, *size), torch.randn(1, 16, 1, *size)
    silence = torch.zeros(1, 5, 20, 4 * frames)

    def encoded(audio):
        """Audio tokens of every latent frame, ours and the official ones."""
        clip = ours.prepare(SpeechInputs(image, None, None, audio), x.shape[2:])
        theirs = reference.casual_audio_encoder(
            torch.cat([audio[..., :1].repeat(1, 1, 1, MOTION_FRAMES), audio], dim=-1)
        )[1][:, MOTION_LATENTS:]
        assert rel_l2(clip.audio, theirs) < 1e-5
        return clip.audio, theirs

    for moment in (0, 1, 7, 12, 23):
        impulse = silence.clone()
        impulse[..., moment] = 5.0
        changed, officially = (
            (loud - quiet).abs().amax((0, 2, 3)) > 1e-5
            for loud, quiet in zip(encoded(impulse), encoded(silence), strict=True)
        )
        assert torch.equal(changed, officially)
        assert changed.any() and not changed[: moment // 4].any()  # never before it is heard


@torch.no_grad()
def test_half_precision_is_near(pair):
    _, ours = pair
    x, image = torch.randn(1, 16, 3, 8, 8), torch.randn(1, 16, 1, 8, 8)
    audio, text, t = torch.randn(1, 5, 20, 12), torch.randn(7, 48), torch.tensor([500])
    exact = ours(x, t, [text], conditions=ours.prepare(SpeechInputs(image, None, None, audio), x.shape[2:]))
    half = in_bfloat16(ours)
    half.load_state_dict(ours.state_dict())
    found = half(
        x, t, [text.bfloat16()], conditions=half.prepare(SpeechInputs(image, None, None, audio), x.shape[2:])
    )
    assert rel_l2(found, exact) < 0.05


def test_what_does_not_fit_says_so(pair):
    _, ours = pair
    image = torch.zeros(1, 16, 1, 8, 8)
    with pytest.raises(ValueError, match="5 layers, 20 wide, and got 25 of 20"):
        ours.prepare(SpeechInputs(image, None, None, torch.zeros(1, 25, 20, 8)), (2, 8, 8))
    with pytest.raises(ValueError, match="8 steps of audio do not cover 3 latent frames"):
        ours.prepare(SpeechInputs(image, None, None, torch.zeros(1, 5, 20, 8)), (3, 8, 8))
    with pytest.raises(ValueError, match="needs a reference image and audio"):
        ours.prepare(SpeechInputs(None, None, None, None), (3, 8, 8))
    with pytest.raises(ValueError, match=r"the pose has latent size .*and the video"):
        ours.prepare(
            SpeechInputs(image, None, torch.zeros(1, 16, 3, 8, 8), torch.zeros(1, 5, 20, 8)), (2, 8, 8)
        )


@pytest.mark.parametrize(("height", "width"), [(8, 6), (2, 8), (4, 4)])
def test_frames_before_that_are_too_small_are_named(height, width):
    model = on_meta(WanSpeechModel, DiTConfig(family="s2v", speech=SPEECH, **SIZES))
    motion = torch.zeros(1, 16, MOTION_LATENTS, height, width, device="meta")
    with pytest.raises(InputError, match=rf"{width} x {height} latent cells are too small .* 64 pixels"):
        model.prepare(SpeechInputs(None, motion, None, None), (1, height, width))
