"""What the server tells the page: the schedule of a sampler's settings, and moving previews while it samples."""

import base64
import io
import json
import shutil
import time
from itertools import pairwise

import numpy as np
import pytest
import requests
from forked import ForkedHost
from graphs import base_graph, latents, node, sampler, save
from PIL import Image
from tests_media import write_film, write_sound

from demo.tiny_release import write_release
from wan_models.sampling.schedule import sigmas

EVERY_SECONDS = 0.5


def schedule(host, **query):
    return host.get("/wan22/schedule", **query)


# --- the schedule ---


@pytest.mark.parametrize(
    ("preset", "high", "steps", "boundary"),
    [
        ("T2V-A14B", 26, 40, 0.875),
        ("I2V-A14B", 15, 40, 0.9),
        ("TI2V-5B", 50, 50, 0.0),
        ("T2V-A14B 4-step LoRA", 2, 4, 0.875),
    ],
)
def test_schedule_of_presets(host, preset, high, steps, boundary):
    """A preset counts, whatever the other widgets say."""
    found = schedule(host, preset=preset, steps=7, shift=1.5, boundary=0.1, sampler="euler")
    assert (found["at_high"], found["first"], found["last"]) == (high, 0, steps)
    assert found["high"] == [True] * high + [False] * (steps - high)
    assert found["boundary"] == boundary
    assert len(found["sigmas"]) == steps + 1 and found["sigmas"][-1] == 0


def test_schedule_is_the_official_one(host):
    found = schedule(host, preset="custom", steps=9, shift=3.0, sampler="wan unipc", scheduler="wan official")
    assert found["sigmas"] == pytest.approx(sigmas(9, 3.0).tolist(), abs=1e-5)
    assert schedule(host, preset="custom", steps=9, shift=3.0, scheduler="beta")["sigmas"] != found["sigmas"]


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 8, "shift": 12.0, "boundary": 0.875},
        {"steps": 8, "shift": 3.0, "boundary": 0.875},
        {"steps": 8, "shift": 3.0, "boundary": 0.5},
        {"steps": 9, "shift": 5.0, "boundary": 0.9, "start_step": 2, "end_step": 6},
        {"steps": 6, "shift": 5.0, "boundary": 0.9, "sampler": "euler", "scheduler": "simple"},
        {"steps": 8, "shift": 7.0, "boundary": 0.875, "sampler": "wan dpm++"},
    ],
)
def test_schedule_is_what_the_sampler_does(host, settings):
    """The numbers that the page shows beforehand are those of the sampler's report."""
    found = schedule(host, preset="custom", **settings)
    entry = host.run(base_graph() | {"sample": sampler(1, **settings), "save": save()})
    (report,) = entry["outputs"]["sample"]["text"]
    run = found["last"] - found["first"]
    assert report.startswith(
        f"{found['at_high']} of {run} steps on the high-noise expert, {run - found['at_high']} on"
    )


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"steps": "many"}, "steps must be a whole number"),
        ({"steps": 0}, "steps must be 1 or more"),
        ({"steps": 10**9}, "steps must be 1000 or less"),
        ({"shift": "nan"}, "shift must be a finite number"),
        ({"shift": -1}, "shift must be above 0"),
        ({"boundary": 1.5}, "boundary must lie in 0..1"),
        ({"sampler": "x", "scheduler": "nonsense"}, "no scheduler 'nonsense'"),
        ({"preset": "T2V"}, "unknown preset 'T2V'"),
        ({"start_step": 41}, "no steps are left"),
        ({"start_step": -1}, "start_step must be 0 or more"),
        ({"start_step": 5, "end_step": 5}, "no steps are left"),
        ({"end_step": -3}, "end_step must be 0 or more"),
        ({"start_step": 10**30}, "start_step is too large"),
        ({"sampler": "nonsense"}, "no sampler 'nonsense'"),
        ({"sampler": ""}, "no sampler ''"),
        ({"sampler": "euler\0"}, "no sampler"),
        ({"scheduler": "../../etc"}, "no scheduler '../../etc'"),
        ({"shift": "inf"}, "shift must be a finite number"),
        ({"shift": "1e999"}, "shift must be a finite number"),
        ({"shift": "[1]"}, "shift must be a number"),
        ({"cfg_high": "-Infinity"}, "cfg_high must be a finite number"),
        ({"cfg_low": "nan"}, "cfg_low must be a finite number"),
        ({"boundary": "nan"}, "boundary must be a finite number"),
        ({"steps": "7.5"}, "steps must be a whole number"),
        ({"steps": "nan"}, "steps must be a whole number"),
        ({"steps": "9" * 5000}, "steps must be a whole number"),
        ({"steps": "9" * 4000}, "steps is too large: 999"),
        ({"end_step": "x" * 6000}, "end_step must be a whole number"),
        ({"base_steps": 27}, "base_steps 27 goes past the boundary"),
        ({"base_steps": -1}, "base_steps must be 0 or more"),
        ({"base_steps": "two"}, "base_steps must be a whole number"),
        ({"base_cfg": "nan"}, "base_cfg must be a finite number"),
    ],
)
def test_bad_settings_are_answered_with_the_reason(host, query, message):
    answer = requests.get(f"http://{host.address}/wan22/schedule", params=query, timeout=60)
    assert answer.status_code == 400
    assert message in answer.json()["error"] and len(answer.json()["error"]) < 300


def test_whatever_is_asked_the_schedule_has_numbers_or_a_reason(host):
    """Every scheduler of the host, at settings that no sampler has."""
    inputs = host.get("/object_info/WanMoESampler")["WanMoESampler"]["input"]
    (kind, *options) = (inputs["required"] | inputs["optional"])["scheduler"]
    schedulers = options[0]["options"] if kind == "COMBO" else kind
    extremes = [
        {"steps": steps, "shift": shift}
        for steps in (1, 2, 1000)
        for shift in ("1e-320", "1e-9", "1", "1e9", "1e300", "1.7e308")
    ]
    assert len(schedulers) > 5
    for scheduler in schedulers:
        for settings in extremes:
            answer = requests.get(
                f"http://{host.address}/wan22/schedule",
                params={"scheduler": scheduler, **settings},
                timeout=60,
            )
            found = json.loads(answer.text, parse_constant=pytest.fail)
            assert answer.status_code == (400 if "error" in found else 200), (scheduler, settings)
            if "error" not in found:
                assert len(found["sigmas"]) >= 2, (scheduler, settings)


def test_the_schedule_names_every_widget_that_counts(host):
    """All of a sampler's inputs but the models, texts, latents and the seed's."""
    named = schedule(host)["settings"]
    info = host.get("/object_info/WanMoESampler")["WanMoESampler"]["input"]
    inputs = {name: spec[0] for group in info.values() for name, spec in group.items()}
    assert set(named) <= set(inputs)
    numbers = {name for name, kind in inputs.items() if kind in ("INT", "FLOAT")}
    assert numbers - set(named) == {"seed"}


# --- reports ---


def test_a_report_is_sent_again_where_the_node_need_not_run(host):
    """For a page that was reloaded meanwhile."""
    if "has_intermediate_output" not in host.get("/object_info")["WanMoESampler"]:
        pytest.skip("of newer hosts")
    graph = base_graph() | {"sample": sampler(7), "save": save()}
    reports = [host.run(graph)["outputs"]["sample"]["text"] for _ in range(2)]
    assert reports[0] == reports[1] and " steps on the high-noise expert" in reports[0][0]


# --- the readout of sizes ---


@pytest.fixture(scope="module")
def vaes(host, base, tmp_path_factory):
    """A 2.1 VAE under the name of the 2.2, and the other way round."""
    release = write_release(tmp_path_factory.mktemp("release") / "TI2V-5B", name="TI2V-5B")
    old, new = (base / "models" / "vae" / name for name in ("wan2.2_vae_not.safetensors", "anything.pth"))
    shutil.copy(base / "models" / "vae" / "vae.safetensors", old)
    shutil.copy(release / "Wan2.2_VAE.pth", new)
    yield
    old.unlink()
    new.unlink()


@pytest.mark.parametrize(
    ("kind", "names", "fps", "multiple"),
    [
        ("WanEmptyLatent", [], 16, None),
        ("WanEmptyLatent", ["wan/T2V-A14B/Wan2.1_VAE.pth", "fp32"], 16, 16),
        ("WanEmptyLatent", ["wan2.2_vae_not.safetensors"], 16, 16),
        ("WanEmptyLatent", ["fp32", "anything.pth"], 24, 32),
        ("WanEmptyLatent", ["not/there/Wan2.2_VAE.pth"], 24, 32),
        ("WanEmptyLatent", ["not/there/sdxl.safetensors"], 16, None),
        ("WanTI2VLatent", [], 24, None),
        ("WanPoseAnimate", ["wan/T2V-A14B/Wan2.1_VAE.pth"], 30, 16),
        ("WanSpeechToVideo", [], 16, None),
    ],
)
def test_fps_and_size_of_a_nodes_videos(host, vaes, kind, names, fps, multiple):
    assert host.get("/wan22/video", node=kind, vae=names) == {"fps": fps, "multiple": multiple}


# --- previews ---


class Watcher:
    """Keeps the previews of a run as they come: ours, and the host's own."""

    def __init__(self):
        self.ours, self.pairs, self.times = [], [], []

    def __call__(self, kind, data):
        if kind == "wan22.preview":
            self.ours.append(data)
            self.times.append(time.monotonic())
            self._last = data
        elif kind == "preview" and getattr(self, "_last", None):
            self.pairs.append((self._last, data["bytes"][8:]))
            self._last = None


def frames_of(message):
    """The pictures of one of our previews, [T, H, W, 3]."""
    strip = np.array(Image.open(io.BytesIO(base64.b64decode(message["image"]))))
    assert strip.shape == (message["height"], message["width"] * message["frames"], 3)
    return np.stack(np.split(strip, message["frames"], axis=1))


def long_graph(steps=60, **size):
    graph = base_graph() | {"sample": sampler(1, steps=steps), "save": save()}
    graph["latent"]["inputs"] |= {"width": 96, "height": 64, "frames": 33} | size
    return graph


def test_previews_hold_all_frames_and_come_seldom(host):
    watcher = Watcher()
    host.run(long_graph(), watcher)
    assert len(watcher.ours) >= 2
    for message in watcher.ours:
        assert (message["node"], message["frames"], message["width"], message["height"]) == (
            "sample",
            9,
            12,
            8,
        )
        assert message["seconds"] == 9 * 4 / 16
    shown = frames_of(watcher.ours[-1]).astype(int)
    assert min(abs(a - b).mean() for a, b in pairwise(shown)) > 5, "frames differ"
    # one may be late where the machine is busy, and the next one is not
    assert len(watcher.times) - 1 <= (watcher.times[-1] - watcher.times[0]) / EVERY_SECONDS + 1


def test_first_frame_is_the_hosts_preview(host):
    """The colours are those that the host gives: our first picture is its own preview of the same step."""
    watcher = Watcher()
    host.run(long_graph(frames=9), watcher)
    assert len(watcher.pairs) >= 2
    for ours, hosts in watcher.pairs:
        theirs = Image.open(io.BytesIO(hosts))  # enlarged by the host
        first, *others = (
            abs(
                np.array(Image.fromarray(frame).resize(theirs.size, Image.Resampling.BILINEAR)).astype(int)
                - theirs
            )
            for frame in frames_of(ours)
        )
        assert first.mean() < 12
        assert all(other.mean() > 2 * first.mean() for other in others)


def test_long_and_large_videos_give_small_previews(host):
    watcher = Watcher()
    host.run(long_graph(steps=1, width=2560, height=16, frames=133), watcher)
    (message,) = watcher.ours
    assert (message["frames"], message["width"], message["height"]) == (32, 256, 2)
    assert message["seconds"] == 34 * 4 / 16
    assert frames_of(message).shape == (32, 2, 256, 3)


def test_a_run_that_nobody_watches(host):
    """A script without a websocket gets its result, and no previews are made for it."""
    prompt = host.queue(long_graph(steps=4))
    deadline = time.monotonic() + 60
    while prompt not in host.get("/history"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert host.history(prompt)["status"]["status_str"] == "success"


def test_no_previews_where_the_user_wants_none(comfyui, base):
    watcher = Watcher()
    with ForkedHost(comfyui, base=base, arguments=("--preview-method", "none")) as quiet:
        latents(quiet, long_graph(steps=4), watcher)
    assert watcher.ours == []


@pytest.fixture(scope="module")
def clip_files(base):
    for name, seed in (("S2V-14B", 30), ("Animate-14B", 40)):
        write_release(base / "models" / "wan" / name, seed=seed, name=name)
    folder = base / "input"
    folder.mkdir(exist_ok=True)
    write_sound(folder / "page.wav", 0.9)
    write_film(folder / "page.mp4", frames=9, width=64, height=64)
    Image.new("RGB", (64, 64), (200, 30, 30)).save(folder / "page.png")


def clip_graph(release, kind, **inputs):
    graph = base_graph()
    del graph["low"], graph["latent"]
    graph["high"] = node("WanDiTLoader", model_name=f"wan/{release}")
    graph["vae"] = node("WanVAELoader", vae_name=f"wan/{release}/Wan2.1_VAE.pth")
    graph["picture"] = node("LoadImage", image="page.png")
    graph["video"] = node(
        kind, model=("high", 0), positive=("text", 0), negative=("text", 1), vae=("vae", 0), seed=1, preset="custom",
        steps=6, reference_image=("picture", 0), **inputs,
    )  # fmt: skip
    graph["preview"] = node("PreviewImage", images=("video", 0))
    return graph


def speech_graph():
    inputs = {"width": 64, "height": 64, "frames_per_clip": 12, "clips": 0, "fit": "exact"}
    graph = clip_graph("S2V-14B", "WanSpeechToVideo", audio_encoder=("ear", 0), audio=("voice", 0), **inputs)
    listener = "wan/S2V-14B/wav2vec2-large-xlsr-53-english"
    graph["ear"] = node("WanAudioEncoderLoader", audio_encoder_name=listener)
    graph["voice"] = node("LoadAudio", audio="page.wav")
    return graph


def animate_graph():
    film = {"pose_video": ("film", 0), "face_video": ("film", 0), "clip_vision": ("eye", 0)}
    graph = clip_graph("Animate-14B", "WanPoseAnimate", frames_per_clip=5, carried_frames="1", **film)
    eye = "wan/Animate-14B/models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
    graph["eye"] = node("WanCLIPVisionLoader", clip_name=eye)
    whole = {"fps": 0.0, "start": 0.0, "length": 0, "width": 64, "height": 64, "fit": "original"}
    graph["film"] = node("WanLoadVideo", file="page.mp4", **whole)
    return graph


@pytest.mark.parametrize(
    ("graph", "frames", "fps"),
    [(speech_graph, 3, 16), (animate_graph, 2, 30)],
    ids=["S2V-14B", "Animate-14B"],
)
def test_samplers_of_clips_send_previews_too(host, clip_files, graph, frames, fps):
    """Of the frames of a clip: Animate's reference, which goes before them, is left out."""
    watcher = Watcher()
    host.run(graph(), watcher)
    assert watcher.ours
    for message in watcher.ours:
        assert (message["node"], message["frames"], message["seconds"]) == ("video", frames, frames * 4 / fps)
        assert frames_of(message).shape == (frames, 8, 8, 3)
