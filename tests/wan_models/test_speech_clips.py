"""The official speech-to-video run, clip after clip, against ours in plain PyTorch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from official_pipelines import SIZES, OfficialVAE, Texts, official_run, picture
from tests_support import randomize_, rel_l2

from wan_models import SpeechToVideo
from wan_models.config import DiTConfig, SpeechConfig, VAEConfig
from wan_models.dit.speech import WanSpeechModel
from wan_models.images.resize import shortest_side_crop, shortest_side_crop_float
from wan_models.images.sizes import size_for_s2v
from wan_models.pipelines.base import Models
from wan_models.pipelines.speech_to_video import Speech
from wan_models.sampling.clips import pose_clip, speech_clip_count
from wan_models.vae.wan21 import WanVAE21

SPEECH = SpeechConfig(audio_dim=20, audio_layers=25, inject_layers=(0, 1))
FRAMES, STEPS = 8, 4


@pytest.fixture
def models(official, seed):
    from wan.modules.s2v import model_s2v
    from wan.modules.vae2_1 import WanVAE_

    theirs = model_s2v.WanModel_S2V(
        cond_dim=16, audio_dim=20, audio_inject_layers=[0, 1], enable_adain=True, adain_mode="attn_norm",
        zero_timestep=True, enable_motioner=False, enable_framepack=True, framepack_drop_mode="padd", in_dim=16,
        out_dim=16, **SIZES,
    )  # fmt: skip
    randomize_(theirs, std=0.15).eval()
    vae = randomize_(
        WanVAE_(dim=4, z_dim=16, dim_mult=[1, 2, 4, 4], temperal_downsample=[False, True, True]), std=0.1
    )
    with torch.device("meta"):
        model = WanSpeechModel(DiTConfig(family="s2v", speech=SPEECH, **SIZES))
        network = WanVAE21(VAEConfig(base_dim=4))
    model.load_state_dict(theirs.state_dict(), assign=True)
    network.load_state_dict(vae.state_dict(), assign=True)
    return theirs, vae, model.eval(), network


@pytest.mark.slow
@pytest.mark.parametrize(("clips", "from_reference", "with_pose"), [(3, False, True), (2, True, False)])
@torch.no_grad()
def test_clips_equal_official(models, seed, monkeypatch, tmp_path, clips, from_reference, with_pose):
    from wan.modules.s2v.audio_encoder import AudioEncoder
    from wan.speech2video import WanS2V

    theirs, vae, model, network = models
    texts = {"a cat": torch.randn(5, 24), "blurry": torch.randn(9, 24)}
    hidden = torch.randn(25, 60, 20) * 0.3  # 1.2 s
    reference = picture(97, 130)
    reference.save(tmp_path / "reference.png")
    pose = torch.randint(0, 256, (13, 60, 90, 3), dtype=torch.uint8)

    run = official_run(WanS2V, monkeypatch, texts, OfficialVAE(vae))
    run.noise_model, run.motion_frames, run.drop_first_motion = theirs, 73, True
    run.fps, run.audio_sample_m = 16, 0
    encoder = object.__new__(AudioEncoder)
    encoder.video_rate = 30
    encoder.extract_audio_feat = lambda *_, **__: official_features(hidden)
    run.audio_encoder = encoder
    run.read_last_n_frames = lambda *_, **__: pose.numpy()
    area = 64 * 64
    expected = run.generate(
        "a cat", str(tmp_path / "reference.png"), "", False, None, None, None, num_repeat=clips, max_area=area,
        pose_video="pose" if with_pose else None, infer_frames=FRAMES, shift=3.0, sampling_steps=STEPS, guide_scale=4.5,
        n_prompt="blurry", seed=seed, offload_model=False, init_first_frame=from_reference,
    )  # fmt: skip

    pipeline = SpeechToVideo(Models(model, network, Texts(texts)))
    settings = replace(
        pipeline.settings,
        width=64,
        height=64,
        frames=FRAMES,
        steps=STEPS,
        seed=seed,
        negative_prompt="blurry",
    )
    frames = clips * FRAMES - (0 if from_reference else 3)
    speech = Speech(hidden, frames, pose.float() / 255 if with_pose else None)
    progress = []

    def run(**options):
        return list(
            pipeline.clips("a cat", reference, speech, settings, from_image=from_reference, **options)
        )

    made = run(on_progress=lambda done, total: progress.append((done, total)))
    found = torch.cat(made) * 2 - 1
    assert found.shape[0] == frames
    assert rel_l2(found.movedim(-1, 0), expected) < 1e-4
    assert progress == [(i + 1, clips * STEPS) for i in range(clips * STEPS)]

    again = run(done=made[:1])
    assert all(torch.equal(a, b) for a, b in zip(again, made[1:], strict=True))


def official_features(hidden):
    from wan.modules.s2v.audio_encoder import linear_interpolation

    return linear_interpolation(hidden, input_fps=50, output_fps=30)


def test_sizes_and_crops_follow_the_official_rules(official, seed):
    from torchvision import transforms
    from wan.speech2video import WanS2V

    run = object.__new__(WanS2V)
    chance = np.random.default_rng(seed)
    for _ in range(60):
        width, height = (int(x) for x in chance.integers(100, 3000, 2))
        area = int(chance.integers(300_000, 1_000_000))
        try:
            size = size_for_s2v(width, height, area)
        except ValueError:
            assert min(run.get_size_less_than_area(height, width, area)) == 0
            continue
        assert size[::-1] == tuple(run.get_size_less_than_area(height, width, area))
    for width, height in ((97, 130), (300, 64), (65, 200), (128, 64)):
        reference = picture(width, height)
        crop = transforms.Compose(
            [transforms.Resize(64), transforms.CenterCrop((64, 128)), transforms.ToTensor()]
        )
        image = torch.from_numpy(np.array(reference)).float()[None] / 255
        found = shortest_side_crop(image, 128, 64)[0]
        assert torch.equal(found, crop(reference).movedim(0, -1))
        pose = torch.rand(2, height, width, 3)
        crop = transforms.Compose([transforms.Resize(64), transforms.CenterCrop((64, 128))])
        assert (
            rel_l2(
                shortest_side_crop_float(pose, 128, 64),
                (crop(pose.movedim(-1, 1) * 2 - 1).movedim(1, -1) + 1) / 2,
            )
            < 1e-6
        )


def test_clip_count_covers_the_audio():
    assert [speech_clip_count(n, 80, False) for n in (1, 77, 78, 157, 158)] == [1, 1, 2, 2, 3]
    assert [speech_clip_count(n, 80, True) for n in (1, 80, 81)] == [1, 1, 2]
    for bad in (0, 3, 81):
        with pytest.raises(ValueError, match="not a multiple of 4"):
            speech_clip_count(10, bad, False)


def test_pose_clips_are_cut_at_their_own_place():
    pose = torch.arange(13).float().view(13, 1, 1, 1).expand(-1, 2, 2, 3)
    assert pose_clip(pose, 8, 8, (2, 2))[:, 0, 0, 0].tolist() == [8, 8, 9, 10, 11, 12, 0, 0, 0]
    assert pose_clip(pose, 16, 4, (2, 2))[:, 0, 0, 0].tolist() == [0, 0, 0, 0, 0]
    wide = pose_clip(pose, 12, 2, (6, 2))[:, 0]  # grey beside the frames, and none past their end
    assert wide[..., 0].tolist() == [[0.5, 0.5, 12, 12, 0.5, 0.5]] * 2 + [[0] * 6]
