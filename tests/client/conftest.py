"""Five tiny releases under their official names, something to make videos from, and the command line as a process."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from forked import ForkedHost
from PIL import Image
from safetensors.torch import save_file
from tests_media import write_film, write_sound, write_video

from demo.tiny_release import DITS, write_release
from devhost.host import ROOT
from wan_models.checkpoints.keys import to_foreign
from wan_models.checkpoints.reader import open_model

WIDTH, HEIGHT, FRAMES = 64, 48, 14
SOUND_SECONDS = 0.6


@pytest.fixture(scope="session")
def releases(tmp_path_factory) -> Path:
    """A folder with every release, named as they are downloaded."""
    folder = tmp_path_factory.mktemp("releases")
    for name in DITS:
        write_release(folder / f"Wan2.2-{name}", name=name)
    _as_published(folder / "Wan2.2-Animate-2-14B")
    return folder


def _as_published(release: Path) -> None:
    """Animate-2's files where its release has them, and its weights under the names that they have there."""
    state = dict(open_model(release))
    names = to_foreign("Animate-2 release", state)
    for file in (*release.glob("diffusion_pytorch_model*"), release / "config.json"):
        file.unlink()
    others = release / "videomodel" / "Wan-AI"
    others.mkdir(parents=True)
    for source, target in (
        ("Wan2.1_VAE.pth", "vae.pth"), ("google/umt5-xxl", "umt5-xxl"),
        *((file.name, file.name) for file in release.glob("models_*.pth")),
    ):  # fmt: skip
        (release / source).rename(others / target)
    (release / "wan_animate_2").mkdir()
    renamed = {names[name]: weight for name, weight in state.items()}
    save_file(renamed, release / "wan_animate_2" / "wan_animate_2_bf16.safetensors")


@pytest.fixture(scope="session")
def media(tmp_path_factory) -> Path:
    """A picture, a voice, a pose video, and what the official preprocessing of Animate writes."""
    folder = tmp_path_factory.mktemp("media")
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    for name in ("生日 cat.png", "src_ref.png"):
        Image.fromarray(pixels).save(folder / name)
    write_sound(folder / "talk.wav", SOUND_SECONDS)
    write_film(folder / "pose.mp4")
    for seed, name in enumerate(("pose", "bg", "mask")):
        write_video(folder / f"src_{name}.mp4", FRAMES, (WIDTH, HEIGHT), seed=seed)
    write_video(folder / "src_face.mp4", FRAMES, (512, 512), seed=4, grain=16)
    return folder


@pytest.fixture(scope="session")
def host(comfyui, releases, tmp_path_factory):
    """A running server that has the releases, one of them a folder deeper."""
    base = tmp_path_factory.mktemp("client_host")
    wan = base / "models" / "wan"
    (wan / "more").mkdir(parents=True)
    for release in releases.iterdir():
        deeper = wan / "more" if release.name.endswith("TI2V-5B") else wan
        (deeper / release.name).symlink_to(release, target_is_directory=True)
    with ForkedHost(comfyui, base=base) as server:
        yield server


@pytest.fixture
def start(tmp_path):
    """start(*arguments) runs generate.py in `tmp_path` as a user does, and returns the process."""
    running = []

    def start_(*arguments, **environment):
        command = [sys.executable, str(ROOT / "generate.py"), *map(str, arguments)]
        pipes = {name: subprocess.PIPE for name in ("stdout", "stderr")}
        process = subprocess.Popen(
            command, cwd=tmp_path, stdin=subprocess.DEVNULL, text=True, env=os.environ | environment, **pipes
        )
        running.append(process)
        return process

    yield start_
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def run(start):
    """run(*arguments) -> exit code, stdout and stderr of generate.py."""

    def run_(*arguments, **environment):
        process = start(*arguments, **environment)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    return run_
