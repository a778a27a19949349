"""Animate-2 in the real host: numbers, exact lengths, going on after Cancel, clips by hand, the host's own nodes."""

from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from graphs import base_graph, latents, node
from long_videos import (
    by_hand,
    check_going_on,
    check_prompts_of_clips,
    check_the_next_clip,
    clips_of,
    film_length,
)
from PIL import Image
from safetensors.torch import save_file
from tests_media import write_video
from tests_support import rel_l2

from demo.tiny_release import DITS, write_dit, write_image_tower, write_release
from devhost.errors import HostError
from wan_models import Animate2, load_dit, load_image_encoder, load_text_encoder, load_vae
from wan_models.checkpoints.reader import open_model
from wan_models.config import CLIPConfig
from wan_models.dit.animate2 import WanAnimate2Model
from wan_models.pipelines.base import Models
from wan_models.random_weights import random_state_dict
from wan_models.sampling.clips import animate_clip_count

RELEASE = "wan/Animate-2-14B"
CLIP_FILE = f"{RELEASE}/models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
WIDTH, HEIGHT, FRAMES, SEED, STEPS = 64, 48, 12, 3, 3
CONFIG = replace(DITS["Animate-2-14B"], num_layers=10)  # so that there is a block to leave out
SETTINGS = {"preset": "custom", "steps": STEPS, "shift": 5.0, "cfg": 3.0, "sampler": "wan dpm++"}
PLAIN = "unnamed.safetensors"
PROMPT = "two cats surf in the evening sun"


@pytest.fixture(scope="module")
def folder(base):
    release = write_release(base / "models" / "wan" / "Animate-2-14B", seed=50, name="Animate-2-14B")
    for file in release.glob("diffusion_pytorch_model*"):
        file.unlink()
    write_dit(release, 51, 1, CONFIG)
    state = dict(open_model(release))
    models = base / "models" / "diffusion_models"
    save_file(state, models / PLAIN)
    save_file(state, models / "wan_animate_2_distill.safetensors")
    inputs = base / "input"
    inputs.mkdir(exist_ok=True)
    write_video(inputs / "driving.mp4", FRAMES, (WIDTH, HEIGHT), seed=1)
    write_video(inputs / "wide.mp4", 5, (90, 40), seed=2)
    write_video(inputs / "long_driving.mp4", 161, (32, 32))
    pixels = np.random.default_rng(9).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(inputs / "hero.png")
    Image.fromarray(pixels[:, :50]).save(inputs / "odd_hero.png")
    return base


def graph(driving="driving.mp4", model=RELEASE, kind="auto", save_as="animate2", **inputs):
    """WanAnimate2 over our loaders."""
    out = base_graph()
    for name in ("low", "latent"):
        del out[name]
    out["high"] = node("WanDiTLoader", model_name=model, kind=kind)
    out["vae"] = node("WanVAELoader", vae_name=f"{RELEASE}/Wan2.1_VAE.pth")
    out["clip"] = node("WanCLIPVisionLoader", clip_name=CLIP_FILE)
    out["hero"] = node("LoadImage", image="hero.png")
    size = {"width": WIDTH, "height": HEIGHT, "fit": "original"}
    out["driving"] = node("WanLoadVideo", file=driving, fps=0.0, start=0.0, length=0, **size)
    scene = {
        "positive": ("text", 0), "negative": ("text", 1), "vae": ("vae", 0), "clip_vision": ("clip", 0),
        "reference_image": ("hero", 0), "driving_video": ("driving", 0), "width": WIDTH, "height": HEIGHT,
    }  # fmt: skip
    clip = {"frames_per_clip": 5, "seed": SEED}
    out["video"] = node("WanAnimate2", model=("high", 0), **(scene | clip | SETTINGS | inputs))
    out["film"] = node("CreateVideo", images=("video", 0), fps=24)
    out["save"] = node(
        "SaveVideo", video=("film", 0), filename_prefix=f"video/{save_as}", format="auto", codec="auto"
    )
    return out


def watched(host, folder, name, **inputs):
    """A run that keeps its clips: its entry, and the clips."""
    entry = host.run(graph(checkpoint_folder=name, **inputs))
    return entry, clips_of(folder, name)


@pytest.fixture(scope="module")
def whole(host, folder):
    return watched(host, folder, "animate2_whole")


def pure(folder):
    """The same video in plain PyTorch: the new frames of each clip."""
    release, text = (folder / "models" / "wan" / name for name in ("Animate-2-14B", "T2V-A14B"))
    models = Models(
        load_dit(release), load_vae(release / "Wan2.1_VAE.pth"),
        load_text_encoder(text / "models_t5_umt5-xxl-enc-bf16.pth", dtype=torch.float32),
        image_encoder=load_image_encoder(folder / "models" / CLIP_FILE, dtype=torch.float32),
    )  # fmt: skip
    pipeline = Animate2(models)
    settings = replace(
        pipeline.settings, width=WIDTH, height=HEIGHT, frames=5, steps=STEPS, guidance=(3.0, 3.0), seed=SEED,
        negative_prompt="blurry",
    )  # fmt: skip
    with av.open(str(folder / "input" / "driving.mp4")) as film:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)])
    hero = np.array(Image.open(folder / "input" / "hero.png"))
    pictures = (torch.from_numpy(pixels).float() / 255 for pixels in (hero, frames))
    return list(pipeline.clips(PROMPT, *pictures, settings, driving_prompt=PROMPT))


def test_video_equals_the_pure_pipeline_and_is_as_long_as_the_driving_one(host, folder, whole):
    entry, made = whole
    expected = pure(folder)
    assert len(made) == animate_clip_count(FRAMES, 5, 1) == 3
    assert rel_l2(torch.cat(made), torch.cat(expected)) < 1e-4
    assert film_length(host, entry) == FRAMES
    (text,) = entry["outputs"]["video"]["text"]
    assert text.startswith(f"{FRAMES} frames in 3 clips of 5, {FRAMES / 24:.2f} s; driving cache auto: ")


@pytest.mark.parametrize("frames", [5, 80, 81, 82, 161])
def test_length_is_the_driving_one(host, folder, frames):
    out = graph(driving="long_driving.mp4", frames_per_clip=81, steps=1, cfg=1.0, width=32, height=32)
    out["driving"]["inputs"]["length"] = frames
    assert film_length(host, host.run(out)) == frames


def test_a_cancelled_run_goes_on_with_the_same_result(host, folder, whole):
    check_going_on(host, folder, graph(checkpoint_folder="animate2_part"), STEPS, whole[1])
    for changed in ({"pose_strength": 0.5}, {"driving_cache": "ram int8"}, {"kind": "animate2 distilled"}):
        with pytest.raises(HostError, match="holds the clips of a run with other inputs or settings"):
            host.run(graph(checkpoint_folder="animate2_part", **changed))


def test_where_keys_are_kept_changes_nothing(host, folder, whole):
    for place in ("off", "gpu", "ram", "ram int8"):
        _, made = watched(host, folder, f"animate2_{place.replace(' ', '_')}", driving_cache=place)
        error = rel_l2(torch.cat(made), torch.cat(whole[1]))
        assert error < (1e-2 if "int8" in place else 1e-6), place


def one_clip(**condition):
    """One clip through WanAnimate2Condition and WanMoESampler, saved as latents."""
    return by_hand(graph(), "WanAnimate2Condition", SEED, SETTINGS, **condition)


def test_one_clip_by_hand_is_the_first_clip_of_the_whole(host, folder, whole):
    found = latents(host, one_clip())
    vae = load_vae(folder / "models" / RELEASE / "Wan2.1_VAE.pth")
    with torch.no_grad():
        frames = (vae.decode(found[:, :, 1:])[0].movedim(0, -1) + 1) / 2
    assert rel_l2(frames, whole[1][0]) < 1e-4
    # without the driving video in some of the steps, and muted
    for changed in (
        {"end_percent": 0.5},
        {"start_percent": 0.9},
        {"pose_strength": 0.0},
        {"reference_strength": 0.5},
    ):
        assert rel_l2(latents(host, one_clip(**changed)), found) > 1e-3, changed


def test_the_next_clip_by_hand_begins_with_the_carried_frame(host, folder):
    check_the_next_clip(host, one_clip, fps=24)


def hosts_node(**inputs):
    """The same clip through the host's node."""
    out = one_clip()
    out["seen"] = node("CLIPVisionEncode", clip_vision=("clip", 0), image=("hero", 0), crop="none")
    out["first"] = node("ImageFromBatch", image=("driving", 0), batch_index=0, length=1)
    out["seen too"] = node("CLIPVisionEncode", clip_vision=("clip", 0), image=("first", 0), crop="none")
    out["one"] = node(
        "WanAnimate2ToVideo", positive=("text", 0), negative=("text", 1), vae=("vae", 0), width=WIDTH, height=HEIGHT,
        length=5, batch_size=1, clip_vision_output=("seen", 0), reference_image=("hero", 0),
        pose_video=("driving", 0), clip_vision_output_pose=("seen too", 0), video_frame_offset=0, pose_strength=1.0,
        pose_start_percent=0.0, pose_end_percent=1.0, reference_image_strength=1.0, **inputs,
    )  # fmt: skip
    return out


@pytest.fixture
def newer(host):
    """Skips on a host that does not know Animate-2."""
    if "WanAnimate2ToVideo" not in host.get("/object_info"):
        pytest.skip("this host has no WanAnimate2ToVideo")


@pytest.mark.usefixtures("newer")
def test_the_hosts_own_nodes_drive_our_model(host, folder):
    expected = latents(host, one_clip())
    out = hosts_node()
    assert rel_l2(latents(host, out), expected) < 1e-5
    for dtype in ("default", "int8"):
        out["cached"] = node("WanAnimate2Cache", model=("high", 0), device="cpu", dtype=dtype)
        out["sample"]["inputs"]["model_high"] = ["cached", 0]
        assert rel_l2(latents(host, out), expected) < (1e-5 if dtype == "default" else 1e-2)


@pytest.mark.usefixtures("newer")
def test_the_hosts_model_runs_under_our_nodes(host, folder):
    """At CFG 1, for it runs the block that the official code leaves out without the prompt; at noise levels whose
    timesteps are whole, for it is given fractions too. As wide as it looks for."""
    models = folder / "models"
    state = random_state_dict(lambda: WanAnimate2Model(replace(CONFIG, image_dim=1280)), 53)
    about = {"config": '{"transformer": {"model_type": "animate2"}}'}
    save_file(state, models / "diffusion_models" / "host.safetensors", about)
    tower = CLIPConfig(dim=1280, mlp_dim=64, num_layers=2, out_dim=64)
    write_image_tower(models / "wan" / "animate2_wide.pth", 52, tower)
    ours, theirs, video = one_clip(), one_clip(), graph(cfg=1.0)
    ours["high"]["inputs"] |= {"model_name": "host.safetensors", "kind": "animate2"}
    for one in (ours, theirs, video):
        one["clip"]["inputs"]["clip_name"] = "wan/animate2_wide.pth"
    theirs["high"] = node("UNETLoader", unet_name="host.safetensors", weight_dtype="default")
    for one in (ours, theirs):
        one["sample"]["inputs"] |= {"cfg_high": 1.0, "steps": 2, "shift": 1.0}
    assert rel_l2(latents(host, theirs), latents(host, ours)) < 1e-3
    video["high"] = theirs["high"]
    assert film_length(host, host.run(video)) == FRAMES


def test_kinds(host, folder, whole):
    """A file that says nothing is taken for what the loader is told; the distilled one has a bias."""
    plain = watched(host, folder, "animate2_told", model=PLAIN, kind="animate2")[1]
    assert all(torch.equal(a, b) for a, b in zip(plain, whole[1], strict=True))
    told = watched(host, folder, "animate2_distilled", model=PLAIN, kind="animate2 distilled", cfg=1.0)[1]
    named = watched(host, folder, "animate2_named", model="wan_animate_2_distill.safetensors", cfg=1.0)[1]
    assert all(torch.equal(a, b) for a, b in zip(told, named, strict=True))
    base = watched(host, folder, "animate2_base", model=PLAIN, kind="animate2", cfg=1.0)[1]
    assert rel_l2(told[0], base[0]) > 1e-3
    info = node(
        "WanModelInfo", file_name="wan_animate_2_distill.safetensors", width=832, height=480, frames=81
    )
    (text,) = host.run({"info": info})["outputs"]["info"]["text"]
    assert "character animation from a raw video" in text and "distilled" in text


def test_a_reference_of_another_aspect_is_letterboxed(host, folder):
    out = graph(driving="wide.mp4", steps=1, cfg=1.0)
    out["hero"]["inputs"]["image"] = "odd_hero.png"
    entry = host.run(out)
    (film,) = [f for f in host.outputs(entry) if f.suffix == ".mp4"]
    with av.open(str(film)) as opened:
        stream = opened.streams.video[0]
        assert (stream.width % 2, stream.height % 2) == (0, 0)
        assert abs(stream.width / stream.height - 50 / 48) < 0.1


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (
            {"model": PLAIN},
            r"needs Animate-2-14B; the connected model is an image-to-video model.*kind animate2",
        ),
        ({"model": "wan/T2V-A14B/high_noise_model", "kind": "animate2"}, "cannot be of the kind 'animate2'"),
        ({"frames_per_clip": 7}, "7 frames per clip are not a multiple of 4 plus 1"),
        ({"start_percent": 0.7, "end_percent": 0.2}, r"start_percent 0.7 is after end_percent 0.2"),
        ({"start_percent": 0.5, "end_percent": 0.5}, r"start_percent 0.5 is the same as end_percent 0.5"),
        ({"pose_strength": ("wire", 0)}, "pose_strength must be 0 to 10, not -2"),
        ({"end_percent": ("wire", 0)}, "end_percent must be 0 to 1, not -2"),
    ],
)
def test_bad_input_is_told_before_sampling(host, folder, changed, says):
    with pytest.raises(HostError, match=says):
        # hosts do not look at ranges of what comes over a wire
        host.run(graph(**changed) | {"wire": node("PrimitiveFloat", value=-2.0)})


def test_each_clip_has_its_prompt(host, folder):
    check_prompts_of_clips(host, folder, graph(steps=1, cfg=1.0), "prompts_animate2")


def test_the_driving_video_of_each_clip_has_its_prompt(host, folder):
    """One that changes has its clip, and those after it, made again; the first one is the run's own."""
    out = graph(steps=1, cfg=1.0, checkpoint_folder="driving_prompts", driving_prompt=("driven", 0))

    def run(prompts):
        out["driven"] = node("WanPrompts", clip=("t5", 0), prompts=prompts, negative="")
        (text,) = host.run(out)["outputs"]["video"]["text"]
        return text, clips_of(folder, "driving_prompts")

    _, first = run("a dance | a jump")
    text, second = run("a dance | a walk | a jump")
    assert "; 1 clip was there already" in text
    assert [torch.equal(a, b) for a, b in zip(first, second, strict=True)] == [True, False, False]
    with pytest.raises(HostError, match="what differs is driving_prompt: set"):
        run("a jump")
