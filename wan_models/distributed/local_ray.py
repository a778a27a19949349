"""Keeps others out of a Ray: one that is started here listens on the loopback interface only, has its files in a
folder of its own user's, and takes nothing from who does not know its token.

Whoever reaches a Ray can have it run code of theirs: what it sends to its processes is unpickled there.
"""

import importlib
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FIRST_WITH_TOKENS = (2, 52)
INSTALL = "pip install 'ray>=2.52'"
_MODE = "RAY_AUTH_MODE"


def import_ray() -> Any:
    """The package ray. ValueError, with what to install, where it is not there or older than its tokens."""
    try:
        ray = importlib.import_module("ray")
    except ImportError:
        raise ValueError(
            f"working on several GPUs needs the package ray. Install it with: {INSTALL}"
        ) from None
    if tuple(int(number) for number in ray.__version__.split(".")[:2]) < FIRST_WITH_TOKENS:
        raise ValueError(
            f"ray {ray.__version__} lets everybody who reaches it run code. Install a newer one with: {INSTALL}"
        )
    return ray


def use_token(is_own: bool) -> None:
    """Has Ray, before it starts, ask for the user's token and show it; one is made for a Ray of our own.

    Whoever has set RAY_AUTH_MODE has decided. ValueError where the token's file cannot be written."""
    if _MODE in os.environ:
        return
    file = Path.home() / ".ray" / "auth_token"
    is_elsewhere = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    if not is_elsewhere and is_own:
        _make_private(file)
    if is_elsewhere or file.exists():
        os.environ[_MODE] = "token"
        if "ray._raylet" in sys.modules:  # it has read the variable when it was imported
            sys.modules["ray._raylet"].Config.initialize("")


def _make_private(file: Path) -> None:
    """Makes a token in a file, unless there is one, that nobody but the user may read."""
    try:
        file.parent.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileExistsError):
            new = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(new, secrets.token_hex(32).encode())
            os.close(new)
        file.chmod(0o600)
    except OSError as error:
        raise ValueError(
            f"the token that keeps others out of Ray could not be written to {file} ({error.strerror}): make that "
            "possible, or set the environment variable RAY_AUTH_TOKEN to a long random text"
        ) from None


def private_folder() -> str:
    """A new folder that only this user may enter: what Ray makes in it, others may write to. Short, for paths of
    sockets are."""
    base = os.environ.get("RAY_TMPDIR") or ("/tmp" if os.name == "posix" else None)
    return tempfile.mkdtemp(prefix="ray-", dir=base)


@contextmanager
def on_loopback() -> Iterator[None]:
    """A Ray that is started meanwhile has 127.0.0.1 as its address, and listens on it alone.

    Ray does so by itself on Windows and macOS, and has no option for it elsewhere."""
    constants: Any = sys.modules.get("ray._private.ray_constants")
    if constants is None:  # no Ray that could be started
        yield
        return
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


_HELPERS = ("start_log_monitor", "start_api_server", "start_monitor")


@contextmanager
def without_helpers() -> Iterator[None]:
    """A Ray that is started meanwhile has no process that reads its logs, none for its dashboard and none that adds
    machines: nobody is told of them, and Ray, which has no option for it, starts seconds later with all three."""
    node: Any = getattr(sys.modules.get("ray._private.node"), "Node", None)
    before = {name: getattr(node, name) for name in _HELPERS if hasattr(node, name)}
    for name in before:
        setattr(node, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(node, name, method)
