"""Keyframes and more motion in the real host: against the pure pipeline and the start and end image; both experts; what
cannot be."""

import pytest
import torch
from graphs import latents, node
from i2v import i2v_graph, noise, pixels, write_i2v_files
from tests_support import rel_l2

from devhost.errors import HostError
from wan_models import load_dit, load_text_encoder, load_vae
from wan_models.images.conditioning import known_frames, mask_channels
from wan_models.images.resize import resize, resize_crop
from wan_models.images.sizes import size_for_i2v
from wan_models.sampling.denoise import Experts, SamplingSettings, denoise
from wan_models.vae import wan21

FRAMES = 17
SIZE = size_for_i2v(91, 37, 64 * 48)


@pytest.fixture(scope="module")
def folders(base):
    write_i2v_files(base)
    return base


@pytest.fixture(scope="module")
def pure(folders):
    """(mask and latents for the high, and for the low expert) -> the latents of the pure pipeline."""
    release = folders / "models" / "wan" / "I2V-A14B"
    encoder = folders / "models" / "wan" / "T2V-A14B" / "models_t5_umt5-xxl-enc-bf16.pth"
    encode = load_text_encoder(encoder, dtype=torch.float32)
    texts = [{"context": encode(text)} for text in ("two cats surf in the evening sun", "blurry")]
    experts = {name: load_dit(release / f"{name}_noise_model") for name in ("high", "low")}
    settings = SamplingSettings(8, 5.0, (3.0, 4.0), "unipc", 0.9)

    def sees(expert, y):
        return lambda x, t, **inputs: experts[expert](torch.cat([x, y], 1), t, **inputs)

    @torch.no_grad()
    def run(y_high, y_low):
        start = noise((1, 16, *y_high.shape[2:]), 7)
        return denoise(Experts(sees("low", y_low), sees("high", y_high)), start, *texts, settings)

    return run


@pytest.fixture(scope="module")
def told(folders):
    """What a model is told of a video that begins with start.png and has end.png at frames, which it knows so far;
    motion: how much more unknown latents differ from the first."""
    vae = load_vae(folders / "models" / "wan" / "I2V-A14B" / "Wan2.1_VAE.pth")
    start = resize(pixels(folders, "start.png"), *SIZE)
    picture = resize(resize_crop(pixels(folders, "end.png"), 91, 37), *SIZE)

    @torch.no_grad()
    def of(frames, strength, motion=1.0):
        video, known = known_frames(start, None, FRAMES, dict.fromkeys(frames if strength else [], picture))
        z = vae.encode(video.movedim(-1, 0)[None] * 2 - 1)
        for latent in range(1, z.shape[2]):
            if motion != 1 and not known[4 * latent - 3 : 4 * latent + 1].any():
                difference = z[:, :, latent] - z[:, :, 0]
                more = difference + (difference - difference.mean()) * (motion - 1)
                z[:, :, latent] = (z[:, :, 0] + more).clamp(-6, 6)
        known = known.float()
        known[frames] = strength
        z = wan21.normalize(z)
        return torch.cat([mask_channels(known, SIZE[1] // 8, SIZE[0] // 8), z[0]])[None]

    return of


def keyframes_graph(positions, start="start.png", end=None, images=("end.png",), **condition):
    """Wan Image to Video with these keyframes, both of its positives and 17 frames."""
    graph = i2v_graph(start or "start.png", end, positions=positions, **{"frames": FRAMES} | condition)
    if not start:
        del graph["image"]["inputs"]["start_image"]
    for i, name in enumerate(images):
        graph[f"key {i}"] = node("LoadImage", image=name)
        if i:
            graph[f"keys {i}"] = node(
                "ImageBatch", image1=(f"keys {i - 1}" if i > 1 else "key 0", 0), image2=(f"key {i}", 0)
            )
        graph["image"]["inputs"]["keyframes"] = [f"keys {i}" if i else "key 0", 0]
    graph["sample"]["inputs"]["positive_low"] = ["image", 3]
    return graph


@pytest.mark.parametrize(("high", "low"), [(1.0, 1.0), (0.7, 0.2), (0.6, 0.0), (0.0, 1.0)])
def test_keyframes_equal_the_pure_pipeline(host, pure, told, high, low):
    """Each expert is told of them as its strength says, with the prompt and with the negative one."""
    strengths = {"strength_high": high, "strength_low": low}
    found = latents(host, keyframes_graph("6, 0.8s", images=("end.png", "end.png"), **strengths))
    expected = pure(*(told([8, 16], strength) for strength in (high, low)))
    assert rel_l2(wan21.normalize(found), expected) < 1e-4


def test_a_keyframe_at_an_end_is_that_ends_image(host):
    """To the bit; without a start image too, and with the positives of both experts or with one."""
    ends = latents(host, i2v_graph(end="end.png", frames=FRAMES))
    assert torch.equal(latents(host, keyframes_graph("-1")), ends)
    one = keyframes_graph("100%")
    del one["sample"]["inputs"]["positive_low"]
    assert torch.equal(latents(host, one), ends)

    start = latents(host, i2v_graph(frames=FRAMES))
    assert torch.equal(latents(host, keyframes_graph("0", start=None, images=("start.png",))), start)

    last = latents(host, keyframes_graph("-1", start=None))
    lone = i2v_graph(end="end.png", frames=FRAMES)
    del lone["image"]["inputs"]["start_image"]
    assert torch.equal(latents(host, lone), last)
    assert last.shape == (1, 16, 5, 6, 6) and torch.isfinite(last).all()


def test_strength_0_is_no_keyframe(host):
    plain = latents(host, i2v_graph(frames=FRAMES))
    assert torch.equal(latents(host, keyframes_graph("8", strength_high=0.0, strength_low=0.0)), plain)
    both = keyframes_graph("8", start=None, strength_high=0.0, strength_low=0.5)
    assert torch.isfinite(latents(host, both)).all()


def test_the_guider_and_parts_of_a_run_take_both_positives(host):
    """The same bits, whole; and with a solver without history in two parts, each with its own positive alone."""
    graph = keyframes_graph("8", strength_high=0.8, strength_low=0.0)
    whole = latents(host, graph)
    cond = {"positive": ("image", 0), "negative": ("image", 1), "positive_low": ("image", 3)}
    parts = graph | {
        "guider": node(
            "WanMoEGuider", model_high=("high", 0), model_low=("low", 0), cfg_high=4.0, cfg_low=3.0, boundary=0.9,
            **cond,
        ),
        "noise": node("RandomNoise", noise_seed=7),
        "sigmas": node("WanSigmas", steps=8, shift=5.0),
        "solver": node("WanSolver", solver="unipc"),
        "sample": node(
            "SamplerCustomAdvanced", noise=("noise", 0), guider=("guider", 0), sampler=("solver", 0),
            sigmas=("sigmas", 0), latent_image=("image", 2),
        ),
    }  # fmt: skip
    assert torch.equal(latents(host, parts), whole)

    def part(**inputs):
        sample = {"class_type": "WanMoESampler", "inputs": graph["sample"]["inputs"] | {"sampler": "euler"}}
        sample["inputs"] |= inputs
        return sample

    euler = latents(host, graph | {"sample": part()})
    high = host.get("/wan22/schedule", preset="custom", steps=8, shift=5.0, boundary=0.9)["at_high"]
    assert 0 < high < 8
    first = part(end_step=high)
    del first["inputs"]["positive_low"]
    for low in ({"positive": ["image", 3]}, {}):
        second = part(start_step=high, add_noise=False, latent_image=["first", 0], **low)
        if low:
            del second["inputs"]["positive_low"]
        assert rel_l2(latents(host, graph | {"first": first, "sample": second}), euler) < 1e-5


def test_motion_amplitude(host, pure, told):
    """Of latents with nothing known, for each expert as its keyframes are; 1 is off to the bit."""
    strengths = {"strength_high": 0.7, "strength_low": 0.0}
    found = latents(host, keyframes_graph("6", motion_amplitude=1.4, **strengths))
    expected = pure(told([8], 0.7, motion=1.4), told([8], 0.0, motion=1.4))
    assert rel_l2(wan21.normalize(found), expected) < 1e-4
    plain = latents(host, keyframes_graph("6", **strengths))
    assert torch.equal(latents(host, keyframes_graph("6", motion_amplitude=1.0, **strengths)), plain)
    assert rel_l2(found, plain) > 1e-3


def test_the_node_says_where_keyframes_stand(host):
    entry = host.run(keyframes_graph("6, 16", images=("end.png", "start.png")))
    (text,) = entry["outputs"]["image"]["text"]
    assert text.splitlines() == [
        "Keyframe at frame 8, the place of latent 2, to which frame 6 belongs",
        "Keyframe at frame 16, the place of latent 4",
    ]


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (lambda: keyframes_graph("4, 8"), "keyframes has 1 image, and positions names 2 places"),
        (lambda: keyframes_graph(""), "keyframes has 1 image, and positions names 0 places"),
        (lambda: keyframes_graph("8", images=()), "keyframes has nothing connected, and positions names 1 place:"),
        (lambda: keyframes_graph("middle"), "positions: 'middle' is no place in a video"),
        (lambda: keyframes_graph("2.5s"), "positions: 2.5s lies outside of the video, whose frames are 0 to 16"),
        (
            lambda: keyframes_graph("-1, 8, 8", images=("end.png",) * 3),
            r"positions: frame 8 belongs to the same latent \(frames 5 to 8\) as frame 8",
        ),
        (lambda: keyframes_graph("17"), "positions: 17 lies outside of the video, whose frames are 0 to 16"),
        (lambda: keyframes_graph("0"), "frame 0 belongs to the same latent .* as the start image"),
        (lambda: keyframes_graph("-2", end="start.png"), "frame 15 belongs to the same latent .* as the end image"),
        (
            lambda: keyframes_graph("5, 8", images=("end.png", "end.png")),
            r"frame 8 belongs to the same latent \(frames 5 to 8\) as frame 5",
        ),
        (
            lambda: keyframes_graph("8", strength_low=("wire", 0)) | {"wire": node("PrimitiveFloat", value=1.5)},
            "strength_low must be 0 to 1, not 1.5",
        ),
        (
            lambda: keyframes_graph("8") | {"sample": bare_low()},
            "image-to-video model, and its conditioning holds no image",
        ),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("folders")
def test_what_cannot_work_says_why(host, graph, message):
    with pytest.raises(HostError, match=message):
        host.run(graph())


def bare_low():
    """A sampler whose low-noise expert gets the plain text."""
    sample = keyframes_graph("8")["sample"]
    sample["inputs"]["positive_low"] = ["text", 0]
    return sample
