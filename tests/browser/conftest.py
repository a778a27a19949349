"""The host's real page in a headless Chromium, with a tiny release behind it.

The tests run on the page of the host, and on a newer one where `make setup` has brought it; FRONT_END in the
environment is the folder of another (the static files of a comfyui-frontend-package) and runs them on that alone.
SCREENSHOTS in the environment is a folder for pictures of what the tests saw."""

import os
import shutil
from pathlib import Path

import pytest
from canvas import Canvas
from example_files import write_example_files
from forked import ForkedHost
from PIL import Image

from devhost.setup_host import HOST

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # nothing is asked outside this machine
]
NEWEST_PAGE = HOST.parent / "front_end" / "comfyui_frontend_package" / "static"
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": False}
"""No guided tour, and nodes on the canvas until a test wants them as elements."""


def _pages():
    """Front ends; None is the host's own."""
    if chosen := os.environ.get("FRONT_END"):
        return [pytest.param(Path(chosen).resolve(), id="chosen")]
    newest = pytest.param(NEWEST_PAGE, id="newest", marks=pytest.mark.long)
    return [pytest.param(None, id="own"), *([newest] if NEWEST_PAGE.is_dir() else [])]


@pytest.fixture(scope="package", params=_pages())
def front_end(request):
    """Arguments of a host for one of the front ends."""
    return () if request.param is None else ("--front-end-root", str(request.param))


@pytest.fixture(scope="package")
def example_models(tmp_path_factory):
    """The folder of models, which the servers of both front ends share."""
    base = tmp_path_factory.mktemp("example_files")
    write_example_files(base)
    return base / "models"


@pytest.fixture(scope="package")
def server(comfyui, front_end, example_models, tmp_path_factory):
    base = tmp_path_factory.mktemp("browser")
    (base / "models").symlink_to(example_models, target_is_directory=True)
    (base / "input").mkdir()
    # in portrait, with which nodes get long
    Image.new("RGB", (540, 960), "#c86432").save(base / "input" / "example.png")
    with ForkedHost(comfyui, base=base, arguments=front_end) as host:
        host.post("/settings", SETTINGS)
        yield host


@pytest.fixture(scope="package")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("there is no Chromium: apt-get install chromium, or its path in CHROMIUM")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def screenshots():
    """The folder for them, or None."""
    if not (chosen := os.environ.get("SCREENSHOTS")):
        return None
    folder = Path(chosen).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="package")
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
