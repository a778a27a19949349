"""Guard of a group's processes: kills what is left of them, and removes their files, when their owner is gone,
however it went.

Ray ends most of its processes by itself, some of its helpers only after a minute. The guard is a small process of its
own, this file run as `python guard.py`, which reads their ids from its standard input and waits for that to end.
"""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Any

_PATIENCE = 5.0
"""Seconds in which killed processes should be gone."""


class Guard:
    """A running guard over processes, by their ids, and their folder, if they have one of their own. It does its work
    when this process closes it or ends."""

    def __init__(self, pids: Iterable[int], folder: str = "") -> None:
        # in a session of its own: Ctrl-C in the owner's terminal is not for it
        self._process = subprocess.Popen(
            [sys.executable, __file__, *filter(None, [folder])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdout.readline()  # from now on it is on guard
        self._process.stdin.write(" ".join(map(str, pids)) + "\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """Kills what is left of the processes, and waits for that."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


def main() -> None:
    # whoever ends the owner with all its children still wants this done
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stdout.write("on guard\n")
    sys.stdout.flush()
    import psutil

    processes = []
    for word in sys.stdin.readline().split():
        try:
            # remembers when it was started, so a reused id is not meant
            processes.append(psutil.Process(int(word)))
        except psutil.NoSuchProcess:
            continue
    sys.stdin.read()
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    end = time.monotonic() + _PATIENCE
    while any(map(_is_alive, processes)) and time.monotonic() < end:
        time.sleep(0.02)
    for folder in sys.argv[1:]:
        shutil.rmtree(folder, ignore_errors=True)


def _is_alive(process: Any) -> bool:
    """Whether a process still holds anything; one that is dead and that its parent has not asked for does not."""
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    main()
