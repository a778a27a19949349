"""A ComfyUI server of one's own: started headless on a free loopback port, spoken to, and ended again."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import requests
import torch
import websocket

ROOT = Path(__file__).resolve().parents[1]
PACK_NAME = "ComfyUI-Wan22"
BOOT_SECONDS = 180

OnEvent = Callable[[str, dict], None]


class HostError(RuntimeError):
    """A prompt that the host refused or that failed in it; the message is what a user would read."""


class Host:
    """A running server. Use as a context manager, or call `close`.

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
        self.port = _free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.log = self.base / "host.log"
        self.client = uuid.uuid4().hex
        command = [
            sys.executable,
            str(ROOT / "demo" / "launcher.py"),
            str(comfyui / "main.py"),
            str(os.getpid()),
            "--listen",
            "127.0.0.1",
            "--port",
            str(self.port),
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
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=comfyui
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise HostError(f"ComfyUI ended while starting:\n{self.log_tail()}")
            try:
                self.get("/system_stats")
                return
            except requests.ConnectionError:
                time.sleep(0.2)
        raise HostError(f"ComfyUI did not start within {BOOT_SECONDS} s:\n{self.log_tail()}")

    def log_tail(self, lines: int = 30) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def get(self, path: str, **params: Any) -> Any:
        response = requests.get(f"http://{self.address}{path}", params=params, timeout=60)
        response.raise_for_status()
        return response.json()

    def post(self, path: str, data: dict | None = None) -> requests.Response:
        return requests.post(f"http://{self.address}{path}", json=data or {}, timeout=60)

    def queue(self, prompt: dict) -> str:
        """Queues an API-format workflow and returns its id; HostError where the host refuses it."""
        response = self.post("/prompt", {"prompt": prompt, "client_id": self.client})
        if response.status_code != 200:
            raise HostError(_refusal(response.json()))
        return response.json()["prompt_id"]

    def run(self, prompt: dict, on_event: OnEvent | None = None, timeout: float = 600) -> dict:
        """Queues a workflow, waits for it, and returns its history entry.

        on_event(type, data) is given every message of the server's websocket. HostError where a node fails or the
        run was interrupted; TimeoutError after `timeout` seconds without an end."""
        socket_ = websocket.create_connection(f"ws://{self.address}/ws?clientId={self.client}", timeout=5)
        try:
            prompt_id = self.queue(prompt)
            deadline = time.monotonic() + timeout
            while time.monotonic() < deadline:
                try:
                    message = socket_.recv()
                except websocket.WebSocketTimeoutException:
                    continue
                except websocket.WebSocketException as error:
                    raise HostError(f"the server went away ({error}):\n{self.log_tail()}") from error
                if isinstance(message, bytes):  # a preview image
                    if on_event is not None:
                        on_event("preview", {"bytes": message})
                    continue
                event = json.loads(message)
                kind, data = event["type"], event.get("data", {})
                if on_event is not None:
                    on_event(kind, data)
                if data.get("prompt_id") != prompt_id:
                    continue
                if kind == "execution_error":
                    raise HostError(
                        f"{data['node_type']} (node {data['node_id']}): {data['exception_message'].strip()}"
                    )
                if kind == "execution_interrupted":
                    raise HostError("interrupted")
                if kind == "execution_success":
                    return self.history(prompt_id)
            raise TimeoutError(f"no end after {timeout} s:\n{self.log_tail()}")
        finally:
            socket_.close()

    def history(self, prompt_id: str) -> dict:
        """The entry of a finished prompt; it appears a moment after the last event."""
        for _ in range(100):
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry:
                return entry
            time.sleep(0.05)
        raise HostError(f"the server has no history of prompt {prompt_id}")

    def interrupt(self) -> None:
        self.post("/interrupt")

    def free(self) -> None:
        """Unloads all models and empties the cache."""
        self.post("/free", {"unload_models": True, "free_memory": True})

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


def _refusal(answer: dict) -> str:
    """The host's reasons for refusing a prompt, one line each."""
    error = answer.get("error", {})
    lines = [f"{error.get('message', 'refused')} {error.get('details', '')}".strip()]
    for node, problem in answer.get("node_errors", {}).items():
        lines += [
            f"{problem['class_type']} (node {node}): {e['message']} {e['details']}" for e in problem["errors"]
        ]
    return "\n".join(lines)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
