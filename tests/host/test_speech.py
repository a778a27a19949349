"""A picture and a voice to a talking video in the real host: numbers, length, going on after Cancel, and bad input."""

import wave
from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from graphs import base_graph, latents, node, sampler, save
from long_videos import check_going_on, check_prompts_of_clips, clips_of, film_length
from PIL import Image
from tests_media import write_sound
from tests_support import rel_l2

from demo.tiny_release import write_release
from devhost.errors import HostError
from wan_models import SpeechToVideo, load_audio_encoder, load_dit, load_text_encoder, load_vae
from wan_models.images.resize import shortest_side_crop
from wan_models.pipelines.base import Models
from wan_models.pipelines.speech_to_video import Speech

RELEASE = "wan/S2V-14B"
SECONDS, RATE, FRAMES, CLIP = 1.3, 44100, 21, 12
STEPS = 4
SETTINGS = {"preset": "custom", "steps": STEPS, "shift": 3.0, "cfg": 4.5}


@pytest.fixture(scope="module")
def folder(base):
    write_release(base / "models" / "wan" / "S2V-14B", seed=30, name="S2V-14B")
    inputs = base / "input"
    inputs.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(9)
    picture = torch.randint(0, 256, (97, 130, 3), dtype=torch.uint8, generator=generator)
    Image.fromarray(picture.numpy()).save(inputs / "speaker.png")
    Image.new("RGB", (1, 1), (200, 30, 30)).save(inputs / "dot.png")
    Image.new("RGB", (5000, 3000), (20, 130, 30)).save(inputs / "huge.png")
    for n in range(9):
        pose = torch.randint(0, 256, (50, 60, 3), dtype=torch.uint8, generator=generator)
        Image.fromarray(pose.numpy()).save(inputs / f"pose_{n}.png")
    write_sound(inputs / "voice.wav", SECONDS)
    write_sound(inputs / "eight.wav", 0.5, channels=8)
    write_sound(inputs / "fast.wav", 0.5, rate=192000)  # a rate that films cannot have
    write_sound(inputs / "silence.wav", 0.5, loud=0)
    write_sound(inputs / "short.wav", 0.01)
    write_sound(inputs / "long.wav", 3 * 3600, rate=1000, channels=1)
    return base


def graph(voice="voice.wav", pose=0, seed=3, picture="speaker.png", model=RELEASE, **inputs):
    """WanSpeechToVideo over our loaders; `pose` frames of a pose video."""
    out = base_graph()
    for name in ("low", "latent"):
        del out[name]
    out["high"] = node("WanDiTLoader", model_name=model)
    out["vae"] = node("WanVAELoader", vae_name=f"{RELEASE}/Wan2.1_VAE.pth")
    out["listener"] = node(
        "WanAudioEncoderLoader", audio_encoder_name=f"{RELEASE}/wav2vec2-large-xlsr-53-english"
    )
    out["voice"] = node("LoadAudio", audio=voice)
    out["speaker"] = node("LoadImage", image=picture)
    if pose:
        last = None
        for n in range(pose):
            out[f"pose {n}"] = node("LoadImage", image=f"pose_{n}.png")
            if last:
                out[f"poses {n}"] = node("ImageBatch", image1=last, image2=(f"pose {n}", 0))
            last = (f"poses {n}" if last else f"pose {n}", 0)
        inputs["pose_video"] = last
    size = {"width": 64, "height": 64, "frames_per_clip": CLIP, "clips": 0}
    out["video"] = node(
        "WanSpeechToVideo", model=("high", 0), positive=("text", 0), negative=("text", 1), vae=("vae", 0),
        audio_encoder=("listener", 0), audio=("voice", 0), reference_image=("speaker", 0), seed=seed,
        **(size | SETTINGS | inputs),
    )  # fmt: skip
    out["film"] = node("CreateVideo", images=("video", 0), audio=("video", 1), fps=16)
    out["save"] = node(
        "SaveVideo", video=("film", 0), filename_prefix="video/s2v", format="auto", codec="auto"
    )
    return out


def pure(folder, pose):
    """The same video in plain PyTorch: the frames of each clip."""
    release, text_release = (folder / "models" / "wan" / name for name in ("S2V-14B", "T2V-A14B"))
    models = Models(
        load_dit(release),
        load_vae(release / "Wan2.1_VAE.pth"),
        load_text_encoder(text_release / "models_t5_umt5-xxl-enc-bf16.pth", dtype=torch.float32),
        audio_encoder=load_audio_encoder(release / "wav2vec2-large-xlsr-53-english"),
    )
    with wave.open(str(folder / "input" / "voice.wav")) as file:
        sound = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2).T / 32768
    poses = None
    if pose:
        files = [np.array(Image.open(folder / "input" / f"pose_{n}.png")) for n in range(pose)]
        poses = torch.from_numpy(np.stack(files)).float() / 255
    pipeline = SpeechToVideo(models)
    settings = replace(
        pipeline.settings, width=64, height=64, frames=CLIP, steps=STEPS, seed=3, negative_prompt="blurry"
    )
    speech = Speech(pipeline.encode_sound(torch.from_numpy(sound.copy()).float(), RATE), FRAMES, poses)
    picture = Image.open(folder / "input" / "speaker.png")
    return list(pipeline.clips("two cats surf in the evening sun", picture, speech, settings))


def watched(host, folder, name, **inputs):
    """A run that keeps its clips: its entry, what it told of its progress, and the clips."""
    progress = []

    def keep(kind, data):
        if kind == "progress" and data["node"] == "video" and data["max"] != heard:
            progress.append((data["value"], data["max"]))

    heard = int((SECONDS * 16000 - 400) // 320 + 1)  # the audio encoder's own bar, before the clips
    entry = host.run(graph(checkpoint_folder=name, **inputs), keep)
    return entry, progress, clips_of(folder, name)


@pytest.fixture(scope="module")
def whole(host, folder):
    """The run of the plain graph, which several tests compare theirs with."""
    return watched(host, folder, "whole")


@pytest.mark.parametrize("pose", [0, 9])
def test_video_equals_the_pure_pipeline_and_lasts_as_long_as_the_audio(host, folder, whole, pose):
    entry, progress, made = watched(host, folder, "posed", pose=pose) if pose else whole
    assert progress == sorted(progress)
    assert progress[-1] == (2 * STEPS, 2 * STEPS)  # one bar over all steps of all clips
    expected = pure(folder, pose)
    assert [part.shape[0] for part in made] == [CLIP - 3, CLIP]
    assert rel_l2(torch.cat(made), torch.cat(expected)) < 1e-4
    (file,) = [f for f in host.outputs(entry) if f.suffix == ".mp4"]
    with av.open(str(file)) as film:
        assert sum(1 for _ in film.decode(video=0)) == FRAMES
    with av.open(str(file)) as film:
        sound = film.streams.audio[0]
        assert sound.rate == RATE and abs(float(sound.duration * sound.time_base) - SECONDS) < 1 / 16
    (text,) = entry["outputs"]["video"]["text"]
    assert text == f"{FRAMES} frames in 2 clips of {CLIP}, {FRAMES / 16:.2f} s"


def test_a_cancelled_run_goes_on_with_the_same_result(host, folder, whole):
    check_going_on(host, folder, graph(checkpoint_folder="part"), STEPS, whole[2])
    for inputs, what in (
        ({"seed": 6}, r"seed \(3 then, 6 now\):"), ({"voice": "silence.wav"}, "audio:"),
        ({"pose": 1}, "pose_video"), ({"frames_per_clip": 16}, "frames_per_clip"),
        ({"picture": "dot.png"}, "reference_image"),
        ({"steps": 7, "cfg": 4.0}, rf"steps \({STEPS} then, 7 now\), cfg_high"),
    ):  # fmt: skip
        with pytest.raises(HostError, match=f"other inputs or settings, and what differs is {what}"):
            host.run(graph(checkpoint_folder="part", **inputs))


def test_a_video_of_one_clip_is_gone_on_with(host, folder, whole):
    host.run(graph(checkpoint_folder="grows", clips=1))
    (first,) = clips_of(folder, "grows")
    entry = host.run(graph(checkpoint_folder="grows"))
    made, expected = clips_of(folder, "grows"), whole[2]
    assert entry["outputs"]["video"]["text"][0].endswith("; 1 clip was there already")
    assert torch.equal(first, made[0]) and all(torch.equal(a, b) for a, b in zip(made, expected, strict=True))


def test_starting_from_the_reference_makes_another_video(host, folder, whole):
    host.run(graph(checkpoint_folder="started", start_from_reference=True))
    plain, started = whole[2], clips_of(folder, "started")
    assert started[0].shape[0] == CLIP and rel_l2(started[0][3:], plain[0]) > 1e-2


@pytest.mark.parametrize(
    "inputs",
    [
        {"voice": "eight.wav"},
        {"voice": "fast.wav"},
        {"voice": "silence.wav"},
        *({"picture": f"{p}.png", "clips": 1} for p in ("dot", "huge")),
    ],
)
def test_odd_audio_and_pictures_make_a_video(host, folder, inputs):
    entry = host.run(graph(**({"voice": "silence.wav"} | inputs)))
    assert film_length(host, entry) == 8


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            {"model": "wan/T2V-A14B/low_noise_model"},
            "needs S2V-14B; the connected model is a text-to-video model",
        ),
        ({"voice": "short.wav"}, "10 ms, where 25 ms is the least"),
        ({"voice": "long.wav"}, "180:00 minutes long, and up to 15 can be encoded"),
        ({"clips": ("wire", 0)}, "clips must be 0 to 10000, not -2"),
        ({"frames_per_clip": 10}, "10 frames per clip are not a multiple of 4"),
        ({"checkpoint_folder": "../../elsewhere"}, "lies outside the output folder"),
        ({"fit": "exact", "width": 70}, "width 70 is not a multiple of 16"),
        ({"fit": "exact", "height": 48}, "64x48 is too small for more than one clip"),
        ({"width": 32, "height": 32}, "no video size of its aspect in 1,024 pixels"),
        ({"cfg_high": ("speaker", 0)}, "unexpected keyword argument 'cfg_high'"),
    ],
)
def test_what_cannot_work_says_why(host, folder, inputs, message):
    with pytest.raises(HostError, match=message):
        # hosts do not look at ranges of what comes over a wire
        host.run(graph(**inputs) | {"wire": node("PrimitiveInt", value=-2)})


def test_one_clip_by_hand_is_the_first_clip_of_the_whole(host, folder, whole):
    """WanAudioEncode and WanS2VCondition with any sampler; the host's encoder node takes our encoder too."""
    expected = whole[2][0]
    by_hand = graph()
    for name in ("video", "film", "save"):
        del by_hand[name]
    by_hand["heard"] = node("WanAudioEncode", audio_encoder=("listener", 0), audio=("voice", 0))
    by_hand["clip"] = node(
        "WanS2VCondition", positive=("text", 0), negative=("text", 1), vae=("vae", 0),
        audio_encoder_output=("heard", 0), reference_image=("speaker", 0), width=64, height=64, frames=CLIP,
        frame_offset=0,
    )  # fmt: skip
    by_hand["sample"] = sampler(3, latent=("clip", 2), steps=STEPS, shift=3.0, cfg_high=4.5, boundary=0.0)
    del by_hand["sample"]["inputs"]["model_low"]
    by_hand["sample"]["inputs"] |= {"positive": ["clip", 0], "negative": ["clip", 1]}
    by_hand["keep"] = save()
    found = latents(host, by_hand)
    by_hand["heard"] = node("AudioEncoderEncode", audio_encoder=("listener", 0), audio=("voice", 0))
    assert torch.equal(latents(host, by_hand), found)

    release = folder / "models" / "wan" / "S2V-14B"
    vae = load_vae(release / "Wan2.1_VAE.pth")
    picture = np.array(Image.open(folder / "input" / "speaker.png").convert("RGB"))
    picture = shortest_side_crop(torch.from_numpy(picture).float()[None] / 255, 64, 64)
    with torch.no_grad():
        before = vae.encode(picture.movedim(-1, 0)[None] * 2 - 1)
        frames = (vae.decode(torch.cat([before, found], dim=2))[0].movedim(0, -1) + 1) / 2
    assert rel_l2(frames[-CLIP:][3:], expected) < 1e-4


def test_each_clip_has_its_prompt(host, folder):
    check_prompts_of_clips(host, folder, graph(steps=1, frames_per_clip=8), "prompts_speech")
