"""A ComfyUI server of one's own: started headless on a free loopback port, spoken to, and ended again."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch

from .errors import HostError, UnreachableError
from .server import Server

ROOT = Path(__file__).resolve().parents[1]
LAUNCHER = Path(__file__).resolve().with_name("launcher.py")
PACK_NAME = "ComfyUI-Wan22"
BOOT_SECONDS = 180


class Host(Server):
    """A server of one's own that runs. Use as a context manager, or call `close`.

    comfyui: folder of a ComfyUI; nothing is written into it. base: folder for models, input, output and
    custom_nodes (made and removed by itself where not given). The pack is linked into base/custom_nodes."""

    def __init__(self, comfyui: Path, base: Path | None = None, arguments: tuple[str, ...] = ()) -> None:
        if not (comfyui / "main.py").is_file():
            raise HostError(f"{comfyui} is not a ComfyUI folder: it has no main.py")
        self._own_base = Path(tempfile.mkdtemp(prefix="wan22-host-")) if base is None else None
        self.base = base or self._own_base
        assert self.base is not None
        for name in ("models", "input", "output", "custom_nodes", "user"):
            (self.base / name).mkdir(parents=True, exist_ok=True)
        link = self.base / "custom_nodes" / PACK_NAME
        if not link.exists():
            link.symlink_to(ROOT, target_is_directory=True)
        port = _free_port()
        self.address = f"127.0.0.1:{port}"
        super().__init__(self.address)
        self.log = self.base / "host.log"
        options = [
            "--listen",
            "127.0.0.1",
            "--port",
            str(port),
            "--base-directory",
            str(self.base),
            "--disable-api-nodes",
            "--disable-auto-launch",
            "--preview-method",
            "latent2rgb",
            "--database-url",
            f"sqlite:///{self.base}/user/comfyui.db",
            *([] if torch.cuda.is_available() else ["--cpu"]),
            *arguments,
        ]
        self.process = self._launch(comfyui / "main.py", options)
        try:
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    def _launch(self, main: Path, options: list[str]) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(LAUNCHER), str(main), str(os.getpid()), *options]
        with self.log.open("wb") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=main.parent
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise HostError(f"ComfyUI ended while starting:\n{self.log_tail()}")
            try:
                self.get("/system_stats")
                return
            except UnreachableError:
                time.sleep(0.2)
        raise HostError(f"ComfyUI did not start within {BOOT_SECONDS} s:\n{self.log_tail()}")

    def log_tail(self, lines: int = 30) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def run(self, *args: Any, **options: Any) -> dict:
        """As `Server.run`; where the server ended during the run, the error holds what it said last."""
        try:
            return super().run(*args, **options)
        except UnreachableError as error:
            if self.process.poll() is None:
                raise
            raise UnreachableError(f"{error}:\n{self.log_tail()}") from error

    def resident_bytes(self) -> int:
        return psutil.Process(self.process.pid).memory_info().rss

    def outputs(self, entry: dict) -> list[Path]:
        """The files that a finished prompt has written."""
        assert self.base is not None
        files = []
        for output in entry["outputs"].values():
            for item in (i for value in output.values() if isinstance(value, list) for i in value):
                if isinstance(item, dict) and "filename" in item:
                    files.append(
                        self.base / item.get("type", "output") / item.get("subfolder", "") / item["filename"]
                    )
        return files

    def close(self) -> None:
        """Ends the server and all it has started, and removes the base folder if it was made here."""
        try:
            processes = [
                psutil.Process(self.process.pid),
                *psutil.Process(self.process.pid).children(recursive=True),
            ]
        except psutil.NoSuchProcess:
            processes = []
        for process in processes:
            process.terminate()
        for process in psutil.wait_procs(processes, timeout=5)[1]:
            process.kill()
        self.process.wait()
        if self._own_base is not None:
            shutil.rmtree(self._own_base, ignore_errors=True)

    def __enter__(self) -> "Host":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
