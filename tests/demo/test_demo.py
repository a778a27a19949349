"""`make demo` as a user runs it: the video, twice in a row, and nothing left behind when it is interrupted."""

import os
import re
import signal
import subprocess
import sys

import pytest
from forked import start
from processes import servers, wait_for

from demo import run
from devhost.host import ROOT

ARGUMENTS = ["-m", "demo.run", *(["--comfyui", os.environ["COMFYUI"]] if os.environ.get("COMFYUI") else [])]


def test_demo_makes_a_video(tmp_path):
    done = subprocess.run(
        [sys.executable, *ARGUMENTS], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.strip().splitlines()[-1]
    match = re.match(r"(demo_output/.*\.mp4): 96x96, 17 frames, 16 fps", last)
    assert match and (ROOT / match[1]).stat().st_size > 1000
    assert "WanMoESampler" in done.stdout and "40/40" in done.stdout
    assert not servers(tmp_path)


def test_a_miniature_that_is_not_there_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("demo.miniature.MINIATURE", tmp_path)
    monkeypatch.setattr("sys.argv", ["demo", "--task", "animate2"])
    assert run.main() == 1
    assert "make train MODELS=animate2" in capsys.readouterr().err


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_is_left_when_interrupted(end, tmp_path):
    demo = start(ARGUMENTS, ROOT, os.devnull, os.devnull, TMPDIR=str(tmp_path))
    try:
        wait_for(lambda: servers(tmp_path))
        wait_for(lambda: any(log.stat().st_size for log in tmp_path.glob("*/host.log")))  # it is starting
        os.kill(demo.pid, end)
        assert demo.wait(60) != 0
    finally:
        if demo.poll() is None:
            os.kill(demo.pid, signal.SIGKILL)
    wait_for(lambda: not servers(tmp_path))
