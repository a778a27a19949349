"""generate.py as a user runs it: each task's video, the flags in the workflow, and every way to fail."""

import json
import re
import signal
import subprocess
import sys

import av
import numpy as np
import pytest
from fake_comfyui import FakeComfyUI
from graphs import node
from processes import servers, wait_for

from client.arguments import TASKS
from devhost.host import ROOT

TEXT = ("--task", "t2v-A14B", "--ckpt_dir", "Wan2.2-T2V-A14B", "--prompt", "two cats")
SMALL = ("--size", "64*48", "--frame_num", 9)
FEW = ("--sample_steps", 4)
OFFICIAL = [
    "task", "size", "frame_num", "ckpt_dir", "offload_model", "ulysses_size", "t5_fsdp", "t5_cpu", "dit_fsdp",
    "save_file", "prompt", "use_prompt_extend", "prompt_extend_method", "prompt_extend_model",
    "prompt_extend_target_lang", "base_seed", "image", "sample_solver", "sample_steps", "sample_shift",
    "sample_guide_scale", "convert_model_dtype", "src_root_path", "refert_num", "replace_flag",
    "use_relighting_lora", "num_clip", "audio", "enable_tts", "tts_prompt_audio", "tts_prompt_text",
    "tts_text", "pose_video", "start_from_ref", "infer_frames",
]  # fmt: skip


def read(video):
    """Frames [T, H, W, 3], frames per second, and seconds of sound (None without)."""
    with av.open(str(video)) as film:
        track = film.streams.audio[0] if film.streams.audio else None
        seconds = None if track is None else float(track.duration * track.time_base)
        rate = float(film.streams.video[0].average_rate)
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)])
    return frames, rate, seconds


def levels_apart(film, other):
    """Mean difference of two films' pixels, of 255. The host's encoder, which has several threads, does not make the
    same film of the same frames each time: at times a block of one comes out another way."""
    assert film.shape == other.shape
    return np.abs(film.astype(int) - other).mean()


def tasks(media):
    """Each task's own arguments; its size, frames, rate and seconds of sound."""
    image, audio, pose = (media / name for name in ("生日 cat.png", "talk.wav", "pose.mp4"))
    driving = media / "src_pose.mp4"  # 14 frames at 25 per second, and silence
    animate = ("--src_root_path", media, "--frame_num", 9)
    clip = ("--size", "64*64", "--infer_frames", 8, "--image", image, "--audio", audio)
    return {  # with an image the size is an area, and the aspect the image's: 4:3
        "i2v-A14B": (("--image", image, "--size", "48*64", "--frame_num", 9), (64, 48), 9, 16, None),
        "ti2v-5B": (("--size", "64*32", "--frame_num", 5), (64, 32), 5, 24, None),
        "ti2v-5B image": (("--image", image, "--size", "64*96", "--frame_num", 5), (96, 64), 5, 24, None),
        "s2v-14B": ((*clip, "--num_clip", 1), (64, 64), 5, 16, 0.6),
        "s2v-14B pose": ((*clip, "--pose_video", pose, "--start_from_ref"), (64, 64), 10, 16, 0.6),
        "animate-14B": (animate, (64, 48), 14, 30, None),
        "animate-14B replace": (
            (*animate, "--replace_flag", "--use_relighting_lora", "--refert_num", 5), (64, 48), 14, 30, None,
        ),
        "animate-2-14B": (
            ("--image", image, "--driving_video", driving, "--size", "64*48", "--frame_num", 9), (64, 48), 13, 24, 0.55,
        ),
    }  # fmt: skip


@pytest.mark.parametrize("case", list(tasks(ROOT)))
def test_each_task_makes_its_video(run, host, media, tmp_path, case):
    arguments, (width, height), count, fps, seconds = tasks(media)[case]
    task = case.split()[0]
    release = f"Wan2.2-{TASKS[task]}"
    code, out, err = run(
        "--task", task, "--ckpt_dir", release, *arguments, *FEW, "--server", host.address, "--save_file", "made.mp4"
    )  # fmt: skip
    assert (code, out) == (0, "made.mp4\n"), err
    frames, rate, sound = read(tmp_path / "made.mp4")
    assert frames.shape == (count, height, width, 3) and rate == fps
    assert frames.std() > 1
    assert sound is None if seconds is None else abs(sound - min(seconds, count / 16)) < 1 / 16


def test_the_video_is_that_of_the_same_graph_by_hand(run, host, tmp_path):
    flags = ("--base_seed", 7, "--sample_solver", "dpm++", "--sample_shift", 9, "--sample_guide_scale", 2.5)
    arguments = (*TEXT, *SMALL, *FEW, *flags, "--server", host.address)
    code, out, err = run(*arguments)
    assert code == 0, err
    assert re.fullmatch(r"t2v-A14B_64\*48_1_two_cats_\d{8}_\d{6}\.mp4\n", out)
    made = read(tmp_path / out.strip())[0]
    release = "wan/Wan2.2-T2V-A14B/"
    graph = {
        "t5": node("WanT5Loader", t5_name=release + "models_t5_umt5-xxl-enc-bf16.pth"),
        "text": node("WanT5Encode", clip=("t5", 0), positive="two cats"),
        "high": node("WanDiTLoader", model_name=release + "high_noise_model"),
        "low": node("WanDiTLoader", model_name=release + "low_noise_model"),
        "latent": node("WanEmptyLatent", width=64, height=48, frames=9),
        "sample": node(
            "WanMoESampler", model_high=("high", 0), model_low=("low", 0), positive=("text", 0), negative=("text", 1),
            latent_image=("latent", 0), preset="custom", seed=7, steps=4, shift=9.0, cfg_high=2.5, cfg_low=2.5,
            boundary=0.875, sampler="wan dpm++", noise_source="gpu",
        ),
        "vae": node("WanVAELoader", vae_name=release + "Wan2.1_VAE.pth"),
        "frames": node("WanVAEDecode", samples=("sample", 0), vae=("vae", 0)),
        "film": node("CreateVideo", images=("frames", 0), fps=16),
        "save": node("SaveVideo", video=("film", 0), filename_prefix="hand", format="auto", codec="auto"),
    }  # fmt: skip
    (expected,) = host.outputs(host.run(graph))
    assert levels_apart(made, read(expected)[0]) < 1 < levels_apart(made, made[::-1])
    # again, with every step in the server's cache
    code, out, _ = run(*arguments, "--save_file", "again.mp4")
    assert code == 0 and levels_apart(read(tmp_path / "again.mp4")[0], made) < 1


def test_a_server_of_its_own(run, comfyui, releases, tmp_path):
    """From the release folder alone, and nothing of the server is left."""
    work = tmp_path / "tmp"
    work.mkdir()
    code, _, err = run(
        *TEXT[:2], "--ckpt_dir", releases / "Wan2.2-T2V-A14B", *SMALL, *FEW, "--comfyui", comfyui, "--save_file",
        "own.mp4", "--audio", "x.wav", TMPDIR=str(work),
    )  # fmt: skip
    assert code == 0, err
    assert read(tmp_path / "own.mp4")[0].shape == (9, 48, 64, 3)
    assert "100%" in err and " left" in err and "note: --audio has no part in t2v-A14B" in err
    assert left_by(work) == []


def left_by(work):
    """What a run has left there: processes and folders."""
    return [*servers(work), *(path for path in work.iterdir() if path.name.startswith("wan22-"))]


@pytest.mark.parametrize(
    ("end", "code", "message"),
    [
        (lambda client, server: client.send_signal(signal.SIGINT), 6, "interrupted"),
        (lambda client, server: server.kill(), 3, "ComfyUI ended during the run (exit code -9): "),
    ],
    ids=["interrupted", "killed"],
)
def test_a_server_of_its_own_that_does_not_get_done(start, comfyui, releases, tmp_path, end, code, message):
    work = tmp_path / "tmp"
    work.mkdir()
    long = ("--size", "256*256", "--frame_num", 33, "--sample_steps", 500, "--comfyui", comfyui)
    process = start(*TEXT[:2], "--ckpt_dir", releases / "Wan2.2-T2V-A14B", *long, TMPDIR=str(work))
    seen = (
        process.stderr.readline() + process.stderr.readline()
    )  # the bar's first picture is there when work begins
    assert seen.startswith("starting ComfyUI ...") and process.poll() is None
    (server,) = servers(work)
    end(process, server)
    out, err = process.communicate(timeout=60)
    fails((process.returncode, out, err), code, message)
    assert left_by(work) == []


def planned(run, *arguments):
    """The workflow that --dry-run prints, by class of node."""
    code, out, err = run(*arguments, "--dry-run")
    assert code == 0, err
    found = {}
    for content in json.loads(out).values():
        found.setdefault(content["class_type"], []).append(content["inputs"])
    return found


def test_official_defaults_are_the_preset_and_nothing_is_asked(run):
    found = planned(run, "--ckpt_dir", "/nowhere/Wan2.2-T2V-A14B")
    assert found["WanEmptyLatent"] == [{"width": 1280, "height": 720, "frames": 81}]
    (work,) = found["WanMoESampler"]
    assert work["preset"] == "T2V-A14B" and "steps" not in work and 0 <= work["seed"] < 2**63
    assert [m["model_name"] for m in found["WanDiTLoader"]] == [
        f"wan/Wan2.2-T2V-A14B/{expert}_noise_model" for expert in ("high", "low")
    ]
    assert "WanMultiGPU" not in found and "WanPromptExtend" not in found


@pytest.mark.parametrize(
    ("arguments", "kind", "expected"),
    [
        (("--base_seed", 5), "WanMoESampler", {"seed": 5, "preset": "T2V-A14B", "noise_source": "gpu"}),
        (
            ("--sample_shift", 3),
            "WanMoESampler",
            {
                "preset": "custom",
                "shift": 3.0,
                "steps": 40,
                "cfg_high": 4.0,
                "cfg_low": 3.0,
                "boundary": 0.875,
            },
        ),
        (
            ("--sample_guide_scale", 1),
            "WanMoESampler",
            {"cfg_high": 1.0, "cfg_low": 1.0, "sampler": "wan unipc"},
        ),
        (("--sample_solver", "dpm++"), "WanMoESampler", {"sampler": "wan dpm++", "steps": 40, "shift": 12.0}),
        (
            ("--size", "480*832", "--frame_num", 5),
            "WanEmptyLatent",
            {"width": 480, "height": 832, "frames": 5},
        ),
        (("--prompt", "a dog"), "WanT5Encode", {"positive": "a dog"}),
        (("--convert_model_dtype",), "WanDiTLoader", {"weight_dtype": "bf16"}),
        (("--t5_cpu",), "WanT5Loader", {"device": "cpu"}),
        (("--t5_fsdp",), "WanT5Loader", {"device": "multi gpu"}),
        (
            ("--ulysses_size", 4),
            "WanMultiGPU",
            {"gpus": 4, "mode": "explicit", "ulysses": 4, "cfg_parallel": 1, "fsdp": "off"},
        ),
        (
            ("--dit_fsdp", "--offload_model", "true"),
            "WanMultiGPU",
            {"mode": "auto", "fsdp": "on", "offload": True},
        ),
        (
            ("--use_prompt_extend", "--prompt_extend_target_lang", "en", "--prompt", "a dog"),
            "WanPromptExtend",
            {"prompt": "a dog", "language": "en", "task": "T2V", "model": "Qwen2.5-14B-Instruct"},
        ),
        (
            ("--use_prompt_extend", "--prompt_extend_method", "dashscope"),
            "WanPromptExtend",
            {"language": "zh", "model": "OpenAI-compatible endpoint", "endpoint_model": "qwen-plus"},
        ),
    ],
)
def test_flags_reach_the_nodes(run, arguments, kind, expected):
    found = planned(run, *TEXT, *arguments)
    assert found[kind] and all(inputs.items() >= expected.items() for inputs in found[kind])


def test_flags_of_speech_and_animation_reach_the_nodes(run, media):
    cat = ("--image", media / "生日 cat.png")
    speech = ("--task", "s2v-14B", "--ckpt_dir", "S2V", *cat)
    found = planned(run, *speech, "--audio", media / "talk.wav", "--num_clip", 3, "--infer_frames", 48)
    (work,) = found["WanSpeechToVideo"]
    assert (work["clips"], work["frames_per_clip"], work["preset"]) == (3, 48, "S2V-14B")
    assert found["LoadAudio"] == [{"audio": str(media / "talk.wav")}]

    sample = ("--tts_prompt_audio", media / "talk.wav", "--tts_prompt_text", "hm")
    found = planned(
        run, *speech, "--enable_tts", "--tts_text", "hello", *sample, "--tts_voice", "mms-tts-eng"
    )
    (voice,) = found["WanTextToSpeech"]
    assert (voice["text"], voice["voice"], voice["voice_sample_text"]) == ("hello", "mms-tts-eng", "hm")
    assert found["WanSpeechToVideo"][0]["audio"] == ["speech", 0]

    animate = ("--task", "animate-14B", "--ckpt_dir", "Animate", "--src_root_path", media)
    (work,) = planned(run, *animate)["WanPoseAnimate"]
    code, _, err = run(*animate, "--size", "850*480", "--dry-run")
    assert code == 0 and "note: --size has no part in animate-14B" in err
    # the official command's solver is UniPC, where the release's preset has DPM++
    assert (
        work["preset"] == "custom"
        and work["sampler"] == "wan unipc"
        and (work["steps"], work["cfg"]) == (20, 1.0)
    )
    assert (work["frames_per_clip"], work["carried_frames"]) == (77, "1") and "mask" not in work
    found = planned(run, *animate, "--replace_flag", "--use_relighting_lora", "--sample_solver", "dpm++")
    assert found["WanPoseAnimate"][0]["preset"] == "Animate-14B"
    assert found["WanPoseAnimate"][0].keys() >= {"mask", "background_video"}
    assert found["WanLoRA"][0]["lora_name"] == "wan/Animate/relighting_lora.ckpt"

    image = media / "生日 cat.png"
    driven = (
        "--task",
        "animate-2-14B",
        "--ckpt_dir",
        "A",
        "--image",
        image,
        "--driving_video",
        media / "pose.mp4",
    )
    found = planned(run, *driven, "--prompt", "a cat", "--driving_prompt", "dancing", "--size", "640*800")
    (work,) = found["WanAnimate2"]
    assert (work["preset"], work["width"], work["height"]) == ("Animate-2-14B", 640, 800)
    assert [text["positive"] for text in found["WanT5Encode"]] == ["a cat", "dancing"]
    found = planned(run, *driven, "--distilled")
    (work,) = found["WanAnimate2"]
    assert (work["preset"], work["width"], work["height"]) == ("Animate-2-14B distilled", 640, 800)
    (model,) = found["WanDiTLoader"]
    assert model["model_name"] == "wan/A/wan_animate_2/wan_animate_2_bf16_distillation.safetensors"
    assert found["WanVAELoader"][0]["vae_name"] == "wan/A/videomodel/Wan-AI/vae.pth"
    (work,) = planned(run, *driven, "--distilled", "--sample_steps", 6)["WanAnimate2"]
    assert (work["preset"], work["steps"], work["cfg"], work["sampler"]) == ("custom", 6, 1.0, "euler")


def test_every_official_flag_is_taken_and_documented(run):
    code, usage, _ = run("--help")
    table = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    assert code == 0
    for flag in OFFICIAL:
        assert re.search(rf"--{flag}\b", usage), flag
        assert re.search(rf"^\|.*`{flag}`", table, re.M), flag


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--ckpt_dir is missing"),
        ((*TEXT, "--frame_num", 80), "--frame_num 80 is not 4n+1"),
        ((*TEXT, "--size", "1280"), "--size 1280 is not WIDTH*HEIGHT"),
        ((*TEXT, "--size", "100*64"), "multiples of 16 in t2v-A14B"),
        ((*TEXT, "--task", "ti2v-5B", "--size", "1280*720"), "multiples of 32 in ti2v-5B"),
        ((*TEXT, "--task", "t2v-1.3B"), "invalid choice: 't2v-1.3B'"),
        ((*TEXT, "--colour", "red"), "unrecognized arguments: --colour red"),
        ((*TEXT, "--sample_shift", 0), "--sample_shift 0 is not above 0"),
        ((*TEXT, "--offload_model", "perhaps"), "'perhaps' is neither true nor false"),
        ((*TEXT, "--t5_cpu", "--t5_fsdp"), "--t5_cpu and --t5_fsdp exclude each other"),
        ((*TEXT, "--task", "i2v-A14B"), "--image is missing: i2v-A14B needs it"),
        ((*TEXT, "--task", "i2v-A14B", "--image", "no.png"), "--image: there is no file no.png"),
        ((*TEXT, "--task", "s2v-14B", "--image", ROOT / "README.md"), "--audio is missing: s2v-14B needs it"),
        ((*TEXT, "--task", "animate-14B", "--src_root_path", "."), "there is no file src_pose.mp4"),
        ((*TEXT, "--task", "s2v-14B", "--use_prompt_extend"), "s2v-14B has no system prompt"),
        ((*TEXT, "--save_file", "video.avi"), "the name ends in .mp4"),
        ((*TEXT, "--save_file", "no/video.mp4"), "there is no folder no"),
        ((*TEXT, "--comfyui", "."), "--comfyui: . is not a ComfyUI folder"),
        ((*TEXT, "--comfyui", ".", "--server", "x"), "--server and --comfyui exclude each other"),
    ],
)
def test_wrong_arguments_are_named(run, releases, arguments, message):
    arguments = [releases / "Wan2.2-T2V-A14B" if a == "Wan2.2-T2V-A14B" else a for a in arguments]
    fails(run(*arguments), 2, message)


def fails(result, code, message):
    """The exit code, and one line on stderr (after notes) that says why; no video, no traceback."""
    found, out, err = result
    lines = [line for line in err.splitlines() if line.startswith("generate.py: ")]
    assert (found, out) == (code, "") and "Traceback" not in err, err
    assert len(lines) == 1 and err.endswith(lines[0] + "\n") and message in lines[0], err


def test_a_folder_that_is_no_release(run, releases, tmp_path):
    fails(run("--ckpt_dir", "gone"), 2, "--ckpt_dir: there is no folder")
    fails(
        run("--ckpt_dir", releases / "Wan2.2-TI2V-5B"), 2, "has no high_noise_model: it is no official folder"
    )


def test_server_down_or_something_else(run):
    with FakeComfyUI() as gone:
        pass
    fails(run(*TEXT, "--server", gone.address), 3, f"no server answers at http://{gone.address}")
    fails(run(*TEXT, "--server", "not an address"), 3, "is no address of a server")
    with FakeComfyUI(name="other") as other:
        fails(run(*TEXT, "--server", other.address), 3, "is no ComfyUI")
        fails(run(*TEXT, "--server", f"http://{other.address}/path/"), 3, "it answers 404 text/plain")


def test_server_that_goes_away(run):
    with FakeComfyUI(vanish=True) as server:
        fails(run(*TEXT, "--server", server.address), 3, "went away during the run")


def test_server_without_the_pack(run):
    with FakeComfyUI(lacks=["Wan"]) as server:
        fails(run(*TEXT, "--server", server.address), 4, "has no node WanT5Loader: it needs this pack")


def test_full_queue(run):
    for status in (429, 503):
        with FakeComfyUI(answer=(status, {})) as server:
            fails(run(*TEXT, "--server", server.address), 4, f"queue is full (it answers {status})")


def test_long_queue_shows_the_position_and_ends_in_time(run):
    with FakeComfyUI(before=("a", "b")) as server:
        result = run(*TEXT, "--server", server.address, "--timeout", 5)
        fails(result, 6, "not done within 5 s")
        places = re.findall(r"waiting in the queue, (\d) before", result[2])
        assert places == ["2", "1"]
        mine = server.queue[-1]
        assert server.asked == [("/queue", {"delete": [mine]}), ("/interrupt", {"prompt_id": mine})]


def test_a_release_or_node_that_the_server_lacks(run, host, media):
    result = run("--ckpt_dir", "Wan2.2-Other", *SMALL, "--server", host.address)
    fails(result, 4, "has no wan/Wan2.2-Other/models_t5_umt5-xxl-enc-bf16.pth among its models")
    assert "Wan2.2-T2V-A14B" in result[2]
    speech = ("--task", "s2v-14B", "--ckpt_dir", "Wan2.2-S2V-14B", "--image", media / "生日 cat.png")
    result = run(*speech, "--enable_tts", "--tts_text", "hello", "--server", host.address)
    if result[0] == 4:  # newer hosts look at choices of such nodes before they run
        fails(result, 4, "WanTextToSpeech (node speech): Value not in list voice: 'CosyVoice2-0.5B'")
    else:
        fails(result, 5, "there is no text-to-speech model 'CosyVoice2-0.5B' in models/tts")


def test_a_number_that_json_does_not_have(run):
    with FakeComfyUI() as server:
        result = run(*TEXT, *SMALL, "--sample_guide_scale", "inf", "--server", server.address)
    fails(result, 4, "what was to be sent is no JSON: Out of range float values")


def test_prompt_extension_on_a_server_without_it(run):
    """There is no video without the extension that was asked for."""
    with FakeComfyUI(lacks=["WanPromptExtend"]) as server:
        result = run(*TEXT, *SMALL, "--use_prompt_extend", "--server", server.address)
    fails(result, 4, "has no node WanPromptExtend")


def test_prompt_extension_by_a_local_model(run, host, media):
    language = pytest.importorskip("tiny_language", reason="the tests have no tiny language model yet")
    folder = host.base / "models" / "LLM"
    language.write_qwen(folder / "Qwen2.5-14B-Instruct")
    language.write_qwen_vl(folder / "Qwen2.5-VL-7B-Instruct")
    image = ("--task", "i2v-A14B", "--ckpt_dir", "Wan2.2-I2V-A14B", "--image", media / "生日 cat.png")
    for arguments in (TEXT, image):
        code, out, err = run(*arguments, *SMALL, *FEW, "--use_prompt_extend", "--server", host.address)
        assert code == 0 and out.endswith(".mp4\n"), err
        assert re.search(r"^extended prompt: \S", err, re.M), err


def test_a_failed_node_says_why(run, host):
    other = ("--task", "t2v-A14B", "--ckpt_dir", "Wan2.2-I2V-A14B")
    result = run(*other, *SMALL, *FEW, "--server", host.address)
    fails(result, 5, "WanMoESampler (node 6) failed: ")
    assert "image" in result[2].splitlines()[-1]


def queue(host):
    """Ids that run, and that wait."""
    found = host.get("/queue")
    return [[item[1] for item in found[f"queue_{state}"]] for state in ("running", "pending")]


def long_run(host):
    """Queues a run of somebody else that takes minutes; returns its id."""
    from client.arguments import parse
    from client.workflows import build

    arguments = [*TEXT, "--size", "256*256", "--frame_num", "33", "--sample_steps", "500"]
    return host.queue(build(parse(arguments)))


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_ends_this_run_and_no_other(start, host, end):
    # while it waits
    other = long_run(host)
    process = start(*TEXT, *SMALL, "--server", host.address)
    wait_for(lambda: len(queue(host)[1]) == 1)
    assert process.stderr.readline() == "waiting in the queue, 1 before this one\n"
    process.send_signal(end)
    out, err = process.communicate(timeout=60)
    fails((process.returncode, out, err), 6, "interrupted")
    assert queue(host) == [[other], []]
    # while it runs, with somebody else waiting
    host.interrupt()
    wait_for(lambda: queue(host) == [[], []])
    process = start(
        *TEXT, "--size", "256*256", "--frame_num", 33, "--sample_steps", 500, "--server", host.address
    )
    wait_for(lambda: len(queue(host)[0]) == 1)
    mine, other = queue(host)[0][0], long_run(host)
    process.send_signal(end)
    out, err = process.communicate(timeout=60)
    fails((process.returncode, out, err), 6, "interrupted")
    wait_for(lambda: queue(host) == [[other], []])
    assert dict(host.history(mine)["status"]["messages"])["execution_interrupted"]
    host.interrupt()
    wait_for(lambda: queue(host) == [[], []])


def test_a_run_ended_on_the_server_says_so(start, host):
    process = start(
        *TEXT, "--size", "256*256", "--frame_num", 33, "--sample_steps", 500, "--server", host.address
    )
    wait_for(lambda: len(queue(host)[0]) == 1)
    host.interrupt()
    out, err = process.communicate(timeout=60)
    fails((process.returncode, out, err), 6, "interrupted on the server")


def test_other_processes_of_torchrun_do_nothing(run):
    assert run(*TEXT, "--server", "127.0.0.1:9", RANK="1") == (0, "", "")


def test_it_needs_no_torch():
    """Any Python with requests, websocket-client and tqdm will do, unless a server is to be started."""
    absent = ("torch", "numpy", "PIL", "av", "psutil", "comfy", "safetensors", "devhost.host")
    script = f"import sys; sys.modules.update(dict.fromkeys({absent})); from client.command import main; "
    plan = [sys.executable, "-c", script + f"sys.exit(main({[str(a) for a in TEXT]} + sys.argv[1:]))"]
    done = subprocess.run([*plan, "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "WanMoESampler" in done.stdout, done.stderr
    with FakeComfyUI(answer=(503, {})) as server:
        done = subprocess.run([*plan, "--server", server.address], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 4, done.stderr
