"""A ComfyUI that is started for one run and ended after it, with a release folder among its models."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from devhost.errors import HostError
from devhost.progress import note
from devhost.setup_host import HOST

from .errors import ARGUMENTS, SERVER, ClientError

_TORCHRUN = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
)


def comfyui_folder(chosen: str | None) -> Path:
    """The ComfyUI to start: the chosen one, or that of set-up."""
    folder = Path(chosen).resolve() if chosen else HOST
    if not (folder / "main.py").is_file():
        if chosen:
            raise ClientError(ARGUMENTS, f"--comfyui: {chosen} is not a ComfyUI folder: it has no main.py")
        raise ClientError(
            ARGUMENTS, "which ComfyUI? give --server ADDRESS or --comfyui FOLDER, or run `make setup`"
        )
    return folder


def link_models(models: Path, comfyui: Path, release: Path) -> None:
    """Fills a models folder with links: to ComfyUI's own models, and to the release in wan/."""
    (models / "wan").mkdir(parents=True)
    (models / "wan" / release.name).symlink_to(release, target_is_directory=True)
    for folder in (comfyui / "models", comfyui / "models" / "wan"):
        into = models if folder.name == "models" else models / "wan"
        for entry in folder.iterdir() if folder.is_dir() else ():
            if not (into / entry.name).exists():
                (into / entry.name).symlink_to(entry.resolve(), target_is_directory=entry.is_dir())


@contextmanager
def own_server(comfyui: Path, release: Path) -> Iterator[Any]:
    """Starts a ComfyUI (a `devhost.host.Host`) that lists `release` as wan/<its name>, and ends it."""
    try:
        from devhost.host import Host
    except ModuleNotFoundError as error:
        missing = f"this Python has no {error.name}, and cannot start a ComfyUI"
        raise ClientError(SERVER, f"{missing}: use the one that ComfyUI runs in, or give --server") from error
    for name in [n for n in os.environ if n in _TORCHRUN or n.startswith("TORCHELASTIC_")]:
        del os.environ[name]  # the server's own GPU processes find each other by themselves
    base = Path(tempfile.mkdtemp(prefix="wan22-generate-"))
    try:
        note("starting ComfyUI ...")
        try:
            link_models(base / "models", comfyui, release)
            host = Host(comfyui, base=base)
        except HostError as error:
            what, _, log = str(error).partition("\n")
            raise ClientError(SERVER, f"{what} {last_line(log)}") from error
        except OSError as error:
            raise ClientError(SERVER, f"ComfyUI cannot be started: {error}") from error
        with host:
            yield host
    finally:
        shutil.rmtree(base, ignore_errors=True)


def last_line(log: str) -> str:
    """Last line of a server that ended: mostly why it did."""
    return next((line for line in reversed(log.splitlines()) if line.strip()), "it has said nothing")
