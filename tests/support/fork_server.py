"""Forks the processes that `forked.py` asks for: `fork_server.py`, which imports the large packages first.

Reads one JSON object a line: what to run, answered with the process's id, or whose end is asked for, answered with the
exit status, null while it runs. It ends with its standard input.
"""

import gc
import json
import os
import runpy
import signal
import sys
import tempfile
from pathlib import Path

DEVHOST = Path(__file__).resolve().parents[2] / "devhost"
MORE = (
    "aiohttp.web", "av", "ftfy", "gguf", "kornia", "requests", "sqlalchemy.orm", "spandrel", "torchaudio", "torchsde",
    "transformers.models.auto.tokenization_auto", "transformers.models.wav2vec2.modeling_wav2vec2",
)  # fmt: skip
"""Packages that a ComfyUI, its nodes or our programs import too, in a second for all of them."""
ended: dict[int, int] = {}


def reap(*_):
    """Notes how processes ended, as soon as they do: nobody waits for a process that is dead."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        ended[pid] = os.waitstatus_to_exitcode(status)


def serve():
    """Answers; in a new process it returns what that is to run."""
    for line in sys.stdin:
        asked = json.loads(line)
        if "ended" in asked:
            answer = ended.get(asked["ended"])
        elif not (answer := os.fork()):
            return asked
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()
    return None


def become(asked):
    """Runs a program as this process, as Python would: a file, or a module that follows "-m"."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    tempfile.tempdir = None  # that of its own environment
    sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = asked["arguments"]
    if sys.argv[0] == "-m":
        del sys.argv[0]
        sys.path[0] = asked["cwd"]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        return
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    gc.disable()  # until all is imported, see imports.py
    runpy.run_path(str(DEVHOST / "cpu_torch.py"))["repair_torchvision"]()
    runpy.run_path(str(DEVHOST / "imports.py"))["import_packages"](MORE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # is for who asks
    signal.signal(signal.SIGCHLD, reap)
    if program := serve():
        become(program)
