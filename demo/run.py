"""From nothing to a video file: a tiny release, a real ComfyUI, the example workflow posted to it.

Run by `make demo`. What it proves is the way from a workflow to an mp4; the weights are random and small, so the
picture is coloured noise.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import av

from demo.tiny_release import write_release
from devhost.errors import HostError
from devhost.host import ROOT, Host
from devhost.progress import Progress
from devhost.setup_host import install_host

WORKFLOW = ROOT / "example_workflows" / "api" / "t2v_a14b.json"
SIZE = {"width": 256, "height": 160, "frames": 33}
OUTPUT = ROOT / "demo_output"


def describe(video: Path) -> str:
    """Size, frame count and rate of a video file, read back from it."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        frames = sum(1 for _ in container.decode(stream))
        return f"{stream.width}x{stream.height}, {frames} frames, {float(stream.average_rate or 0):g} fps"


def make_video(comfyui: Path, output: Path = OUTPUT) -> Path:
    """Runs the demo on the ComfyUI in that folder; returns the video, copied to `output`."""
    prompt = json.loads(WORKFLOW.read_text())
    for node in prompt.values():
        if node["class_type"] == "WanEmptyLatent":
            node["inputs"] |= SIZE
    base = Path(tempfile.mkdtemp(prefix="wan22-demo-"))
    try:
        write_release(base / "models" / "wan" / "T2V-A14B")
        with Host(comfyui, base=base) as host:
            progress = Progress(prompt, sys.stdout, with_steps=True)
            try:
                entry = host.run(prompt, progress)
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
    chosen = parser.parse_args().comfyui
    # an ended demo must end its server too: make the polite signal an exception, so that everything is closed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background jobs inherit it ignored
    started = time.monotonic()
    try:
        video = make_video((chosen or install_host()).expanduser().resolve())
    except HostError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    sys.stdout.write(f"{os.path.relpath(video)}: {describe(video)} ({time.monotonic() - started:.0f} s)\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
