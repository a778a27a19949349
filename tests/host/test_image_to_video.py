"""Image-to-video in the real host: our nodes and its own, against the pure pipeline; and images nobody thought of."""

import pytest
import torch
from graphs import base_graph, latents, node, sampler, save
from i2v import I2V, i2v_graph, noise, pixels, write_i2v_files
from PIL import Image
from tests_support import rel_l2

from demo.tiny_release import write_release
from devhost.errors import HostError
from wan_models import load_dit, load_text_encoder, load_vae
from wan_models.checkpoints.reader import open_model
from wan_models.images.conditioning import known_frames, mask_channels
from wan_models.images.resize import resize, resize_crop
from wan_models.images.sizes import size_for_i2v, size_for_ti2v
from wan_models.sampling.denoise import Experts, SamplingSettings, denoise
from wan_models.vae import wan21, wan22

TI2V = "wan/TI2V-5B"


@pytest.fixture(scope="module")
def folders(base):
    """Both releases, and pictures."""
    write_i2v_files(base)
    write_release(base / "models" / "wan" / "TI2V-5B", seed=20, name="TI2V-5B")
    return base


@pytest.fixture(scope="module")
def texts(folders):
    release = folders / "models" / "wan" / "T2V-A14B"
    encode = load_text_encoder(release / "models_t5_umt5-xxl-enc-bf16.pth", dtype=torch.float32)
    return [encode(text) for text in ("two cats surf in the evening sun", "blurry")]


@pytest.mark.parametrize("end", [None, "end.png"])
@torch.no_grad()
def test_i2v_equals_the_pure_pipeline(host, folders, texts, end):
    release = folders / "models" / "wan" / "I2V-A14B"
    found = latents(host, i2v_graph(end=end))
    high, low = (load_dit(release / f"{expert}_noise_model") for expert in ("high", "low"))
    vae = load_vae(release / "Wan2.1_VAE.pth")
    start = pixels(folders, "start.png")
    width, height = size_for_i2v(91, 37, 64 * 48)
    frames = [resize(start, width, height)]
    if end:
        frames.append(resize(resize_crop(pixels(folders, end), 91, 37), width, height))
    video, known = known_frames(frames[0], frames[1] if end else None, 9)
    z = wan21.normalize(vae.encode(video.movedim(-1, 0)[None] * 2 - 1))
    y = torch.cat([mask_channels(known, height // 8, width // 8), z[0]])[None]
    settings = SamplingSettings(8, 5.0, (3.0, 4.0), "unipc", 0.9)
    positive, negative = ({"context": text} for text in texts)
    expected = denoise(Experts(low, high), noise(z.shape, 7), positive, negative, settings, y=y)
    assert rel_l2(wan21.normalize(found), expected) < 1e-4


@pytest.fixture(scope="module")
def host_models(folders):
    """The experts as files for the host's own loader."""
    from safetensors.torch import save_file

    names = {}
    for expert in ("high", "low"):
        folder = folders / "models" / "wan" / "I2V-A14B" / f"{expert}_noise_model"
        names[expert] = f"i2v_{expert}.safetensors"
        state = {k: v.clone() for k, v in open_model(folder).items()}
        save_file(state, folders / "models" / "diffusion_models" / names[expert])
    return names


@pytest.mark.parametrize("model", ["ours", "the host's"])
@pytest.mark.parametrize(
    ("node_name", "end"), [("WanImageToVideo", None), ("WanFirstLastFrameToVideo", "whole.png")]
)
def test_our_image_node_and_the_hosts_are_the_same_to_any_model(
    host, folders, host_models, model, node_name, end
):
    """On an image that needs no resizing: both set the host's own keys, and both kinds of model read them."""
    whole = resize_crop(pixels(folders, "start.png"), 64, 48)[0]
    Image.fromarray(whole.mul(255).round().byte().numpy()).save(folders / "input" / "whole.png")
    graph = i2v_graph("whole.png", end, fit="exact")
    if model != "ours":
        for expert, name in host_models.items():
            graph[expert] = node("UNETLoader", unet_name=name, weight_dtype="default")
    expected = latents(host, graph)
    graph["image"] = {**graph["image"], "class_type": node_name}
    inputs = graph["image"]["inputs"]
    del inputs["fit"]
    inputs |= {"length": inputs.pop("frames"), "batch_size": 1}
    assert rel_l2(latents(host, graph), expected) < 1e-4


def ti2v_graph(start=None, seed=7, latent_node="WanTI2VLatent", **size):
    graph = base_graph()
    graph["high"] = node("WanDiTLoader", model_name=TI2V)
    del graph["low"]
    graph["vae"] = node("WanVAELoader", vae_name=f"{TI2V}/Wan2.2_VAE.pth")
    graph["latent"] = node(latent_node, vae=("vae", 0), **({"width": 96, "height": 64, "frames": 9} | size))
    if start:
        graph["start"] = node("LoadImage", image=start)
        graph["latent"]["inputs"]["start_image"] = ["start", 0]
    graph["sample"] = sampler(seed, steps=8, shift=5.0, boundary=0.0, cfg_high=5.0)
    del graph["sample"]["inputs"]["model_low"]
    graph["save"] = save()
    return graph


@pytest.mark.parametrize("start", [None, "start.png"])
@torch.no_grad()
def test_ti2v_equals_the_pure_pipeline(host, folders, texts, start):
    release = folders / "models" / "wan" / "TI2V-5B"
    found = latents(host, ti2v_graph(start))
    model = load_dit(release)
    vae = load_vae(release / "Wan2.2_VAE.pth")
    first = None
    if start:
        width, height = size_for_ti2v(91, 37, 96 * 64)
        frame = resize_crop(pixels(folders, start), width, height)
        first = wan22.normalize(vae.encode(frame.movedim(-1, 0)[None] * 2 - 1))
    settings = SamplingSettings(8, 5.0, (5.0, 5.0), "unipc", None)
    positive, negative = ({"context": text} for text in texts)
    expected = denoise(Experts(model), noise(found.shape, 7), positive, negative, settings, known=first)
    assert rel_l2(wan22.normalize(found), expected) < 1e-4
    if start:
        assert rel_l2(wan22.normalize(found)[:, :, :1], first) < 1e-5


def test_the_hosts_ti2v_latent_drives_our_model(host, folders):
    """Wan22ImageToVideoLatent and KSampler-style nodes: known frames keep timestep 0 and stay as they are."""
    start = resize_crop(pixels(folders, "start.png"), 96, 64)
    Image.fromarray(start[0].mul(255).round().byte().numpy()).save(folders / "input" / "wide.png")
    ours = latents(host, ti2v_graph("wide.png", fit="exact"))
    graph = ti2v_graph("wide.png", latent_node="Wan22ImageToVideoLatent")
    inputs = graph["latent"]["inputs"]
    inputs |= {"length": inputs.pop("frames"), "batch_size": 1}
    assert rel_l2(latents(host, graph), ours) < 1e-4
    graph["sample"] = node(
        "KSampler", model=("high", 0), positive=("text", 0), negative=("text", 1), latent_image=("latent", 0), seed=7,
        steps=4, cfg=5.0, sampler_name="euler", scheduler="simple", denoise=1.0,
    )  # fmt: skip
    assert rel_l2(latents(host, graph)[:, :, :1], ours[:, :, :1]) < 1e-4


@pytest.mark.parametrize(("graph", "size"), [(i2v_graph, (6, 6)), (ti2v_graph, (4, 6))])
@pytest.mark.parametrize("picture", ["alpha.png", "dot.png"])
def test_odd_images_make_a_video(host, folders, graph, size, picture):
    found = latents(host, graph(picture))
    assert torch.isfinite(found).all()
    if picture == "dot.png":  # square as far as the sizes of this small area go
        assert tuple(found.shape[-2:]) == size


def broken():
    def no_image():
        graph = i2v_graph()
        del graph["image"]["inputs"]["start_image"]
        return graph

    def wrong_vae():
        graph = i2v_graph()
        graph["vae"]["inputs"]["vae_name"] = f"{TI2V}/Wan2.2_VAE.pth"
        return graph

    def wrong_vae_for_ti2v():
        graph = ti2v_graph("start.png")
        graph["vae"]["inputs"]["vae_name"] = f"{I2V}Wan2.1_VAE.pth"
        return graph

    def wrong_decoder():
        graph = ti2v_graph()
        graph["other"] = node("WanVAELoader", vae_name=f"{I2V}Wan2.1_VAE.pth")
        graph["pixels"] = node("WanVAEDecode", samples=("sample", 0), vae=("other", 0))
        graph["preview"] = node("PreviewImage", images=("pixels", 0))
        return graph

    def image_for_t2v():
        graph = i2v_graph()
        for expert in ("high", "low"):
            graph[expert] = base_graph()[expert]
        return graph

    def latent_of_the_5b():
        graph = ti2v_graph()
        graph["high"] = base_graph()["high"]
        return graph

    def no_conditioning():
        graph = i2v_graph()
        graph["sample"]["inputs"] |= {"positive": ["text", 0], "negative": ["text", 1]}
        return graph

    return [
        pytest.param(
            no_conditioning, "image-to-video model, and its conditioning holds no image", id="plain text"
        ),
        pytest.param(no_image, "no start_image is connected", id="no image"),
        pytest.param(
            wrong_vae, "needs a VAE of 16 latent channels, and the connected one has 48", id="2.2 VAE"
        ),
        pytest.param(
            wrong_vae_for_ti2v,
            "needs a VAE of 48 latent channels, and the connected one has 16",
            id="2.1 VAE",
        ),
        pytest.param(wrong_decoder, "they belong to different models", id="5B latent into the 2.1 VAE"),
        pytest.param(image_for_t2v, "text-to-video model does not look at it", id="image for T2V"),
        pytest.param(
            latent_of_the_5b,
            "the latent has 48 channels and the model works on 16",
            id="5B latent, 14B model",
        ),
        pytest.param(lambda: i2v_graph(frames=0), "frames", id="0 frames"),
        pytest.param(lambda: i2v_graph(frames=8), "frames 8 is not 4n", id="8 frames"),
        pytest.param(
            lambda: i2v_graph(fit="exact", width=70), "width 70 is not a multiple of 16", id="width 70"
        ),
    ]


@pytest.mark.parametrize(("graph", "message"), broken())
def test_what_cannot_work_says_why(host, folders, graph, message):
    with pytest.raises(HostError, match=message):
        host.run(graph())
