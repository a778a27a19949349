"""The host's context windows over our MODELs: the numbers of its own MODEL on the same weights, for all schedules and
ways to fuse, with an image, in both experts and their guider."""

import pytest
import torch
from graphs import base_graph, context_windows, latents, node, sampler, save, window_inputs
from safetensors.torch import save_file
from tests_support import rel_l2

from demo.tiny_release import write_release
from wan_models import load_dit, load_text_encoder, load_vae
from wan_models.checkpoints.reader import open_model
from wan_models.images.conditioning import known_frames, mask_channels
from wan_models.sampling.denoise import Experts, SamplingSettings, denoise
from wan_models.vae import wan21, wan22

FRAMES = 29  # 8 latent frames
WHOLE = {"shift": 1.0, "scheduler": "simple", "sampler": "euler", "steps": 3}
"""A schedule of whole timesteps, to which ours are rounded."""
OFFICIAL = {"sampler": "wan unipc", "scheduler": "wan official", "shift": 5.0, "steps": 4}


def cuts(host):
    """Whether the host is a newer one, which cuts conditioning to its windows."""
    return "retain_first_frame" in window_inputs(host)


@pytest.fixture(scope="module")
def newer(host):
    if not cuts(host):
        pytest.skip("this host cuts no conditioning to its windows")


@pytest.fixture(scope="module")
def files(base):
    """Image-to-video and TI2V releases, and the first one's experts for the host's own loader."""
    for name in ("I2V-A14B", "TI2V-5B"):
        write_release(base / "models" / "wan" / name, seed=20, name=name)
    for expert in ("high", "low"):
        state = open_model(base / "models" / "wan" / "I2V-A14B" / f"{expert}_noise_model")
        target = base / "models" / "diffusion_models" / f"windows i2v {expert}.safetensors"
        save_file({name: weight.clone() for name, weight in state.items()}, target)
    return base


def loaders(theirs, release="T2V-A14B"):
    """Both experts as `high` and `low`: our loader's MODELs, or the host's."""
    if theirs:
        names = {"T2V-A14B": "{}.safetensors", "I2V-A14B": "windows i2v {}.safetensors"}[release]
        return {
            e: node("UNETLoader", unet_name=names.format(e), weight_dtype="default") for e in ("high", "low")
        }
    return {e: node("WanDiTLoader", model_name=f"wan/{release}/{e}_noise_model") for e in ("high", "low")}


def windowed(host, graph, **settings):
    """The graph with the host's node on both experts."""
    for expert in ("high", "low"):
        graph[f"windowed {expert}"] = context_windows(host, (expert, 0), **settings)
    return graph


def of_both(host, theirs, release="T2V-A14B", **settings):
    """Loaders and windows, and WanMoESampler over both experts."""
    graph = base_graph() | loaders(theirs, release)
    graph["latent"]["inputs"]["frames"] = FRAMES
    windowed(host, graph, **settings)
    graph["sample"] = sampler(3, ("windowed high", 0), ("windowed low", 0), **WHOLE)
    return graph | {"save": save()}


def by_the_host(host, theirs, **settings):
    """The host's own sampler over the high-noise expert in windows."""
    graph = of_both(host, theirs, **settings)
    graph["shift"] = node("ModelSamplingSD3", model=("windowed high", 0), shift=1.0)
    graph["sample"] = node(
        "KSampler", model=("shift", 0), positive=("text", 0), negative=("text", 1), latent_image=("latent", 0),
        seed=5, steps=3, cfg=3.0, sampler_name="euler", scheduler="simple", denoise=1.0,
    )  # fmt: skip
    return graph


CASES = {
    "static": {},
    "static, flat": {"fuse_method": "flat"},
    "static, relative": {"fuse_method": "relative", "context_overlap": 9},
    "static, overlap-linear": {"fuse_method": "overlap-linear"},
    "uniform": {"context_schedule": "standard_uniform", "context_stride": 2},
    "uniform, relative": {"context_schedule": "standard_uniform", "fuse_method": "relative"},
    "looped": {"context_schedule": "looped_uniform", "closed_loop": True},
    "looped, flat": {"context_schedule": "looped_uniform", "fuse_method": "flat", "context_stride": 2},
    "batched": {"context_schedule": "batched"},
    "freenoise": {"freenoise": True},
    "first frame": {"retain_first_frame": True},
    "longer than the video": {"context_length": 81, "context_overlap": 30},
}


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_windows_of_our_model_are_those_of_the_hosts(host, settings):
    ours, theirs = (latents(host, by_the_host(host, t, **settings)) for t in (False, True))
    assert rel_l2(ours, theirs) < 1e-4


@pytest.mark.parametrize("name", ["static", "uniform", "looped, flat", "freenoise"])
def test_windows_in_both_experts(host, name):
    """The step that windows of a schedule depend on runs on through the switch of experts; so does shuffled noise."""
    ours, theirs = (latents(host, of_both(host, t, **CASES[name])) for t in (False, True))
    assert rel_l2(ours, theirs) < 1e-4
    whole = of_both(host, False, **CASES["longer than the video"])
    assert rel_l2(ours, latents(host, whole)) > 1e-2


def test_windows_in_one_expert_alone(host):
    """Each expert has what was put on it: windows in the high one, and none in the low one, and the other way."""
    seen = []
    for plain in ("high", "low"):
        graph = of_both(host, False)
        graph["sample"]["inputs"][f"model_{plain}"] = [plain, 0]
        seen.append(latents(host, graph))
    both = latents(host, of_both(host, False))
    assert min(rel_l2(a, b) for a, b in [(seen[0], both), (seen[1], both), (seen[0], seen[1])]) > 1e-3


def test_windows_in_the_guider(host):
    """WanMoEGuider in the host's SamplerCustomAdvanced gives what the sampler in one node gives."""
    graph = of_both(host, False, **CASES["uniform"])
    expected = latents(host, graph)
    settings = {"steps": 3, "shift": 1.0}
    graph["guider"] = node(
        "WanMoEGuider", model_high=("windowed high", 0), model_low=("windowed low", 0), positive=("text", 0),
        negative=("text", 1), cfg_high=4.0, cfg_low=3.0, boundary=0.875,
    )  # fmt: skip
    graph["shift"] = node("ModelSamplingSD3", model=("high", 0), shift=settings["shift"])
    graph["sigmas"] = node("BasicScheduler", model=("shift", 0), scheduler="simple", steps=3, denoise=1.0)
    graph["noise"] = node("RandomNoise", noise_seed=3)
    graph["solver"] = node("KSamplerSelect", sampler_name="euler")
    graph["sample"] = node(
        "SamplerCustomAdvanced", noise=("noise", 0), guider=("guider", 0), sampler=("solver", 0),
        sigmas=("sigmas", 0), latent_image=("latent", 0),
    )  # fmt: skip
    assert rel_l2(latents(host, graph), expected) < 1e-5


def in_windows(model, newer):
    """The velocity that the host makes of a model's in the windows of WINDOWSS, of 4 latent frames: static and weighted
    1, 2, 2, 1. Newer hosts show each window the frame before it too."""
    step = 3 if newer else 2  # older ones round an overlap of 5 frames up to 2 latent ones

    def velocity(x, t, **inputs):
        total, weights = x.shape[2], torch.tensor([1.0, 2.0, 2.0, 1.0]).view(-1, 1, 1)
        out, sums = torch.zeros_like(x[:, : model.config.out_dim]), torch.zeros(total, 1, 1)
        for first in sorted({min(first, total - 4) for first in range(0, total - 4 + step, step)}):
            frames = list(range(first, first + 4))
            shown = [first - 1, *frames] if newer and first else frames
            part = model(x[:, :, shown], t[:, shown] if t.dim() == 2 else t, **inputs)[:, :, -4:]
            out[:, :, frames] += part * weights
            sums[frames] += weights
        return out / sums

    return velocity


@pytest.fixture(scope="module")
def texts(files):
    release = files / "models" / "wan" / "T2V-A14B" / "models_t5_umt5-xxl-enc-bf16.pth"
    encode = load_text_encoder(release, dtype=torch.float32)
    return [{"context": encode(text)} for text in ("two cats surf in the evening sun", "blurry")]


def noise(shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def pictures(graph, *colours):
    """Images of one colour each, and those colours."""
    for name, colour in zip(("start", "end"), colours, strict=False):
        graph[name] = node("EmptyImage", width=64, height=48, batch_size=1, color=colour)
    rgb = [torch.tensor([c >> 16, c >> 8 & 255, c & 255]) / 255 for c in colours]
    return [colour.expand(1, 48, 64, 3) for colour in rgb]


@torch.no_grad()
def test_images_are_cut_with_the_windows(host, files, texts):
    """Start and end image on both experts, against the pure pipeline in windows; also where the host does not cut."""
    graph = of_both(host, False, "I2V-A14B")
    start, end = pictures(graph, 0xC04020, 0x2040C0)
    graph["vae"] = node("WanVAELoader", vae_name="wan/I2V-A14B/Wan2.1_VAE.pth")
    graph["image"] = node(
        "WanI2VCondition", positive=("text", 0), negative=("text", 1), vae=("vae", 0), start_image=("start", 0),
        end_image=("end", 0), width=64, height=48, frames=FRAMES,
    )  # fmt: skip
    graph["sample"]["inputs"] |= {
        "positive": ["image", 0],
        "negative": ["image", 1],
        "latent_image": ["image", 2],
    }
    graph["sample"]["inputs"] |= OFFICIAL
    release = files / "models" / "wan" / "I2V-A14B"
    video, known = known_frames(start, end, FRAMES)
    z = wan21.normalize(load_vae(release / "Wan2.1_VAE.pth").encode(video.movedim(-1, 0)[None] * 2 - 1))
    y = torch.cat([mask_channels(known, 6, 8), z[0]])[None]
    newer = cuts(host)
    high, low = (in_windows(load_dit(release / f"{e}_noise_model"), newer) for e in ("high", "low"))
    settings = SamplingSettings(4, 5.0, (3.0, 4.0), "unipc", 0.875)
    expected = denoise(Experts(low, high), noise(z.shape), *texts, settings, y=y)
    assert rel_l2(wan21.normalize(latents(host, graph)), expected) < 1e-4


@torch.no_grad()
def test_known_frames_are_cut_with_the_windows(host, files, texts):
    """TI2V's first frame has timestep 0 in the windows that it is in, and in no other."""
    graph = base_graph() | {"high": node("WanDiTLoader", model_name="wan/TI2V-5B"), "save": save()}
    windowed(host, graph)
    (start,) = pictures(graph, 0xC04020)
    graph["vae"] = node("WanVAELoader", vae_name="wan/TI2V-5B/Wan2.2_VAE.pth")
    size = {"width": 64, "height": 64, "frames": FRAMES, "fit": "exact"}
    graph["latent"] = node("WanTI2VLatent", vae=("vae", 0), start_image=("start", 0), **size)
    graph["sample"] = sampler(3, ("windowed high", 0), **OFFICIAL, cfg_high=5.0, boundary=0.0)
    del graph["sample"]["inputs"]["model_low"], graph["windowed low"], graph["low"]
    release = files / "models" / "wan" / "TI2V-5B"
    frame = start[:, :1, :1].expand(1, 64, 64, 3)
    first = wan22.normalize(load_vae(release / "Wan2.2_VAE.pth").encode(frame.movedim(-1, 0)[None] * 2 - 1))
    model = in_windows(load_dit(release), cuts(host))
    settings = SamplingSettings(4, 5.0, (5.0, 5.0), "unipc", None)
    expected = denoise(Experts(model), noise((1, 48, 8, 4, 4)), *texts, settings, known=first)
    assert rel_l2(wan22.normalize(latents(host, graph)), expected) < 1e-4


@pytest.mark.usefixtures("newer", "files")
def test_the_start_image_in_every_window(host):
    """retain_first_frame, beside the host's own MODEL."""

    def made(theirs, **settings):
        graph = of_both(host, theirs, "I2V-A14B", **settings)
        pictures(graph, 0xC04020)
        graph["vae"] = node("WanVAELoader", vae_name="wan/I2V-A14B/Wan2.1_VAE.pth")
        graph["image"] = node(
            "WanI2VCondition", positive=("text", 0), negative=("text", 1), vae=("vae", 0),
            start_image=("start", 0), width=64, height=48, frames=FRAMES,
        )  # fmt: skip
        wires = {"positive": ["image", 0], "negative": ["image", 1], "latent_image": ["image", 2]}
        graph["sample"]["inputs"] |= wires
        return latents(host, graph)

    settings = {"retain_first_frame": True, "freenoise": True, "context_schedule": "standard_uniform"}
    ours = made(False, **settings)
    assert rel_l2(ours, made(True, **settings)) < 1e-4
    assert rel_l2(ours, made(False, **settings | {"retain_first_frame": False})) > 1e-3
