"""Long videos in the real host: each clip against standard nodes or the pure models, going on after Cancel, films."""

import io
import re
import shutil

import av
import numpy as np
import pytest
import torch
from forked import run_script
from graphs import base_graph, node, sampler
from long_videos import check_prompts_of_clips, clips_of
from PIL import Image
from safetensors.torch import load_file
from tests_support import rel_l2

from demo.tiny_release import write_release
from devhost.errors import HostError
from wan_models import load_dit, load_text_encoder, load_vae
from wan_models.images.colour import Colours, recoloured
from wan_models.images.conditioning import mask_channels
from wan_models.images.resize import resize
from wan_models.sampling.denoise import Experts, SamplingSettings, denoise
from wan_models.vae import wan21

I2V, T2V = "wan/I2V-A14B/", "wan/T2V-A14B/"
SIZE, FRAMES, STEPS, SEED = 32, 9, 2, 7
SETTINGS = {
    "preset": "custom",
    "steps": STEPS,
    "shift": 5.0,
    "cfg_high": 3.0,
    "cfg_low": 4.0,
    "boundary": 0.9,
}
PROMPT = "two cats surf in the evening sun"


@pytest.fixture(scope="module")
def folder(base):
    write_release(base / "models" / "wan" / "I2V-A14B", seed=20, name="I2V-A14B")
    (base / "input").mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(4)
    for name, shape in (("first.png", (SIZE, SIZE, 3)), ("last.png", (50, 40, 3))):
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        Image.fromarray(pixels.numpy()).save(base / "input" / name)
    return base


def graph(release=I2V, reference="first.png", end=None, **inputs):
    """WanLongVideo over our loaders, which keeps its clips and writes no film."""
    out = base_graph(PROMPT)
    del out["latent"]
    for expert in ("high", "low"):
        out[expert] = node("WanDiTLoader", model_name=f"{release}{expert}_noise_model")
    out["vae"] = node("WanVAELoader", vae_name=f"{T2V}Wan2.1_VAE.pth")
    for name, file in (("reference_image", reference), ("end_image", end)):
        if file:
            out[name] = node("LoadImage", image=file)
            inputs[name] = (name, 0)
    plain = {
        "width": SIZE, "height": SIZE, "clips": 2, "seconds": 0.0, "frames_per_clip": FRAMES, "mode": "last frames",
        "overlap_latents": 1, "colour_match": "off", "seed": SEED, "output": "frames", "filename_prefix": "video/long",
    }  # fmt: skip
    out["video"] = node(
        "WanLongVideo", model_high=("high", 0), model_low=("low", 0), positive=("text", 0), negative=("text", 1),
        vae=("vae", 0), **(plain | SETTINGS | inputs),
    )  # fmt: skip
    return out


def made(host, folder, name, **inputs):
    """A run with a checkpoint folder: its clips, and what the node says of it."""
    entry = host.run(graph(checkpoint_folder=name, **inputs))
    return clips_of(folder, name), entry["outputs"]["video"]["text"][0]


@pytest.fixture(scope="module")
def plain(host, folder):
    return made(host, folder, "long-plain", overlap_latents=2)


def by_hand(host, folder, end=None, past=None, release=I2V, seed=SEED, **settings):
    """A clip by Wan Image to Video (or Wan Empty Latent), Wan MoE Sampler and Wan VAE Decode: its frames."""
    out = graph(release, end=end)
    settings = {k: v for k, v in (SETTINGS | settings).items() if k != "preset"}
    image = {"width": SIZE, "height": SIZE, "frames": FRAMES}
    del out["video"]
    start = ("reference_image", 0)
    if past is not None:  # the last frames of the clip before, by their number
        out["before"] = node("WanI2VCondition", **image, vae=("vae", 0), positive=("text", 0), negative=("text", 1),
                             start_image=start)  # fmt: skip
        out["made"] = sampler(seed - 1, latent=("before", 2), **settings)
        out["made"]["inputs"] |= {"positive": ["before", 0], "negative": ["before", 1]}
        out["seen"] = node("WanVAEDecode", samples=("made", 0), vae=("vae", 0))
        out["tail"] = node("ImageFromBatch", image=("seen", 0), batch_index=FRAMES - past, length=past)
        start, image = ("tail", 0), image | {"fit": "exact"}
    given = {"end_image": ("end_image", 0)} if end else {}
    out["clip"] = node("WanI2VCondition", **image, vae=("vae", 0), positive=("text", 0), negative=("text", 1),
                       start_image=start, **given)  # fmt: skip
    out["sample"] = sampler(seed, latent=("clip", 2), **settings)
    out["sample"]["inputs"] |= {"positive": ["clip", 0], "negative": ["clip", 1]}
    if release == T2V:
        out["empty"] = node("WanEmptyLatent", **image)
        out["sample"]["inputs"] |= {
            "positive": ["text", 0],
            "negative": ["text", 1],
            "latent_image": ["empty", 0],
        }
        del out["clip"]
    out["frames"] = node("WanVAEDecode", samples=("sample", 0), vae=("vae", 0))
    out["save"] = node("SaveTensor", images=("frames", 0), name="by_hand")
    host.run(out)
    return load_file(folder / "output" / "by_hand.safetensors")["images"]


def test_clips_are_those_of_the_standard_nodes_to_the_bit(host, folder, plain):
    clips, text = plain
    assert text == "13 frames in 2 clips of 9, 0.81 s"
    assert torch.equal(clips[0], by_hand(host, folder))
    assert torch.equal(clips[1], by_hand(host, folder, past=5, seed=SEED + 1)[5:])
    ended, _ = made(host, folder, "ended", overlap_latents=1, end="last.png")
    assert torch.equal(ended[0], clips[0])
    assert torch.equal(ended[1], by_hand(host, folder, past=1, end="last.png", seed=SEED + 1)[1:])


def test_a_base_model_takes_the_first_steps_of_each_clip(host, folder):
    """As the third phase of Wan MoE Sampler, to the bit; a run with another one does not go on."""
    phase = {"steps": 4, "model_base": ("low", 0), "base_steps": 1, "base_cfg": 2.0}
    clips, _ = made(host, folder, "long-base", **phase)
    assert torch.equal(clips[0], by_hand(host, folder, **phase))
    assert torch.equal(clips[1], by_hand(host, folder, past=1, seed=SEED + 1, **phase)[1:])
    for other, what in (
        ({"base_cfg": 3.0}, "base_cfg"),
        ({"model_base": ("high", 0)}, "the file of the model, base"),
    ):
        with pytest.raises(HostError, match=f"what differs is {what}"):
            made(host, folder, "long-base", **(phase | other))


@torch.no_grad()
def test_with_svi_latents_go_on_from_clip_to_clip(host, folder):
    """Against the pure models: the reference, the last latents of the clip before, and zeros; one frame is known."""
    clips, text = made(host, folder, "svi", mode="SVI 2.0 Pro", clips=3)
    assert text.startswith("17 frames in 3 clips of 9, 1.06 s. A model has no LoRA")
    release, texts = folder / "models" / "wan" / "I2V-A14B", folder / "models" / "wan" / "T2V-A14B"
    encode = load_text_encoder(texts / "models_t5_umt5-xxl-enc-bf16.pth", dtype=torch.float32)
    positive, negative = ({"context": encode(text)} for text in (PROMPT, "blurry"))
    high, low = (load_dit(release / f"{expert}_noise_model") for expert in ("high", "low"))
    vae = load_vae(texts / "Wan2.1_VAE.pth")
    with Image.open(folder / "input" / "first.png") as picture:
        pixels = torch.tensor(list(picture.getdata()), dtype=torch.float32).view(1, SIZE, SIZE, 3) / 255
    reference = wan21.normalize(vae.encode(resize(pixels, SIZE, SIZE).movedim(-1, 0)[None] * 2 - 1))
    mask = mask_channels(torch.arange(FRAMES) == 0, SIZE // 8, SIZE // 8)[None]
    settings, before = SamplingSettings(STEPS, 5.0, (4.0, 3.0), "unipc", 0.9), []
    for index, found in enumerate(clips):
        y = torch.zeros(1, 16, 3, SIZE // 8, SIZE // 8)
        y[:, :, :1] = reference
        if before:
            y[:, :, 1:2] = before[-1][:, :, -1:]
        noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(SEED + index))
        z = denoise(Experts(low, high), noise, positive, negative, settings, y=torch.cat([mask, y], dim=1))
        before.append(z)
        frames = (vae.decode(wan21.denormalize(z))[0].movedim(0, -1) + 1) / 2
        assert rel_l2(found, frames[5:] if index else frames) < 1e-4, index
        kept = load_file(folder / "output" / "svi" / f"clip_{index:04}.safetensors")["latents"]
        assert rel_l2(wan21.normalize(kept), z[:, :, -1:]) < 1e-4


@pytest.mark.parametrize("mode", ["last frames", "SVI 2.0 Pro"])
def test_a_cancelled_run_goes_on_to_the_same_file(host, folder, mode):
    options = {"mode": mode, "clips": 4, "frames_per_clip": 9, "colour_match": "to clip 1", "output": "film"}

    def cancel(kind, data):
        if (
            kind == "progress" and data["node"] == "video" and data["value"] == 3 * STEPS + 1
        ):  # in the fourth clip
            host.interrupt()

    part = graph(checkpoint_folder="long-part", **options)
    films = folder / "output" / "video"
    there = set(films.glob("*")) if films.exists() else set()
    with pytest.raises(HostError, match="interrupted"):
        host.run(part, cancel)
    assert len(clips_of(folder, "long-part")) == 3
    assert (set(films.glob("*")) if films.exists() else set()) == there  # no part of a film is left
    entry = host.run(part)
    gone_on = clips_of(folder, "long-part")
    assert "3 clips were there already" in entry["outputs"]["video"]["text"][0]
    shutil.rmtree(folder / "output" / "long-part")
    host.free()
    again = host.run(part)
    whole = clips_of(folder, "long-part")
    assert len(whole) == 4 and all(torch.equal(a, b) for a, b in zip(whole, gone_on, strict=True))
    (one,), (other,) = (host.outputs(run) for run in (entry, again))
    assert one != other and one.read_bytes() == other.read_bytes()
    with pytest.raises(HostError, match=r"what differs is overlap_latents \(1 then, 0 now\)"):
        host.run(graph(checkpoint_folder="long-part", **(options | {"overlap_latents": 0})))
    shutil.rmtree(folder / "output" / "long-part")


def test_each_clip_has_its_prompt_and_an_end_image_is_the_last_ones(host, folder):
    check_prompts_of_clips(host, folder, graph(steps=1, cfg_high=1.0, cfg_low=1.0, clips=3), "prompts_long")
    few = {"steps": 1, "cfg_high": 1.0, "cfg_low": 1.0}
    first, _ = made(host, folder, "long-grows", clips=2, end="last.png", **few)
    longer, text = made(host, folder, "long-grows", clips=3, end="last.png", **few)
    assert text.endswith("; 1 clip was there already")  # the second one ended with the picture
    assert torch.equal(first[0], longer[0]) and not torch.equal(first[1], longer[1])
    assert torch.equal(longer[1], made(host, folder, "no_end", clips=2, **few)[0][1])


def test_text_to_video_goes_on_from_the_frames_before(host, folder):
    clips, text = made(host, folder, "text", release=T2V, reference=None, overlap_latents=2)
    assert text == "13 frames in 2 clips of 9, 0.81 s"
    assert torch.equal(clips[0], by_hand(host, folder, release=T2V))
    alone = by_hand(host, folder, release=T2V, seed=SEED + 1)
    assert rel_l2(clips[1], alone[5:]) > 1e-2
    # the first frame that is given is in the video as the VAE has it
    shown, _ = made(host, folder, "shown", release=T2V, clips=1)
    vae = load_vae(folder / "models" / "wan" / "T2V-A14B" / "Wan2.1_VAE.pth")
    with Image.open(folder / "input" / "first.png") as picture:
        pixels = torch.tensor(list(picture.getdata()), dtype=torch.float32).view(1, SIZE, SIZE, 3) / 255
    with torch.no_grad():
        seen = vae.decode(vae.encode(pixels.movedim(-1, 0)[None] * 2 - 1))[0].movedim(0, -1)
    assert rel_l2(shown[0][:1], (seen + 1) / 2) < 1e-4


def test_colours_follow_the_frames_that_two_clips_share_or_the_first_clip(host, folder, plain):
    (first, second), (_, matched) = (
        plain[0],
        made(host, folder, "matched", overlap_latents=2, colour_match="mean-std")[0],
    )
    repeated = by_hand(host, folder, past=5, seed=SEED + 1)[:5]
    assert torch.equal(matched, recoloured(second, Colours.of(repeated), Colours.of(first[-5:])))
    _, as_first = made(host, folder, "as_first", overlap_latents=2, colour_match="to clip 1")[0]
    assert torch.equal(as_first, recoloured(second, Colours.of(second), Colours.of(first)))


def test_seconds_make_as_many_clips_as_they_need(host, folder):
    few = {"steps": 1, "clips": 0, "cfg_high": 1.0, "cfg_low": 1.0}
    for seconds, text in (
        (0.5, "8 frames in 1 clip"),
        (1.0, "16 frames in 2 clips"),
        (1.1, "18 frames in 3 clips"),
    ):
        assert made(host, folder, "seconds", seconds=seconds, **few)[1].startswith(text)
    assert made(host, folder, "ends", seconds=1.1, end="last.png", **few)[1].startswith(
        "25 frames in 3 clips"
    )


def frames_of(file):
    with av.open(file if isinstance(file, io.BytesIO) else str(file)) as film:
        assert float(film.streams.video[0].average_rate) == 16
        return [frame.to_ndarray(format="yuv420p") for frame in film.decode(video=0)]


def colours_of(file):
    """How a film says that its colours are to be read."""
    with av.open(str(file)) as film:
        context = film.streams.video[0].codec_context
        return context.colorspace, context.color_primaries, context.color_trc, context.color_range


def test_a_film_is_the_same_file_for_the_same_frames(comfyui, tmp_path):
    """Whatever is in the memory that the codec takes."""
    assert len({*run_script("film_script.py", comfyui, tmp_path)}) == 1


def encoded(images, colours):
    """Frames as the host's Save Video encodes them, by a codec that repeats itself; decoded again."""
    matrix = 1 if colours[0] == 1 else None  # BT.709, as newer hosts write
    file = io.BytesIO()
    options = {"x264-params": "asm=AVX2"} if "AVX512" in torch.backends.cpu.get_cpu_capability() else {}
    with av.open(file, "w", format="mp4") as film:
        stream = film.add_stream("h264", rate=16, options=options)
        stream.height, stream.width, stream.pix_fmt = *images.shape[1:3], "yuv420p"
        for image in images:
            pixels = (image * 255).clamp(0, 255).byte().numpy()
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            film.mux(stream.encode(picture.reformat(format="yuv420p", dst_colorspace=matrix)))
        film.mux(stream.encode())
    return np.stack(frames_of(io.BytesIO(file.getvalue())))


def test_a_film_is_that_of_the_frames_and_both_go_on(host, folder):
    few = {"steps": 1, "cfg_high": 1.0, "cfg_low": 1.0}
    out = graph(output="film and frames", **few)
    out["made"] = node("CreateVideo", images=("video", 0), fps=16)
    save = {"format": "auto", "codec": "auto"}
    out["theirs"] = node("SaveVideo", video=("made", 0), filename_prefix="video/theirs", **save)
    out["ours"] = node("SaveVideo", video=("video", 1), filename_prefix="video/ours", **save)
    out["keep"] = node("SaveTensor", images=("video", 0), name="filmed")
    files = {file.name.rsplit("_", 2)[0]: file for file in host.outputs(host.run(out))}
    film, theirs, ours = (np.stack(frames_of(files[name])) for name in ("long", "theirs", "ours"))
    assert film.shape == theirs.shape and len(film) == 17
    assert (film == ours).all()
    images = load_file(folder / "output" / "filmed.safetensors")["images"]
    (colours,) = {colours_of(file) for file in files.values()}
    assert (film == encoded(images, colours)).all()
    # the host's own codec differs from run to run where a processor has AVX-512
    assert rel_l2(*(torch.from_numpy(frames).double() for frames in (film, theirs))) < 0.05
    with av.open(str(files["long"])) as film:  # the page opens it as its workflow
        assert '"WanLongVideo"' in film.metadata["prompt"]
    alone = graph(output="film", **few)
    (file,) = host.outputs(host.run(alone))
    assert len(frames_of(file)) == 17
    alone["save"] = node("SaveTensor", images=("video", 0), name="none")
    said = []
    host.run(alone, lambda kind, data: kind == "execution_error" and said.append(data["exception_message"]))
    assert len(said) == 1 and "made a film alone: set output to" in said[0]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"reference": None}, "no reference_image is connected, and image-to-video models"),
        ({"release": T2V, "mode": "SVI 2.0 Pro"}, "the SVI LoRAs are for image-to-video models"),
        ({"release": T2V, "end": "last.png"}, "a text-to-video model cannot end with a picture"),
        ({"release": T2V, "overlap_latents": 0}, "would be a video of its own"),
        ({"overlap_latents": 0, "colour_match": "mean-std"}, "they share none"),
        ({"overlap_latents": 3}, "bring nothing new where 9 of them repeat"),
        ({"overlap_latents": 2, "mode": "SVI 2.0 Pro"}, "bring nothing new where 9 of them repeat"),
        ({"clips": 0}, "clips and seconds are both 0"),
        ({"clips": ("wire", 0)}, "clips must be 0 to 10000, not -2"),
        ({"overlap_latents": ("wire", 0)}, "overlap_latents must be 0 to 4, not -2"),
        (
            {"checkpoint_folder": "../elsewhere"},
            r"checkpoint_folder '\.\./elsewhere' lies outside the output folder",
        ),
        ({"frames_per_clip": 10}, "frames_per_clip 10 is not 4n"),
        ({"fit": "exact", "width": 40}, "width 40 is not a multiple of 16"),
        ({"output": "film", "filename_prefix": "../elsewhere"}, "is no name in the output folder"),
        ({"base_steps": 1}, "base_steps is 1, and no model_base is connected"),
        ({"low": "other"}, "the two models do not belong together"),
    ],
)
def test_what_cannot_work_says_why(host, folder, inputs, message):
    out = graph(**{name: value for name, value in inputs.items() if name != "low"})
    out["video"]["inputs"]["model_low"] = [inputs.get("low", "low"), 0]
    out["other"] = node("WanDiTLoader", model_name=f"{T2V}low_noise_model")
    out["wire"] = node("PrimitiveInt", value=-2)  # hosts do not look at ranges of what comes over one
    with pytest.raises(HostError, match=message):
        host.run(out)


def test_overlap_0_begins_each_clip_with_the_reference(host, folder):
    few = {"steps": 1, "cfg_high": 1.0, "cfg_low": 1.0}
    clips, text = made(host, folder, "anew", overlap_latents=0, **few)
    assert text.startswith("18 frames in 2 clips") and re.search(r"1\.1[23] s", text)
    assert rel_l2(clips[0], clips[1]) > 1e-3  # of another seed
    assert torch.equal(clips[1], made(host, folder, "seed", clips=1, **(few | {"seed": SEED + 1}))[0][0])
