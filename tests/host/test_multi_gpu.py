"""Several worker processes behind the nodes, in the real host: results, Cancel, reuse, /free, faults, the end."""

import os
import re
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from forked import ForkedHost
from formats import write_gguf
from graphs import base_graph, context_windows, latents, node, sampler, save
from PIL import Image
from safetensors.torch import load_file, save_file
from tests_media import write_sound, write_video
from tests_support import rel_l2

from demo.tiny_release import write_dit, write_release
from devhost.errors import HostError
from wan_models.checkpoints.reader import open_model
from wan_models.config import DiTConfig, TinyVAEConfig
from wan_models.random_weights import random_state_dict
from wan_models.vae.tiny import TinyVAE

TOLERANCE = 1e-5
LORA = {"lora_name": "lora.safetensors", "strength_model": 1.0}


@pytest.fixture(scope="module")
def group_base(base, tmp_path_factory):
    """The session's models under a base folder of this file's own server."""
    folder = tmp_path_factory.mktemp("group")
    (folder / "models").symlink_to(base / "models", target_is_directory=True)
    for seed, name in enumerate(("I2V-A14B", "TI2V-5B", "S2V-14B", "Animate-14B", "Animate-2-14B")):
        write_release(base / "models" / "wan" / name, seed=50 + seed, name=name)
    inputs = folder / "input"
    inputs.mkdir()
    pixels = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    Image.fromarray(pixels.numpy()).save(inputs / "picture.png")
    write_sound(inputs / "voice.wav", 0.9)
    for name, size in (("pose", (64, 64)), ("face", (512, 512))):
        write_video(inputs / f"{name}.mp4", 9, size, grain=size[0] // 32)
    return folder


@pytest.fixture(scope="module")
def group_host(comfyui, group_base):
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MALLOC_MMAP_THRESHOLD_", str(1 << 20))  # what is freed goes back to the system
        environment.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
        server = ForkedHost(comfyui, base=group_base, arguments=("--preview-method", "auto"))
    with server:
        yield server


def shared(model="high", **settings):
    """WanMultiGPU on a loader's MODEL."""
    return node("WanMultiGPU", model=(model, 0), gpus=2, timeout=60, **settings)


def advanced(model=("shared", 0), seed=1, steps=3):
    """The host's own SamplerCustomAdvanced over a MODEL."""
    return {
        "guider": node("CFGGuider", model=model, positive=("text", 0), negative=("text", 1), cfg=3.0),
        "noise": node("RandomNoise", noise_seed=seed),
        "sigmas": node("BasicScheduler", model=model, scheduler="simple", steps=steps, denoise=1.0),
        "solver": node("KSamplerSelect", sampler_name="euler"),
        "sample": node(
            "SamplerCustomAdvanced", noise=("noise", 0), guider=("guider", 0), sampler=("solver", 0),
            sigmas=("sigmas", 0), latent_image=("latent", 0),
        ),
        "save": save(),
    }  # fmt: skip


def multi_sampler(seed=1, high=("high", 0), low=("low", 0), **settings):
    """WanMultiGPUSampler over `base_graph`."""
    out = sampler(seed, high, low, **settings)
    out["class_type"] = "WanMultiGPUSampler"
    out["inputs"] = {"gpus": 2, "timeout": 60, **out["inputs"]}
    return out


def workers_of(host):
    """The worker processes of a server, by rank."""
    found = []
    for child in psutil.Process(host.process.pid).children(recursive=True):
        try:
            title = " ".join(child.cmdline())
        except psutil.Error:
            continue
        if "WanWorker" in title:
            found.append(child)
    return found


def loads(host):
    """How often the workers have read weights, as the server's log says."""
    return re.findall(r"workers: (\d+) tensors of", host.log.read_text(errors="replace"))


def starting_seconds(host):
    """What the workers of a server took to start: longer than to end them, on a machine as busy as this one is."""
    return float(
        re.findall(r"worker processes on .* after ([\d.]+) s", host.log.read_text(errors="replace"))[-1]
    )


def long_run(seed):
    """A run of many slow steps."""
    graph = base_graph() | {"sample": multi_sampler(seed, steps=200), "save": save()}
    graph["latent"]["inputs"] |= {"width": 320, "height": 320}
    return graph


def interrupted_at(host, graph, step, what):
    """Runs a graph and calls `what` at a step; returns the error, the last step, the seconds to the end, and those
    of a step."""
    begun, steps, times = [], [], []

    def on_event(kind, data):
        if kind == "progress" and data["node"] == "sample":
            steps.append(data["value"])
            times.append(time.monotonic())
            if data["value"] >= step and not begun:
                begun.append(time.monotonic())
                threading.Thread(target=what).start()

    with pytest.raises(HostError) as error:
        host.run(graph, on_event, timeout=120)
    a_step = (times[-1] - times[0]) / max(1, len(times) - 1)
    return str(error.value), max(steps), time.monotonic() - begun[0], a_step


def test_no_second_copy_of_the_weights(group_host, base):
    """300 MB of weights, to be kept in half the precision: the server keeps none of them, each worker half.

    Runs first: before others have left something there that may go meanwhile."""
    config = DiTConfig(dim=768, ffn_dim=3072, num_heads=6, num_layers=8)
    write_dit(base / "models" / "wan" / "T2V-A14B" / "large", 3, 1, config)
    file = base / "models" / "wan" / "T2V-A14B" / "large" / "diffusion_pytorch_model.safetensors"
    halved = file.stat().st_size / 2
    settings = {"shared": shared(mode="explicit", ulysses=2, fsdp="on")}
    latents(group_host, base_graph() | settings | advanced())  # what is imported for it is there
    processes = [group_host.process.pid, *(worker.pid for worker in workers_of(group_host))]
    before = [_anonymous(pid) for pid in processes]
    graph = base_graph(high="large") | settings
    graph["high"]["inputs"]["weight_dtype"] = "fp16"
    latents(group_host, graph | advanced(steps=1))
    after = [_anonymous(pid) for pid in processes]
    here, *workers = ((b - a) / halved for a, b in zip(before, after, strict=True))
    assert here < 0.15, (here, workers)
    # a half, and the blocks that were gathered last
    assert all(0.45 < worker < 0.85 for worker in workers), (here, workers)


def _anonymous(pid):
    with Path(f"/proc/{pid}/status").open() as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "auto"},
        {"mode": "explicit", "cfg_parallel": 2},
        {"mode": "explicit", "ulysses": 2, "fsdp": "on"},
        {"mode": "explicit", "ulysses": 2, "offload": True},
    ],
    ids=["auto", "cfg", "ulysses and fsdp", "offload with fsdp auto"],
)
def test_the_hosts_sampler_over_a_shared_model(group_host, seed, settings):
    graph = base_graph() | {"shared": shared(**settings)}
    expected = latents(group_host, graph | advanced(("high", 0), seed))
    seen = []
    found = latents(group_host, graph | advanced(seed=seed), lambda kind, data: seen.append((kind, data)))
    assert rel_l2(found, expected) < TOLERANCE
    steps = [data["value"] for kind, data in seen if kind == "progress" and data["node"] == "sample"]
    assert steps == [1, 2, 3] and any(kind == "preview" for kind, _ in seen)


def test_context_windows_over_a_shared_model(group_host, seed):
    """The host's windows go to the workers one after the other: those of one process."""
    settings = {"context_schedule": "standard_uniform", "freenoise": True}
    graph = base_graph() | {"shared": shared(mode="explicit", ulysses=2)}
    graph["latent"]["inputs"]["frames"] = 29
    found = []
    for model in ("high", "shared"):
        graph["windows"] = context_windows(group_host, (model, 0), **settings)
        found.append(latents(group_host, graph | advanced(("windows", 0), seed)))
    assert rel_l2(*found) < TOLERANCE


def test_previews_of_a_shared_model_are_decoded_too(group_host, base):
    """By the tiny autoencoder beside the sampler, in this process."""
    file = base / "models" / "vae_approx" / "taew2_1.safetensors"
    file.parent.mkdir(exist_ok=True)
    config = TinyVAEConfig(enc_dim=0, dec_dims=(8, 4, 4, 4))
    save_file(random_state_dict(lambda: TinyVAE(config), 4), file)
    seen = []
    graph = base_graph() | {"sample": multi_sampler(steps=60), "save": save()}
    try:
        latents(group_host, graph, lambda kind, data: kind == "wan22.preview" and seen.append(data))
    finally:
        file.unlink()
    assert (seen[-1]["frames"], seen[-1]["width"], seen[-1]["height"]) == (9, 64, 48)


def test_both_experts_through_the_switch(group_host, seed):
    graph = base_graph() | {"save": save(), "lora": node("LoraLoaderModelOnly", model=("low", 0), **LORA)}
    low = ("lora", 0)
    expected = latents(group_host, graph | {"sample": sampler(seed, low=low, steps=8)})
    graph["sample"] = multi_sampler(seed, low=low, steps=8, mode="explicit", ulysses=2)
    entry = group_host.run(graph)
    (file,) = [f for f in group_host.outputs(entry) if f.suffix == ".latent"]
    assert rel_l2(load_file(file)["latent_tensor"], expected) < TOLERANCE
    (text,) = entry["outputs"]["sample"]["text"]
    assert re.search(r"2 workers \(cpu of .+, cpu of .+\): 1 x CFG-parallel, 2 x Ulysses", text)
    assert "of 8 steps on the high-noise expert" in text


def test_a_base_model_before_the_expert_with_its_lora(group_host, seed):
    """Of one file: the LoRA is put on between two phases of a run."""
    graph = base_graph() | {"save": save(), "lora": node("LoraLoaderModelOnly", model=("high", 0), **LORA)}
    phases = {"steps": 6, "model_base": ("high", 0), "base_steps": 2, "base_cfg": 3.5, "cfg_high": 1.0}
    expected = latents(group_host, graph | {"sample": sampler(seed, ("lora", 0), **phases)})
    graph["sample"] = multi_sampler(seed, ("lora", 0), mode="explicit", ulysses=2, **phases)
    assert rel_l2(latents(group_host, graph), expected) < TOLERANCE


def test_packed_weights(group_host, base, seed):
    """GGUF, unpacked by the workers, under a LoRA."""
    state = dict(open_model(base / "models" / "wan" / "T2V-A14B" / "high_noise_model"))
    write_gguf(base / "models" / "diffusion_models" / "packed.gguf", state, "Q8_0")
    graph = base_graph() | {"lora": node("LoraLoaderModelOnly", model=("high", 0), **LORA)}
    graph["high"] = node("WanDiTLoader", model_name="packed.gguf")
    expected = latents(group_host, graph | advanced(("lora", 0), seed))
    graph["shared"] = shared("lora", mode="explicit", ulysses=2, fsdp="on")
    assert rel_l2(latents(group_host, graph | advanced(seed=seed)), expected) < TOLERANCE


def test_a_replaced_file_is_read_anew(group_host, base, seed):
    """The workers keep what they have read, and tell files by more than their names."""
    file = base / "models/diffusion_models/replaced.safetensors"
    graph = base_graph() | {"shared": shared(), "high": node("WanDiTLoader", model_name=file.name)}
    found = []
    for expert in ("high", "low"):
        file.write_bytes((file.parent / f"{expert}.safetensors").read_bytes())
        expected = latents(group_host, graph | advanced(("high", 0), seed))
        found.append(latents(group_host, graph | advanced(seed=seed)))
        assert rel_l2(found[-1], expected) < TOLERANCE
    assert rel_l2(*found) > 1e-3


def test_loras_before_and_after_and_a_changed_strength(group_host, seed):
    graph = base_graph() | {"lora": node("LoraLoaderModelOnly", model=("high", 0), **LORA)}
    expected = latents(group_host, graph | advanced(("lora", 0), seed))
    plain = latents(group_host, graph | advanced(("high", 0), seed))
    assert rel_l2(expected, plain) > 1e-3
    before = graph | {"shared": shared("lora")}
    assert rel_l2(latents(group_host, before | advanced(seed=seed)), expected) < TOLERANCE
    after = graph | {
        "shared": shared(),
        "lora": node("LoraLoaderModelOnly", model=("shared", 0), **LORA),
    }
    assert rel_l2(latents(group_host, after | advanced(("lora", 0), seed)), expected) < TOLERANCE
    count = len(loads(group_host))
    after["lora"]["inputs"]["strength_model"] = 0.0
    assert rel_l2(latents(group_host, after | advanced(("lora", 0), seed)), plain) < TOLERANCE
    (read,) = loads(group_host)[count:]
    assert int(read) == 4  # the weights that the LoRA changes, and no others


@pytest.mark.parametrize(
    "settings", [{"cfg_parallel": 2, "fsdp": "on"}, {"ulysses": 2}], ids=["cfg", "ulysses"]
)
def test_guidance_and_a_schedule_of_the_prompt(group_host, seed, settings):
    """WanNAG before WanMultiGPU and after it; each process has its own part of the tokens or of the rows of CFG."""
    graph = base_graph() | {"shared": shared(mode="explicit", **settings)}
    if "ulysses" in settings:
        lines = "two cats\n0-50%: surf\n50-100%: swim"
        graph["text"] = node("WanPromptSchedule", clip=("t5", 0), lines=lines, frames=9, negative="blurry")
    plain = latents(group_host, graph | advanced(("high", 0), seed))
    nag = node("WanNAG", model_high=("high", 0), negative=("text", 1), scale=11.0)
    expected = latents(group_host, graph | {"nag": nag} | advanced(("nag", 0), seed))
    assert rel_l2(expected, plain) > 1e-3
    if "ulysses" in settings:
        graph["shared"]["inputs"]["model"] = ["nag", 0]
        found = latents(group_host, graph | {"nag": nag} | advanced(seed=seed))
    else:
        nag["inputs"]["model_high"] = ["shared", 0]
        found = latents(group_host, graph | {"nag": nag} | advanced(("nag", 0), seed))
    assert rel_l2(found, expected) < TOLERANCE


@pytest.mark.parametrize("family", ["i2v", "long", "ti2v", "s2v", "animate", "animate2"])
def test_every_family(group_host, seed, family):
    """The whole pipeline of each release, with text and VAE on the workers too, ends in the same frames."""
    pieces = {
        "i2v": "I2V-A14B", "long": "I2V-A14B", "ti2v": "TI2V-5B", "s2v": "S2V-14B", "animate": "Animate-14B",
        "animate2": "Animate-2-14B",
    }  # fmt: skip
    release = f"wan/{pieces[family]}"

    def build(is_shared):
        device = {"device": "multi gpu"} if is_shared else {}
        graph = base_graph()
        graph["t5"]["inputs"] |= device
        vae = "Wan2.2_VAE.pth" if family == "ti2v" else "Wan2.1_VAE.pth"
        graph["vae"] = node("WanVAELoader", vae_name=f"{release}/{vae}", **device)
        graph["picture"] = node("LoadImage", image="picture.png")
        for name in ("high", "low"):
            part = f"{release}/{name}_noise_model" if family in ("i2v", "long") else release
            graph[name] = node("WanDiTLoader", model_name=part)
            graph[f"shared {name}"] = shared(name)
        high, low = (((f"shared {n}" if is_shared else n), 0) for n in ("high", "low"))
        conditions = {"positive": ("text", 0), "negative": ("text", 1), "vae": ("vae", 0)}
        custom = {"preset": "custom", "steps": 3, "shift": 5.0, "seed": seed}
        if family == "i2v":
            graph["start"] = node(
                "WanI2VCondition", start_image=("picture", 0), width=64, height=64, frames=9, **conditions
            )
            graph["sample"] = sampler(seed, high, low, latent=("start", 2))
            graph["sample"]["inputs"] |= {"positive": ["start", 0], "negative": ["start", 1]}
        elif family == "long":
            graph["video"] = node(
                "WanLongVideo", model_high=high, model_low=low, reference_image=("picture", 0), width=64, height=64,
                clips=2, seconds=0.0, frames_per_clip=9, mode="SVI 2.0 Pro", overlap_latents=1, colour_match="mean-std",
                output="frames", filename_prefix="", **conditions, **custom,
            )  # fmt: skip
        elif family == "ti2v":
            graph["latent"] = node(
                "WanTI2VLatent", vae=("vae", 0), start_image=("picture", 0), width=96, height=96, frames=9
            )
            graph["sample"] = sampler(seed, high, high)
        elif family == "s2v":
            encoder = f"{release}/wav2vec2-large-xlsr-53-english"
            graph["listener"] = node("WanAudioEncoderLoader", audio_encoder_name=encoder)
            graph["voice"] = node("LoadAudio", audio="voice.wav")
            graph["video"] = node(
                "WanSpeechToVideo", model=high, audio_encoder=("listener", 0), audio=("voice", 0), width=64,
                height=64, reference_image=("picture", 0), frames_per_clip=8, clips=2, **conditions, **custom,
            )  # fmt: skip
        else:
            tower = f"{release}/models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
            graph["clip"] = node("WanCLIPVisionLoader", clip_name=tower)
            for name in ("pose", "face"):
                graph[name] = node(
                    "WanLoadVideo",
                    file=f"{name}.mp4",
                    fit="original",
                    fps=0.0,
                    start=0.0,
                    length=0,
                    width=64,
                    height=64,
                )
            driven = {
                "model": high, "clip_vision": ("clip", 0), "reference_image": ("picture", 0), "frames_per_clip": 5,
                **conditions, **custom,
            }  # fmt: skip
            graph["video"] = (
                node("WanAnimate2", driving_video=("pose", 0), width=64, height=64, **driven)
                if family == "animate2"
                else node(
                    "WanPoseAnimate",
                    pose_video=("pose", 0),
                    face_video=("face", 0),
                    carried_frames="1",
                    **driven,
                )
            )
        if "video" not in graph:
            graph["video"] = node("WanVAEDecode", samples=("sample", 0), vae=("vae", 0))
        graph["film"] = node("SaveImage", images=("video", 0), filename_prefix=f"{family} {is_shared}")
        return graph

    def frames(is_shared):
        files = sorted(group_host.outputs(group_host.run(build(is_shared))))
        return torch.stack([torch.from_numpy(np.array(Image.open(f)).astype("float32")) for f in files])

    expected, found = frames(False), frames(True)
    assert expected.shape == found.shape and expected.shape[0] in (9, 13)
    assert expected.std() > 5
    difference = (expected - found).abs()  # of 8 bits: a value on the edge may fall to the other side
    assert difference.max() <= 1 and (difference > 0).float().mean() < 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "explicit", "ulysses": 3}, "does not divide the model's 2 attention heads; choose one of 1, 2"),
        (
            {"mode": "explicit", "ulysses": 2, "cfg_parallel": 2},
            "makes 4, and there are 2 GPUs; choose CFG-parallel 2 x",
        ),
        ({"mode": "explicit", "ulysses": 2, "offload": True, "fsdp": "off"}, "with FSDP only: switch fsdp on"),
        ({"attention": "nonsense"}, "attention"),
    ],
)  # fmt: skip
def test_wrong_settings_are_named(group_host, settings, message):
    refused(group_host, settings, message)


def refused(group_host, settings, message):
    graph = base_graph() | {"sample": multi_sampler(1, **settings), "save": save()}
    with pytest.raises(HostError, match=message):
        group_host.run(graph)


def test_what_cannot_be_shared_is_named(group_host, base):
    graph = base_graph() | {"shared": shared()} | advanced()
    graph["high"] = node("UNETLoader", unet_name="high.safetensors", weight_dtype="default")
    with pytest.raises(HostError, match="only models of WanDiTLoader"):
        group_host.run(graph)
    graph = base_graph() | {"once": shared(), "shared": shared("once")} | advanced()
    with pytest.raises(HostError, match="shared by several GPUs already"):
        group_host.run(graph)
    graph = base_graph() | {"shared": shared()} | advanced(("skip", 0))
    graph["skip"] = node(
        "SkipLayerGuidanceDiT", model=("shared", 0), double_layers="0", single_layers="", scale=3.0,
        start_percent=0.0, end_percent=1.0, rescaling_scale=0.0,
    )  # fmt: skip
    with pytest.raises(HostError, match="changes single blocks of the model"):
        group_host.run(graph)


def test_cancel_then_the_same_workers_go_on_and_free_ends_them(group_host, seed):
    graph = base_graph() | {"sample": multi_sampler(seed), "save": save()}
    expected = latents(group_host, graph)
    before, count = [worker.pid for worker in workers_of(group_host)], len(loads(group_host))
    assert len(before) == 2
    error, last, seconds, a_step = interrupted_at(group_host, long_run(seed), 3, group_host.interrupt)
    assert error == "interrupted on the server" and last <= 4 and seconds < max(10, 3 * a_step)
    again = base_graph() | {"sample": multi_sampler(seed), "save": save(name="again")}
    assert torch.equal(latents(group_host, again), expected)
    assert [worker.pid for worker in workers_of(group_host)] == before
    assert len(loads(group_host)) == count  # nothing was read again
    group_host.free()
    _, alive = psutil.wait_procs(
        [psutil.Process(pid) for pid in before if psutil.pid_exists(pid)], timeout=30
    )
    assert not alive
    assert torch.equal(latents(group_host, graph), expected)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_worker_is_named_and_the_next_prompt_works(group_host, seed, rank):
    graph = base_graph() | {"sample": multi_sampler(seed), "save": save()}
    expected = latents(group_host, graph)
    victim = workers_of(group_host)[rank]
    error, _, seconds, _ = interrupted_at(
        group_host, long_run(seed), 2, lambda: os.kill(victim.pid, signal.SIGKILL)
    )
    assert (
        "WanMultiGPUSampler" in error
        and f"process {victim.pid}) failed in velocity: the process died" in error
    )
    assert re.search(r"rank [01] of 2 \(cpu of ", error) and seconds < 10 + starting_seconds(group_host)
    graph["save"] = save(name="after the fault")
    assert torch.equal(latents(group_host, graph), expected)


def test_a_stalled_worker_is_named_after_the_timeout(group_host, seed):
    graph = long_run(seed)
    graph["sample"]["inputs"]["timeout"] = 5
    latents(group_host, base_graph() | {"sample": multi_sampler(seed), "save": save()})
    victim = workers_of(group_host)[1]
    error, _, seconds, _ = interrupted_at(group_host, graph, 2, lambda: os.kill(victim.pid, signal.SIGSTOP))
    assert f"process {victim.pid}) failed in velocity: no answer for 5 s" in error
    assert 4 < seconds < 10 + starting_seconds(group_host)
    assert not psutil.wait_procs([victim], timeout=30)[1]


def test_an_address_where_no_cluster_is_is_named(group_host):
    """Here, where none runs: other workers are ended for it."""
    message = "the Ray cluster at 127.0.0.1:1 could not be reached"
    refused(group_host, {"ray_address": "127.0.0.1:1"}, message)


def test_nothing_is_left_when_the_server_ends(comfyui, group_base):
    with ForkedHost(comfyui, base=group_base) as server:
        nothing_is_left(server, signal.SIGTERM)


def test_nothing_is_left_when_the_server_is_killed(group_host):
    """Runs last: the others' server is gone then."""
    nothing_is_left(group_host, signal.SIGKILL)


def nothing_is_left(server, how):
    latents(server, base_graph() | {"sample": multi_sampler(1), "save": save()})
    started = psutil.Process(server.process.pid).children(recursive=True)
    assert len(workers_of(server)) == 2 and len(started) > 4
    os.kill(server.process.pid, how)
    server.process.wait(30)
    _, alive = psutil.wait_procs(started, timeout=30)
    assert not alive
