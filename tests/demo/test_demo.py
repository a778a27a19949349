"""`make demo` as a user runs it: the video, twice in a row, and nothing left behind when it is interrupted."""

import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

from devhost.host import ROOT

COMMAND = [
    sys.executable,
    "-m",
    "demo.run",
    *(["--comfyui", os.environ["COMFYUI"]] if os.environ.get("COMFYUI") else []),
]


def servers():
    """Processes of demo servers that run now."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(argument).endswith("devhost/launcher.py") for argument in process.info["cmdline"] or []):
            found.append(process.pid)
    return set(found)


def test_demo_makes_a_video():
    before = servers()
    done = subprocess.run(
        COMMAND, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=180
    )
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.strip().splitlines()[-1]
    match = re.match(r"(demo_output/.*\.mp4): 256x160, 33 frames, 16 fps", last)
    assert match and (ROOT / match[1]).stat().st_size > 1000
    assert "WanMoESampler" in done.stdout and "40/40" in done.stdout
    assert servers() <= before


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_is_left_when_interrupted(end):
    before = servers()
    demo = subprocess.Popen(COMMAND, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not servers() - before and time.monotonic() < deadline:
            time.sleep(0.1)
        assert servers() - before, "the demo has started no server"
        time.sleep(1)
        demo.send_signal(end)
        assert demo.wait(timeout=30) != 0
    finally:
        demo.kill()
    deadline = time.monotonic() + 10
    while servers() - before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not servers() - before
