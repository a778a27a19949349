"""Processes that a command under test has started: its folder for temporary files tells them from those of others."""

import time

import psutil


def servers(folder):
    """Servers whose files are in that folder, as where it was TMPDIR of what started them."""
    return [p for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or [])]


def wait_for(condition, seconds=60):
    """Waits until condition() is true, and returns what it gave; it fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found
