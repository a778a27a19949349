"""Runs a ComfyUI's main.py in this process: `python launcher.py MAIN_PY PARENT_PID [arguments of main.py]`.

Ends with the process that started it, however that one ended. The pack's own folder stays off sys.path: its
nodes/ would hide the host's nodes.py.
"""

import ctypes
import gc
import os
import runpy
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Asks Linux to end this process when the one that started it is gone; elsewhere close() has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it had ended before the request
            sys.exit(1)


def main() -> None:
    here, main_py, parent = Path(__file__).resolve().parent, Path(sys.argv[1]), int(sys.argv[2])
    die_with(parent)
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() not in (here, here.parent)]
    gc.disable()  # until all is imported, see imports.py
    runpy.run_path(str(here / "cpu_torch.py"))["repair_torchvision"]()
    runpy.run_path(str(here / "imports.py"))["import_packages"]()
    sys.argv = [str(main_py), *sys.argv[3:]]
    sys.path.insert(0, str(main_py.parent))
    runpy.run_path(str(main_py), run_name="__main__")


if __name__ == "__main__":
    main()
