"""The host's real page in a headless Chromium, with a tiny release behind it.

Screenshots of what the tests saw are left in the folder SCREENSHOTS of the environment, or in output/screenshots."""

import os
import shutil
from pathlib import Path

import pytest
from canvas import Canvas

from demo.tiny_release import write_release
from devhost.host import ROOT, Host

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": False}
"""No guided tour, and nodes on the canvas until a test wants them as elements."""


@pytest.fixture(scope="session")
def server(comfyui, tmp_path_factory):
    base = tmp_path_factory.mktemp("browser")
    write_release(base / "models" / "wan" / "T2V-A14B")
    with Host(comfyui, base=base) as host:
        host.post("/settings", SETTINGS)
        yield host


@pytest.fixture(scope="session")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("there is no Chromium: apt-get install chromium, or its path in CHROMIUM")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def screenshots():
    folder = Path(os.environ.get("SCREENSHOTS") or ROOT / "output" / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def open_page(chromium, server, screenshots):
    canvas = Canvas(chromium, server, screenshots)
    yield canvas
    canvas.page.close()


@pytest.fixture
def canvas(open_page):
    """The page, empty; what goes wrong in our part of it fails the test."""
    open_page.clear()
    yield open_page
    assert open_page.problems == []
