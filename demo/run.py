"""From nothing to a video file: a trained miniature, a real ComfyUI, the example workflow posted to it.

Run by `make demo`. The miniatures (folder `miniature`) know a small world only: see `training.world.words`.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import av
from PIL import Image

from demo.miniature import TASKS, Task, prepare, prompt_of
from devhost.errors import HostError
from devhost.host import ROOT, Host
from devhost.progress import Progress
from devhost.setup_host import install_host

OUTPUT = ROOT / "demo_output"
_SHEET = 6
"""Frames of a contact sheet."""


def read_video(video: Path) -> tuple[list[Image.Image], float]:
    """All frames of a video file, and their rate."""
    with av.open(str(video)) as container:
        rate = float(container.streams.video[0].average_rate or 0)
        return [frame.to_image() for frame in container.decode(video=0)], rate


def contact_sheet(frames: list[Image.Image]) -> Image.Image:
    """Frames from the first to the last side by side, twice as large."""
    chosen = [frames[round(i * (len(frames) - 1) / (_SHEET - 1))] for i in range(_SHEET)]
    width, height = (2 * n for n in chosen[0].size)
    sheet = Image.new("RGB", (width * _SHEET, height))
    for i, frame in enumerate(chosen):
        sheet.paste(frame.resize((width, height), Image.Resampling.BICUBIC), (i * width, 0))
    return sheet


def make_video(comfyui: Path, task: Task, prompt: str, output: Path = OUTPUT) -> Path:
    """Runs a task on the ComfyUI in that folder; returns the video, copied to `output`."""
    graph = prompt_of(task, prompt)
    base = Path(tempfile.mkdtemp(prefix="wan22-demo-"))
    try:
        prepare(task, base)
        with Host(comfyui, base=base) as host:
            progress = Progress(graph, sys.stdout, with_steps=True)
            try:
                entry = host.run(graph, progress)
                progress.finish()
            finally:
                progress.close()
            video = host.outputs(entry)[-1]
            output.mkdir(parents=True, exist_ok=True)
            return Path(shutil.copy(video, output / video.name))
    finally:
        shutil.rmtree(base, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--comfyui", type=Path, help="a ComfyUI folder that is already there; nothing is written into it"
    )
    parser.add_argument("--task", choices=TASKS, default="t2v")
    parser.add_argument(
        "--prompt", default="", help="what is to be seen; the task's own example where not given"
    )
    chosen = parser.parse_args()
    task = TASKS[chosen.task]
    if not task.is_there:
        sys.stderr.write(
            f"the miniature of {task.release} is not in the repository, which keeps to 40 MB: make train "
            f"MODELS={chosen.task} trains it, in about an hour on two cores\n"
        )
        return 1
    # an ended demo must end its server too: make the polite signal an exception, so that everything is closed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background jobs inherit it ignored
    started = time.monotonic()
    try:
        comfyui = (chosen.comfyui or install_host()).expanduser().resolve()
        video = make_video(comfyui, task, chosen.prompt or task.prompt)
    except HostError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    frames, rate = read_video(video)
    contact_sheet(frames).save(sheet := video.with_suffix(".png"))
    sys.stdout.write(f"{os.path.relpath(sheet)}: frames of it side by side\n")
    width, height = frames[0].size
    told = f"{width}x{height}, {len(frames)} frames, {rate:g} fps"
    sys.stdout.write(f"{os.path.relpath(video)}: {told} ({time.monotonic() - started:.0f} s)\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
