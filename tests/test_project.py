"""What the project says of itself in several places: packages, versions, figures and the files that texts name."""

import re
from pathlib import Path

import pytest

from wan_models.families import RELEASES

tomllib = pytest.importorskip("tomllib")  # of Python 3.11
ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TEXTS = ("CONTRIBUTING.md", "docs/architecture.md", "docs/numerics.md")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_packages_are_the_same_for_pip_and_for_comfyui():
    page = "comfyui-frontend-package"  # for the registry alone: a host has one
    packages = [name for name in PROJECT["project"]["dependencies"] if not name.startswith(page)]
    assert sorted(packages) == sorted(text("requirements.txt").split())


def test_the_oldest_python_is_that_of_the_readme():
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert f"the pack itself runs in Python {oldest} too" in text("README.md")
    assert f'python-version: "{oldest}"' in text(".github/workflows/checks.yml")


def test_the_version_is_in_the_changelog():
    headings = re.findall(r"^## \[(.*)\]", text("CHANGELOG.md"), re.MULTILINE)
    assert headings[:2] == ["Unreleased", PROJECT["project"]["version"]]


@pytest.mark.parametrize("name", TEXTS)
def test_files_that_are_named_are_there(name):
    places = [ROOT, ROOT / "wan_models", ROOT / "comfy_bridge", ROOT / "wan_models" / "distributed"]
    places += [ROOT / "wan_models" / "checkpoints"]
    named = re.findall(r"`([\w./]+(?:\.\w+|/))`", text(name))
    files = [path for path in named if "/" in path or path.endswith((".py", ".md", ".toml"))]
    assert len(files) > 1
    missing = [path for path in files if not any((place / path).exists() for place in places)]
    assert set(missing) <= {"zh.md"}


def test_figures_of_the_releases():
    rows = [
        [cell.strip() for cell in line.strip("| \n").split("|")]
        for line in text("docs/numerics.md").splitlines()
    ]
    names = next(row for row in rows if "T2V-A14B" in row)
    figures = {row[0]: row[1:] for row in rows if len(row) == 1 + len(RELEASES)}
    assert set(RELEASES) == set(names) - {""}
    for place, release in enumerate(RELEASES[name] for name in names if name):
        low, high = release.guidance
        cell = {title: row[place] for title, row in figures.items()}
        assert cell["VAE"] == release.vae
        assert cell["high-noise expert from"] == (
            f"{release.boundary:g}" if release.boundary else "one model"
        )
        assert (cell["shift"], cell["steps"]) == (f"{release.shift:g}", str(release.steps))
        assert cell["CFG, low and high"] == (f"{low:g}, {high:g}" if release.boundary else f"{high:g}")
        assert cell["frames, at fps"].replace(" a clip", "") == f"{release.frames}, {release.fps}"
        assert cell["solver"] == {"unipc": "UniPC", "dpm++": "DPM++"}[release.solver]


def test_times_are_told_by_a_clock_that_nobody_sets():
    """time.time() jumps where the computer's clock is set: a length of time is none of its business."""
    rooms = ("wan_models", "comfy_bridge", "nodes", "devhost")
    found = {
        path.relative_to(ROOT).as_posix()
        for room in rooms
        for path in (ROOT / room).rglob("*.py")
        if re.search(
            r"\btime\.time\(|import time\b.*\btime\b,|from time import time\b|datetime\.now",
            path.read_text("utf-8"),
        )
    }
    assert found == {"wan_models/tools/selftest.py"}  # a seed
