"""A character animated in the real host: numbers, exact lengths, going on after Cancel, one clip by hand, bad input."""

from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from graphs import base_graph, context_windows, latents, node, window_inputs
from long_videos import (
    by_hand,
    check_going_on,
    check_prompts_of_clips,
    check_the_next_clip,
    clips_of,
    film_length,
)
from PIL import Image
from safetensors.torch import load_file, save_file
from tests_media import write_video
from tests_support import rel_l2

from demo.tiny_release import DITS, write_image_tower, write_release
from devhost.errors import HostError
from wan_models import Animate, DrivingVideos, load_dit, load_image_encoder, load_text_encoder, load_vae
from wan_models.checkpoints.reader import open_model
from wan_models.config import CLIPConfig, FaceConfig
from wan_models.dit.animate import WanAnimateModel
from wan_models.pipelines.base import Models
from wan_models.random_weights import random_state_dict
from wan_models.sampling.clips import animate_clip_count

RELEASE = "wan/Animate-14B"
CLIP_FILE = f"{RELEASE}/models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
WIDTH, HEIGHT, FRAMES, SEED = 64, 48, 14, 3
STEPS = 3
SETTINGS = {"preset": "custom", "steps": STEPS, "shift": 5.0, "cfg": 3.0, "sampler": "wan dpm++"}


@pytest.fixture(scope="module")
def folder(base):
    write_release(base / "models" / "wan" / "Animate-14B", seed=40, name="Animate-14B")
    inputs = base / "input"
    inputs.mkdir(exist_ok=True)
    for seed, name in enumerate(("pose", "background", "subject")):
        write_video(inputs / f"{name}.mp4", FRAMES, (WIDTH, HEIGHT), seed=seed)
    write_video(inputs / "odd.mp4", FRAMES, (70, 50))
    write_video(inputs / "face.mp4", FRAMES, (512, 512), seed=4, grain=16)
    write_video(inputs / "short.mp4", 4, (WIDTH, HEIGHT))
    write_video(inputs / "long.mp4", 154, (32, 32))
    write_video(inputs / "nothing.mp4", 1, (WIDTH, HEIGHT))
    pixels = np.random.default_rng(9).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(inputs / "character.png")
    Image.fromarray(pixels * 0).save(inputs / "black.png")
    return base


def video(name, **inputs):
    size = {"width": WIDTH, "height": HEIGHT, "fit": "original"}
    return node("WanLoadVideo", file=name, **({"fps": 0.0, "start": 0.0, "length": 0} | size | inputs))


def graph(pose="pose.mp4", face="face.mp4", replace=False, model=RELEASE, save_as="animate", **inputs):
    """WanPoseAnimate over our loaders."""
    out = base_graph()
    for name in ("low", "latent"):
        del out[name]
    out["high"] = node("WanDiTLoader", model_name=model)
    out["vae"] = node("WanVAELoader", vae_name=f"{RELEASE}/Wan2.1_VAE.pth")
    out["clip"] = node("WanCLIPVisionLoader", clip_name=CLIP_FILE)
    out["character"] = node("LoadImage", image="character.png")
    out["pose"], out["face"] = video(pose), video(face)
    scene = {
        "positive": ("text", 0), "negative": ("text", 1), "vae": ("vae", 0), "clip_vision": ("clip", 0),
        "reference_image": ("character", 0), "pose_video": ("pose", 0), "face_video": ("face", 0),
    }  # fmt: skip
    if replace:
        out["background"], out["subject"] = video("background.mp4"), video("subject.mp4")
        out["mask"] = node("ImageToMask", image=("subject", 0), channel="red")
        scene |= {"background_video": ("background", 0), "mask": ("mask", 0)}
    clip = {"frames_per_clip": 5, "carried_frames": "1", "seed": SEED}
    out["video"] = node("WanPoseAnimate", model=("high", 0), **(scene | clip | SETTINGS | inputs))
    out["film"] = node("CreateVideo", images=("video", 0), fps=30)
    out["save"] = node(
        "SaveVideo", video=("film", 0), filename_prefix=f"video/{save_as}", format="auto", codec="auto"
    )
    return out


def frames_of(name, folder):
    with av.open(str(folder / "input" / name)) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    return torch.from_numpy(np.stack(frames)).float() / 255


def pure(folder, replace_person, per_clip, carried):
    """The same video in plain PyTorch: the new frames of each clip."""
    release, text_release = (folder / "models" / "wan" / name for name in ("Animate-14B", "T2V-A14B"))
    models = Models(
        load_dit(release),
        load_vae(release / "Wan2.1_VAE.pth"),
        load_text_encoder(text_release / "models_t5_umt5-xxl-enc-bf16.pth", dtype=torch.float32),
        image_encoder=load_image_encoder(folder / "models" / CLIP_FILE, dtype=torch.float32),
    )
    pipeline = Animate(models)
    settings = replace(
        pipeline.settings,
        frames=per_clip,
        steps=STEPS,
        guidance=(3.0, 3.0),
        seed=SEED,
        negative_prompt="blurry",
    )
    background, mask = frames_of("background.mp4", folder), frames_of("subject.mp4", folder)[..., 0]
    driving = DrivingVideos(
        pose_video=frames_of("pose.mp4", folder),
        face_video=frames_of("face.mp4", folder),
        background_video=background if replace_person else None,
        mask=mask if replace_person else None,
    )
    picture = Image.open(folder / "input" / "character.png")
    return list(
        pipeline.clips("two cats surf in the evening sun", picture, driving, settings, carried=carried)
    )


def watched(host, folder, name, **inputs):
    """A run that keeps its clips: its entry, what it told of its progress, and the clips."""
    progress = []

    def keep(kind, data):
        if kind == "progress" and data["node"] == "video":
            progress.append((data["value"], data["max"]))

    entry = host.run(graph(checkpoint_folder=name, **inputs), keep)
    return entry, progress, clips_of(folder, name)


@pytest.fixture(scope="module")
def whole(host, folder):
    """The run of the plain graph, which several tests compare theirs with."""
    return watched(host, folder, "animate_whole")


@pytest.mark.parametrize(("replace", "per_clip", "carried"), [(False, 5, 1), (True, 9, 5)])
def test_video_equals_the_pure_pipeline_and_is_as_long_as_the_driving_one(
    host, folder, whole, replace, per_clip, carried
):
    inputs = {"frames_per_clip": per_clip, "carried_frames": str(carried)}
    entry, progress, made = (
        watched(host, folder, "animate_replace", replace=True, **inputs) if replace else whole
    )
    expected = pure(folder, replace, per_clip, carried)
    clips = animate_clip_count(FRAMES, per_clip, carried)
    assert len(made) == clips >= 3 and [part.shape for part in made] == [part.shape for part in expected]
    assert rel_l2(torch.cat(made), torch.cat(expected)) < 1e-4
    assert progress == sorted(progress) and progress[-1] == (STEPS * clips, STEPS * clips)
    assert film_length(host, entry) == FRAMES
    (text,) = entry["outputs"]["video"]["text"]
    assert text == f"{FRAMES} frames in {clips} clips of {per_clip}, {carried} carried, {FRAMES / 30:.2f} s"


@pytest.mark.parametrize("frames", [5, 76, 77, 78, 153, 154])
def test_length_is_the_driving_one(host, folder, frames):
    out = graph(pose="long.mp4", face="nothing.mp4", frames_per_clip=77, steps=1, cfg=1.0)
    out["pose"]["inputs"]["length"] = frames
    assert film_length(host, host.run(out)) == frames


def test_a_cancelled_run_goes_on_with_the_same_result(host, folder, whole):
    check_going_on(host, folder, graph(checkpoint_folder="animate_part"), STEPS, whole[2])
    with pytest.raises(HostError, match="holds the clips of a run with other inputs or settings"):
        host.run(graph(checkpoint_folder="animate_part", face_strength=0.5))


def test_another_lora_patch_precision_or_file_is_another_run(host, folder):
    """The same names and strengths, other values: what differs is said, and what is set back is known again."""
    models = folder / "models"
    shapes = open_model(models / "wan" / "Animate-14B").shapes
    for seed, name in enumerate(("one", "two")):
        generator = torch.Generator().manual_seed(seed)
        lora = {}
        for block in range(2):
            key = f"blocks.{block}.self_attn.q"
            rows, columns = shapes[f"{key}.weight"]
            lora[f"diffusion_model.{key}.lora_A.weight"] = torch.randn(4, columns, generator=generator) / 16
            lora[f"diffusion_model.{key}.lora_B.weight"] = torch.randn(rows, 4, generator=generator)
        save_file(lora, models / "loras" / f"animate_{name}.safetensors")

    def run(lora="one", guided=None, picture="character.png", **nodes):
        out = graph(checkpoint_folder="identity", steps=1)
        out["lora"] = node("WanLoRA", model_high=("high", 0), lora_name=f"animate_{lora}.safetensors")
        out["guided"] = node(
            "SkipLayerGuidanceDiTSimple", model=("lora", 0), double_layers=guided or "", single_layers="",
            start_percent=0.0, end_percent=1.0,
        )  # fmt: skip
        out["video"]["inputs"]["model"] = ["guided", 0]
        out["character"]["inputs"]["image"] = picture
        for name, inputs in nodes.items():
            out[name]["inputs"] |= inputs
        return host.run(out)["outputs"]["video"]["text"][0]

    assert "there already" not in run()
    for changed, part in (
        ({"lora": "two"}, "the LoRAs of the model:"), ({"guided": "1"}, r"the patches of the model \(guidance"),
        ({"vae": {"weight_dtype": "bf16"}}, r"the precision of the VAE \(torch.float32 then"),
        ({"high": {"weight_dtype": "bf16"}}, r"the precision of the model \("),
        ({"picture": "black.png"}, "reference_image:"), ({"face": {"start": 0.2, "length": 1}}, "face_video:"),
        ({"text": {"positive": "a dog"}}, "positive:"),
    ):  # fmt: skip
        with pytest.raises(HostError, match=f"other inputs or settings, and what differs is .*{part}"):
            run(**changed)
    assert run().endswith("; 4 clips were there already")


def test_the_face_counts_as_much_as_it_should(host, folder):
    for name, strength in (("off", 0.0), ("half", 0.5), ("full", 1.0)):
        out = graph(checkpoint_folder=f"face_{name}", face_strength=strength, steps=2, cfg=1.0)
        for video in ("pose", "face"):
            out[video]["inputs"]["length"] = 5  # one clip
        host.run(out)
    off, half, full = (torch.cat(clips_of(folder, f"face_{name}")) for name in ("off", "half", "full"))
    assert 0.01 < rel_l2(half, off) < rel_l2(full, off)


def one_clip(**condition):
    """One clip through WanAnimateCondition and WanMoESampler, saved as latents."""
    return by_hand(graph(), "WanAnimateCondition", SEED, SETTINGS, **condition)


def test_one_clip_by_hand_is_the_first_clip_of_the_whole(host, folder, whole):
    expected = whole[2][0]
    found = latents(host, one_clip())
    vae = load_vae(folder / "models" / "wan" / "Animate-14B" / "Wan2.1_VAE.pth")
    with torch.no_grad():
        frames = (vae.decode(found[:, :, 1:])[0].movedim(0, -1) + 1) / 2
    assert rel_l2(frames, expected) < 1e-4


def test_the_next_clip_by_hand_begins_with_the_carried_frames(host, folder):
    check_the_next_clip(host, one_clip, fps=30)


def test_the_hosts_own_node_drives_our_model(host, folder):
    out = one_clip()
    out["seen"] = node("CLIPVisionEncode", clip_vision=("clip", 0), image=("character", 0), crop="none")
    out["one"] = node(
        "WanAnimateToVideo", positive=("text", 0), negative=("text", 1), vae=("vae", 0), width=WIDTH, height=HEIGHT,
        length=5, batch_size=1, clip_vision_output=("seen", 0), reference_image=("character", 0),
        face_video=("face", 0), pose_video=("pose", 0), continue_motion_max_frames=5, video_frame_offset=0,
    )  # fmt: skip
    # of another size it would not be fitted as the official code does it
    pixels = np.random.default_rng(9).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "input" / "sized.png")
    ours = one_clip()
    for one in (out, ours):
        one["character"]["inputs"]["image"] = "sized.png"
    expected = latents(host, ours)
    assert expected.shape == (1, 16, 3, HEIGHT // 8, WIDTH // 8)
    assert rel_l2(latents(host, out), expected) < 1e-5
    for name in ("face_video", "pose_video", "clip_vision_output", "reference_image"):  # each of them is seen
        without = {**out, "one": node("WanAnimateToVideo", **out["one"]["inputs"])}
        del without["one"]["inputs"][name]
        assert rel_l2(latents(host, without), expected) > 0.01, name  # measured: 0.03 to 0.4


def test_the_hosts_model_is_driven_by_our_node(host, folder):
    """The same weights in the host's own model, of which the face encoder has one size only."""
    models = folder / "models"
    config = replace(DITS["Animate-14B"], image_dim=1280, face=FaceConfig())
    (models / "diffusion_models").mkdir(exist_ok=True)
    state = random_state_dict(lambda: WanAnimateModel(config), 44)
    save_file(state, models / "diffusion_models" / "wan2.2_animate_tiny.safetensors")
    tower = CLIPConfig(dim=1280, mlp_dim=64, num_layers=2, num_heads=16, out_dim=32)
    write_image_tower(models / "wan" / "clip_wide.pth", 45, tower)
    out = one_clip()
    out["clip"]["inputs"]["clip_name"] = "wan/clip_wide.pth"
    out["high"]["inputs"]["model_name"] = "wan2.2_animate_tiny.safetensors"
    out["sigmas"] = node("WanSigmas", solver="dpm++", steps=1, shift=1.0)  # a whole timestep in both
    out["sampler"] = node("KSamplerSelect", sampler_name="euler")
    out["sample"] = node(
        "SamplerCustom", model=("high", 0), add_noise=True, noise_seed=SEED, cfg=1.0, positive=("one", 0),
        negative=("one", 1), sampler=("sampler", 0), sigmas=("sigmas", 0), latent_image=("one", 2),
    )  # fmt: skip
    ours = latents(host, out)
    out["high"] = node("UNETLoader", unet_name="wan2.2_animate_tiny.safetensors", weight_dtype="default")
    assert rel_l2(latents(host, out), ours) < 1e-3


def test_context_windows_that_leave_poses_whole_are_refused(host, folder):
    """Of older hosts, which cut the latent alone; newer ones cut poses and faces too."""
    if "retain_first_frame" in window_inputs(host):
        pytest.skip("this host cuts conditioning to its windows")
    out = one_clip(frames_per_clip=13)
    out["windows"] = context_windows(host, ("high", 0), context_length=9, context_overlap=4)
    out["sample"]["inputs"]["model_high"] = ["windows", 0]
    with pytest.raises(HostError, match=r"leave sound, poses and faces as long as they are.*WanPoseAnimate"):
        latents(host, out)


def test_the_relighting_lora_is_the_merged_weights(host, folder):
    """The official file: peft's names below "state_dict", found in the release's folder."""
    release = folder / "models" / "wan" / "Animate-14B"
    weights = {k: v.clone() for k, v in open_model(release).items()}
    lora = torch.load(release / "relighting_lora.ckpt")["state_dict"]
    stems = sorted({name.partition(".lora_")[0] for name in lora})
    for stem in stems:
        up, down = (lora[f"{stem}.lora_{side}.default.weight"] for side in "BA")
        weights[stem.removeprefix("base_model.model.") + ".weight"] += 0.7 * up @ down
    (folder / "models" / "diffusion_models").mkdir(exist_ok=True)
    save_file(weights, folder / "models" / "diffusion_models" / "animate_relit.safetensors")
    merged, plain, patched = one_clip(), one_clip(), one_clip()
    merged["high"]["inputs"]["model_name"] = "animate_relit.safetensors"
    patched["lora"] = node(
        "WanLoRA", model_high=("high", 0), lora_name=f"{RELEASE}/relighting_lora.ckpt", strength_high=0.7
    )
    patched["sample"]["inputs"]["model_high"] = ["lora", 0]
    entry = host.run(patched)
    (file,) = [file for file in host.outputs(entry) if file.suffix == ".latent"]
    expected = latents(host, merged)
    assert rel_l2(load_file(file)["latent_tensor"], expected) < 1e-5 < rel_l2(latents(host, plain), expected)
    assert f"{len(lora)} of {len(lora)} keys applied" in entry["outputs"]["lora"]["text"][0]


def test_a_size_that_the_model_cannot_make_is_the_nearest_that_it_can(host, folder):
    assert film_length(host, host.run(graph(pose="odd.mp4", steps=1))) == FRAMES


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            {"model": "wan/T2V-A14B/low_noise_model"},
            "needs Animate-14B; the connected model is a text-to-video",
        ),
        ({"face": "short.mp4"}, f"face_video has 4 frames and pose_video {FRAMES}"),
        ({"frames_per_clip": 10}, "10 frames per clip are not a multiple of 4 plus 1"),
        ({"carried_frames": "5"}, "5 carried frames do not go with clips of 5"),
        ({"replace": True, "background_video": None}, "there is a mask but no background_video"),
        ({"replace": True, "mask": None}, "there is a background_video but no mask"),
        ({"checkpoint_folder": "../../elsewhere"}, "lies outside the output folder"),
    ],
)
def test_what_cannot_work_says_why(host, folder, inputs, message):
    out = graph(**inputs)
    out["video"]["inputs"] = {k: v for k, v in out["video"]["inputs"].items() if v is not None}
    with pytest.raises(HostError, match=message):
        host.run(out)


def test_another_clip_model_says_so(host, folder):
    write_image_tower(
        folder / "models" / "wan" / "clip_small.pth", 46, CLIPConfig(dim=80, mlp_dim=64, num_layers=2)
    )
    out = graph()
    out["clip"]["inputs"]["clip_name"] = "wan/clip_small.pth"
    with pytest.raises(
        HostError, match="gives features 80 wide, and this model looks at 160: load CLIP ViT-H/14"
    ):
        host.run(out)


def test_an_empty_mask_says_so(host, folder):
    out = graph(replace=True)
    out["dark"] = node("LoadImage", image="black.png")
    out["mask"]["inputs"]["image"] = ["dark", 0]
    with pytest.raises(HostError, match="the mask is empty in every frame"):
        host.run(out)


def test_each_clip_has_its_prompt(host, folder):
    check_prompts_of_clips(
        host, folder, graph(steps=1, frames_per_clip=9, carried_frames="5"), "prompts_animate"
    )
