"""tests/run_releases.py on tiny releases: its report, the videos and the sheet; a release that fails is told."""

import re
import runpy
import sys

import pytest
from forked import ForkedHost
from PIL import Image

from devhost.host import ROOT


def test_report_and_contact_sheet(releases, comfyui, tmp_path, monkeypatch, capsys):
    models = tmp_path / "models"
    models.mkdir()
    (models / "Wan2.2-Animate-2-14B").symlink_to(releases / "Wan2.2-Animate-2-14B")
    (models / "Wan2.2-Animate-14B").symlink_to(releases / "Wan2.2-Animate-14B")
    tiny = [
        "--size",
        "64*64",
        "--frame_num",
        "9",
        "--sample_steps",
        "2",
        "--comfyui",
        str(comfyui),
        "--output",
        "made",
    ]
    only = ["--only", "animate-2-14B", "animate-14B", "t2v-A14B"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("devhost.host.Host", ForkedHost)  # a ComfyUI for each release, which starts sooner
    script = str(ROOT / "tests" / "run_releases.py")
    monkeypatch.setattr(sys, "argv", [script, str(models), "1", *tiny, *only])
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(script, run_name="__main__")
    done = capsys.readouterr()
    assert end.value.code == 1, done.err  # one release is not there
    lines = done.out.splitlines()
    for line, task in zip(lines, ("animate-2-14B", "animate-14B"), strict=False):
        found = re.fullmatch(rf"{task} +([\d.]+) s   memory ([\d.]+) GiB   (no GPU|GPU [\d.]+ GiB)", line)
        assert found and 0 < float(found[1]) < 100 and 0.2 < float(found[2]) < 50, line
        assert (tmp_path / "made" / f"{task}.mp4").stat().st_size > 1000
    assert lines[2] == f"t2v-A14B     not in {models}"
    sheet = Image.open(tmp_path / "made" / "releases.jpg")
    assert sheet.size == (6 * 160, 2 * 180)
    for row in (0, 1):  # each holds pictures, and not the same one
        left = sheet.crop((0, row * 180 + 20, 160, row * 180 + 180)).convert("L")
        assert left.getextrema()[1] - left.getextrema()[0] > 20
