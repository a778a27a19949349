"""Pictures of the example workflows as the page shows them after a run, for the host's template browser.

    python -m tests.thumbnails [name ...]              example_workflows/<name>.jpg; all where none is named
    python -m tests.thumbnails --graph <name>          docs/graph.jpg, larger

Needs chromium and playwright. Opens each drawing in the real page of a real host, sets a small size, queues it as a
user does and waits for the end. Where there is a trained miniature it makes the video; the other models are tiny and
random, so theirs is coloured noise. Picture, voice and driving video are drawn here.
"""

import argparse
import io
import json
import math
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from demo.drawings import FOLDER
from demo.miniature import TASKS, Task, place_miniature
from devhost.cpu_torch import repair_torchvision
from devhost.errors import HostError
from devhost.host import ROOT, Host
from devhost.setup_host import HOST, install_host

CHROMIUM = "/usr/bin/chromium"
SHOWN = [task for task in TASKS.values() if task.change is None]
"""Tasks whose miniatures are shown: those whose workflow runs as it is drawn."""
SMALL = {"width": 256, "height": 160, "frames": 17, "frames_per_clip": 16, "clips": 1}
SPOKEN = {"audio": "talk.wav", "file": "pose.mp4"}
DRIVEN = {"file": "driving.mp4", "fit": "exact", "length": 17, "frames_per_clip": 17}
RUN_SECONDS = 240
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False, "Comfy.Graph.CanvasInfo": False}

# runs in the page: the drawing as dropped on the canvas, with these values in the widgets of that name
LOAD = """async ([drawing, values]) => {
  await app.loadGraphData(drawing);
  const known = (node) => node.isVirtualNode || (node.constructor.nodeData && !node.has_errors);
  for (const node of app.graph._nodes)
    for (const widget of node.widgets ?? [])
      if (widget.name in values) {
        widget.value = values[widget.name];
        widget.callback?.(widget.value);
      }
  return app.graph._nodes.filter((node) => !known(node)).map((node) => node.type);
}"""
QUEUE = """async () => {
  await app.queuePrompt(0, 1);
  if (Object.keys(app.lastNodeErrors ?? {}).length) throw new Error(JSON.stringify(app.lastNodeErrors));
}"""
# the whole graph in view at a scale at which text is drawn; returns the size it takes
SHOW = """async (scale) => {
  const boxes = [...app.graph._groups, ...app.graph._nodes].map((item) => item.boundingRect ?? item.getBounding());
  const [left, top] = [0, 1].map((i) => Math.min(...boxes.map((box) => box[i])) - 30);
  const [right, bottom] = [0, 1].map((i) => Math.max(...boxes.map((box) => box[i] + box[i + 2])) + 30);
  app.canvas.ds.scale = scale;
  app.canvas.ds.offset = [-left, -top];
  app.canvas.setDirty(true, true);
  return [(right - left) * scale, (bottom - top) * scale];
}"""
FRAME = "() => document.querySelector('#graph-canvas').getBoundingClientRect().toJSON()"
ONLY_THE_GRAPH = """
body * { visibility: hidden !important; }
#graph-canvas, .dom-widget, .dom-widget *:not([visibility=hidden]) { visibility: visible !important; }
"""


def picture(t: float = 0.0, size: tuple[int, int] = (640, 400)) -> Image.Image:
    """A person on a beach at sunset, moving with t in 0..1."""
    width, height = size
    out = Image.new("RGB", size)
    draw = ImageDraw.Draw(out)
    for y in range(height):
        part = y / height
        draw.line(
            [(0, y), (width, y)], fill=(int(250 - 120 * part), int(150 - 60 * part), int(90 + 110 * part))
        )
    draw.ellipse([width * 0.68, height * 0.18, width * 0.82, height * 0.4], fill=(255, 226, 150))
    draw.rectangle([0, height * 0.75, width, height], fill=(214, 178, 120))
    swing, x, top = math.sin(t * 2 * math.pi), width * 0.42, height * 0.2
    limb = {"fill": (40, 50, 90), "width": width // 32}
    for side in (-1, 1):
        draw.line([(x, top + 90), (x + side * 70, top + 60 - side * swing * 50)], **limb)
        draw.line([(x, top + 180), (x + side * (20 + 25 * swing), top + 280)], **limb)
    draw.line([(x, top + 60), (x, top + 185)], fill=(200, 60, 60), width=width // 14)
    draw.ellipse([x - 30, top, x + 30, top + 60], fill=(240, 200, 170))
    return out


def write_inputs(folder: Path) -> None:
    """What the examples look for in the input folder."""
    import av
    from tests_media import write_film, write_sound

    folder.mkdir(parents=True, exist_ok=True)
    picture().save(folder / "example.png")
    write_sound(folder / "talk.wav", 0.9)
    write_film(folder / "pose.mp4")
    with av.open(str(folder / "driving.mp4"), "w") as film:
        stream = film.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 640, 400, "yuv420p"
        for n in range(30):
            film.mux(stream.encode(av.VideoFrame.from_image(picture(n / 30))))
        film.mux(stream.encode())


def prepare(base: Path) -> None:
    """Tiny models, inputs and settings of the page below a host's base folder."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    repair_torchvision()
    from example_files import write_example_files

    write_inputs(base / "input")
    write_example_files(base)
    for task in SHOWN:
        release = base / "models" / "wan" / task.release
        shutil.rmtree(release)
        place_miniature(task.release, release)
    user = base / "user" / "default"
    user.mkdir(parents=True)
    (user / "comfy.settings.json").write_text(json.dumps(SETTINGS))


def task_of(name: str) -> Task | None:
    """The task whose miniature shows something in a workflow."""
    workflow = name.removesuffix("_multi_gpu")
    return next((task for task in SHOWN if task.workflow == workflow), None)


def values_for(name: str) -> dict[str, Any]:
    """Values of widgets with which a workflow is run here."""
    if task := task_of(name):
        given = {key: value for values in task.inputs.values() for key, value in values.items()}
        return SPOKEN | given | {"positive": task.prompt}
    return SMALL | (DRIVEN if name.startswith(("animate", "long")) else SPOKEN)


def run_in_page(page: Any, host: Host, name: str) -> None:
    """Opens a drawing and runs it to its end. HostError where nodes are missing or the run fails."""
    drawing = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    if task := task_of(name):
        task.write(host.base / "input")
    missing = page.evaluate(LOAD, [drawing, values_for(name)])
    if missing:
        raise HostError(f"{name}: the page does not know {', '.join(missing)}")
    before = set(host.get("/history"))
    page.evaluate(QUEUE)
    for _ in range(RUN_SECONDS):
        page.wait_for_timeout(1000)
        history = host.get("/history")
        if new := set(history) - before:
            break
    else:
        raise HostError(f"{name}: no end after {RUN_SECONDS} s")
    status = history[new.pop()]["status"]
    if status["status_str"] != "success":
        raise HostError(f"{name}: {status['messages'][-1]}")
    page.wait_for_timeout(2500)  # previews are fetched and the first frames of videos decoded


def photograph(page: Any, width: int, most_bytes: int, scale: float = 0.75) -> bytes:
    """The graph as JPEG, `width` pixels wide and of at most that many bytes."""
    page.add_style_tag(content=ONLY_THE_GRAPH)
    wide, high = (math.ceil(n) for n in page.evaluate(SHOW, scale))
    frame, page_size = page.evaluate(FRAME), page.viewport_size
    page.set_viewport_size({
        "width": page_size["width"] + wide - int(frame["width"]),
        "height": page_size["height"] + high - int(frame["height"]),
    })  # fmt: skip
    page.wait_for_timeout(800)
    clip = {"x": frame["x"], "y": frame["y"], "width": wide, "height": high}
    shot = Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")
    shot = shot.resize((width, round(shot.height * width / shot.width)), Image.Resampling.LANCZOS)
    for quality in range(90, 20, -5):
        out = io.BytesIO()
        shot.save(out, "JPEG", quality=quality, optimize=True)
        if out.tell() <= most_bytes:
            break
    return out.getvalue()


def main() -> int:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--graph", action="store_true", help="docs/graph.jpg of one workflow instead")
    chosen = parser.parse_args()
    names = chosen.names or sorted(path.stem for path in FOLDER.glob("*.json"))
    with tempfile.TemporaryDirectory(prefix="wan22-pictures-") as folder:
        base = Path(folder)
        prepare(base)
        with (
            Host(HOST if HOST.is_dir() else install_host(), base=base) as host,
            sync_playwright() as playwright,
        ):
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            for name in names:
                page = browser.new_page(viewport={"width": 1600, "height": 1000})
                page.goto(f"http://{host.address}")
                page.wait_for_function("window.app?.graph && window.app.extensionManager", timeout=60_000)
                page.wait_for_timeout(1500)
                run_in_page(page, host, name)
                file = ROOT / "docs" / "graph.jpg" if chosen.graph else FOLDER / f"{name}.jpg"
                file.write_bytes(photograph(page, *((1600, 150_000) if chosen.graph else (720, 60_000))))
                sys.stdout.write(f"{file}: {file.stat().st_size:,} bytes\n")
                page.close()
            browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
