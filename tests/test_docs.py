"""The documentation's numbers are the code's, and its links lead somewhere."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import av
import pytest
import torch
from PIL import Image
from tests_media import write_sound

from demo.tiny_release import DITS, write_release
from wan_models.config import CLIPConfig, DiTConfig, DrivenConfig, FaceConfig, SpeechConfig, T5Config
from wan_models.dit.animate import WanAnimateModel
from wan_models.dit.animate2 import WanAnimate2Model
from wan_models.dit.base import WanModel
from wan_models.dit.speech import WanSpeechModel
from wan_models.families import RELEASES
from wan_models.images.sizes import size_for_i2v, size_for_s2v, size_for_ti2v
from wan_models.pipelines.base import Settings
from wan_models.text.umt5 import UMT5Encoder
from wan_models.vision.clip import VisionTransformer

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
A14B = DiTConfig()
# shapes of the published checkpoints, which at run time are read from their headers
NETWORKS = {
    "T2V-A14B": (WanModel, A14B),
    "I2V-A14B": (WanModel, replace(A14B, family="i2v", in_dim=36)),
    "TI2V-5B": (
        WanModel,
        replace(A14B, family="ti2v", in_dim=48, out_dim=48, dim=3072, ffn_dim=14336, num_heads=24, num_layers=30),
    ),
    "S2V-14B": (WanSpeechModel, replace(A14B, family="s2v", speech=SpeechConfig())),
    "Animate-14B": (
        WanAnimateModel, replace(A14B, family="animate", in_dim=36, image_dim=1280, face=FaceConfig()),
    ),
    "Animate-2-14B": (
        WanAnimate2Model, replace(A14B, family="animate2", in_dim=36, image_dim=1280, driven=DrivenConfig()),
    ),
}  # fmt: skip


def parameters(network, config):
    with torch.device("meta"):
        return sum(p.numel() for p in network(config).parameters())


def gib(network, config):
    return f"{2 * parameters(network, config) / 2**30:.1f} GiB"


def page(release):
    return (ROOT / "docs" / f"{RELEASES[release].family}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("release", RELEASES)
def test_settings_are_the_codes(release):
    r = RELEASES[release]
    low, high = (f"{scale:g}" for scale in r.guidance)
    scale = low if r.boundary is None else f"{high}, {low}"
    boundary = [] if r.boundary is None else [f"{r.boundary:g}"]
    row = [str(r.steps), f"{r.shift:g}", scale, *boundary, r.solver, f"{r.frames}, {r.fps}"]
    assert f"| {' | '.join(row)} |" in page(release)
    (line,) = (line for line in README.splitlines() if line.startswith(f"| [{release}]"))
    for value in (
        f"{r.steps} steps",
        f"shift {r.shift:g}",
        f"CFG {scale.replace(', ', ' / ')}",
        f"{r.fps} fps",
    ):
        assert value in line, value


@pytest.mark.parametrize("release", RELEASES)
def test_memory_is_that_of_the_weights(release):
    size = gib(*NETWORKS[release])
    assert size in page(release)
    assert gib(UMT5Encoder, T5Config()) in page("T2V-A14B")
    assert gib(VisionTransformer, CLIPConfig()) in page("Animate-14B")
    assert size in README


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_links_lead_somewhere(file):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", file.read_text(encoding="utf-8"))
    missing = [link for link in links if not (file.parent / link).exists()]
    assert not missing


def test_every_workflow_is_in_the_readme():
    assert not [f.stem for f in (ROOT / "example_workflows").glob("*.json") if f"`{f.stem}`" not in README]


@pytest.mark.parametrize(
    ("folder", "page"),
    [("", "README.md"), ("wan_models", "docs/architecture.md"), ("comfy_bridge", "docs/architecture.md")],
)
def test_every_folder_is_in_the_table_of_folders(folder, page):
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT / folder, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = listed.stdout.splitlines()
    rooms = {Path(file).parts[0] for file in files if "/" in file and not file.startswith(".")}
    text = (ROOT / page).read_text(encoding="utf-8")
    assert rooms
    assert [room for room in sorted(rooms) if f"`{room}/`" not in text] == []


@pytest.mark.parametrize("file", ["CONTRIBUTING.md", "docs/architecture.md", "docs/numerics.md"])
def test_files_that_developers_are_sent_to_are_there(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:\w+/)+\w+\.(?:py|md))`", text))
    rooms = ("", "wan_models", "comfy_bridge", "comfy_bridge/sampling", "wan_models/distributed")
    for path in named:
        assert any((ROOT / room / path).is_file() for room in rooms), path
    assert named


@pytest.mark.slow
def test_the_code_in_python_md_runs(tmp_path, monkeypatch, capsys):
    """All of it in order, as it stands but for the device and the size, with tiny releases."""
    monkeypatch.chdir(tmp_path)
    for name in DITS:
        write_release(tmp_path / f"Wan2.2-{name}", name=name)
    for name in ("cat", "woman", "knight"):
        Image.new("RGB", (64, 48), (200, 120, 40)).save(f"{name}.png")
    write_sound(tmp_path / "voice.wav", 0.4)
    official = Settings.of_release

    def small(release):
        frames = 4 if release.family == "s2v" else 5
        return replace(official(release), steps=2, width=64, height=64, frames=frames)

    monkeypatch.setattr(Settings, "of_release", small)
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    first, *others = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(first.splitlines()) == 15
    shapes, names = [], {"poses": torch.rand(6, 48, 64, 3), "faces": torch.rand(6, 40, 40, 3)}
    names |= {"knight": torch.rand(1, 48, 64, 3), "dance": torch.rand(6, 40, 40, 3)}
    for code in (first, *others):
        code = code.replace('"cuda"', '"cpu"').replace("width=832, height=480", "width=64, height=48")
        code = code.replace("640 * 800", "64 * 48")
        exec(code, names)
        shapes.append(tuple(names["frames"].shape))
        assert names["frames"].isfinite().all()
    area = 64 * 64
    (wide, high), (columns, rows) = size_for_ti2v(64, 48, area), size_for_i2v(64, 48, area)
    across, down = size_for_s2v(64, 48, area)
    assert shapes[:6] == [
        (5, 48, 64, 3), (5, rows, columns, 3), (5, high, wide, 3), (6, down, across, 3), (6, 48, 64, 3), (6, 48, 64, 3),
    ]  # fmt: skip
    with av.open("video.mp4") as film:
        assert len(list(film.decode(video=0))) == 5
    assert "a text-to-video diffusion model" in capsys.readouterr().out
