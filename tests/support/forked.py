"""ComfyUI servers, and scripts inside a ComfyUI, that start in a moment: forked from one process that has imported the
large packages, which are most of such a start."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import cache
from pathlib import Path

from devhost.host import LAUNCHER, ROOT, Host

PROGRAM = Path(__file__).with_name("fork_server.py")
OWN = (
    "PYTEST_", "TEST_SEED", "RAY_", "WAN_", "KMP_DUPLICATE", "LD_LIBRARY_PATH", "PATH", "PYTHONBREAKPOINT",
    "TOKENIZERS_",
)  # fmt: skip
"""Beginnings of variables that the large packages do not read. The last five are set by decord, OpenCV, Ray and the
official code when they are imported."""
AT_START = dict(os.environ)
"""The environment before any test changed it."""


class ForkServer:
    """The process that forks, in the environment of the beginning."""

    def __init__(self):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen([sys.executable, str(PROGRAM)], text=True, env=AT_START, **pipes)
        self._lock = threading.Lock()
        self.pid, self.environment = self._process.pid, others(AT_START)

    def ask(self, **asked):
        with self._lock:
            self._process.stdin.write(f"{json.dumps(asked)}\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())


@cache
def fork_server():
    return ForkServer()


def others(environment):
    """An environment without those variables: a process of any other one is not forked."""
    return {name: value for name, value in environment.items() if not name.startswith(OWN)}


def can_fork():
    return sys.platform == "linux" and others(os.environ) == fork_server().environment


class Forked:
    """A process that was forked to run a Python program; what is used here of `subprocess.Popen`."""

    def __init__(self, arguments, cwd, out, err, environment):
        self.returncode = None
        self.pid = fork_server().ask(
            arguments=arguments, cwd=str(cwd), out=str(out), err=str(err), environment=environment
        )

    def poll(self):
        if self.returncode is None:
            self.returncode = fork_server().ask(ended=self.pid)
        return self.returncode

    def wait(self, timeout=float("inf")):
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(0.02)
        return self.returncode


def start(arguments, folder, out, err, **more):
    """Runs `python ARGUMENTS` (a file, or a module after "-m") in a folder, with `more` in its environment; its output
    goes into files, which may be the same."""
    command, environment = [str(argument) for argument in arguments], os.environ | more
    if can_fork():
        return Forked(command, folder, out, err, environment)
    with Path(out).open("ab") as stdout, Path(err).open("ab") as stderr:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": stdout, "stderr": stderr}
        return subprocess.Popen([sys.executable, *command], cwd=folder, env=environment, **pipes)


def run(*arguments, folder=ROOT, seconds=900, **more):
    """Runs what `start` does to its end, as `subprocess.run` would."""
    with tempfile.TemporaryDirectory() as files:
        out, err = Path(files) / "out", Path(files) / "err"
        process = start(arguments, folder, out, err, **more)
        try:
            code = process.wait(seconds)
        finally:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
        return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())


class ForkedHost(Host):
    """A server as `Host` starts it, and sooner."""

    def free(self):
        """As of `Server`, and done when it returns: a server looks for what it is asked to free after a prompt, and one
        that came at once would find everything as it was."""
        super().free()
        self.run({"nothing": {"class_type": "PreviewAny", "inputs": {"source": "nothing"}}})

    def _launch(self, main, options):
        self.log.write_bytes(b"")
        parent = fork_server().pid if can_fork() else os.getpid()
        return start([LAUNCHER, main, parent, *options], main.parent, self.log, self.log)


def run_script(name, comfyui, base, *arguments, seconds=900):
    """What a script of tests/host prints last, as JSON; it is given the folders of a ComfyUI, the pack, and models, and
    `arguments`."""
    done = run(
        ROOT / "tests" / "host" / name, comfyui, ROOT, base, *arguments, folder=comfyui, seconds=seconds
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])
