"""A ComfyUI server as the command line needs it: what it has, files up and down, and one run followed to its end."""

import contextlib
import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
import websocket

from .errors import ARGUMENTS, FAILED, REFUSED, SERVER, STOPPED, ClientError

OnEvent = Callable[[str, dict], None]
FOLDER = "generate"
"""The sub-folder of the server's input folder that uploads go to."""
PATIENCE = {"refused": 6.0, "silent": 600.0}
"""Seconds after which a server counts as gone: one that takes no connection, and one too busy to answer."""
LOOK_EVERY = 3.0
_BUSY = (429, 503)
_ENDS = ("execution_success", "execution_error", "execution_interrupted")


class Server:
    """address: host:port, or a URL where it stands behind one. Every problem is a ClientError."""

    def __init__(self, address: str) -> None:
        self.url = (address if "://" in address else f"http://{address}").rstrip("/")
        self._client = uuid.uuid4().hex
        self._socket: websocket.WebSocket | None = None

    def _request(self, method: str, path: str, **options: Any) -> requests.Response:
        try:
            return requests.request(method, self.url + path, **{"timeout": (10, 60), **options})
        except requests.Timeout as error:
            raise ClientError(SERVER, f"the server {self.url} does not answer") from error
        except requests.ConnectionError as error:
            hint = "is it running, and is the address right?"
            raise ClientError(SERVER, f"no server answers at {self.url}: {hint}") from error
        except (requests.RequestException, ValueError) as error:
            raise ClientError(SERVER, f"{self.url} is no address of a server: {error}") from error

    def get(self, path: str) -> Any:
        """The JSON answer of a path."""
        answer = self._request("GET", path)
        try:
            answer.raise_for_status()
            return answer.json()
        except (requests.HTTPError, ValueError) as error:
            given = f"{answer.status_code} {answer.headers.get('content-type', '')}".strip()
            raise ClientError(SERVER, f"{self.url} is no ComfyUI: it answers {given} to {path}") from error

    def check(self) -> None:
        """ClientError unless a ComfyUI answers there."""
        stats = self.get("/system_stats")
        if not isinstance(stats, dict) or "comfyui_version" not in stats.get("system", {}):
            raise ClientError(SERVER, f"what answers at {self.url} is no ComfyUI")

    def choices(self, class_type: str) -> dict[str, list]:
        """The lists that a node's inputs are chosen from; ClientError where there is no such node."""
        info = self.get(f"/object_info/{class_type}").get(class_type)
        if info is None:
            is_ours = class_type.startswith("Wan")
            missing = (
                "this pack in its custom_nodes, or a version of it that has the node"
                if is_ours
                else "a newer ComfyUI"
            )
            raise ClientError(REFUSED, f"the server {self.url} has no node {class_type}: it needs {missing}")
        found = {}
        for group in ("required", "optional"):
            for name, (kind, *rest) in info["input"].get(group, {}).items():
                # older nodes give the list in the place of the type
                options = kind if isinstance(kind, list) else rest[0].get("options") if rest else None
                if isinstance(options, list):
                    found[name] = options
        return found

    def upload(self, file: Path) -> str:
        """Puts a file into the server's input folder and returns its name there; the same file is stored once."""
        with file.open("rb") as content:
            form = {"files": {"image": (file.name, content)}, "data": {"subfolder": FOLDER}}
            answer = self._request("POST", "/upload/image", timeout=(10, 600), **form)
        if answer.status_code == 413:
            raise ClientError(
                REFUSED, f"the server takes no file as large as {file}: see its --max-upload-size"
            )
        if answer.status_code != 200:
            raise ClientError(REFUSED, f"the server does not take {file}: it answers {answer.status_code}")
        stored = answer.json()
        return "/".join(part for part in (stored.get("subfolder"), stored["name"]) if part)

    def queue(self, graph: dict, prompt_id: str) -> None:
        """Queues a workflow under an id of our choice; ClientError where it is refused."""
        with contextlib.suppress(websocket.WebSocketException, OSError):
            self._listen()  # before, so that no message is missed
        body = {"prompt": graph, "client_id": self._client, "prompt_id": prompt_id}
        answer = self._request("POST", "/prompt", json=body)
        if answer.status_code in _BUSY:
            raise ClientError(
                REFUSED, f"the server's queue is full (it answers {answer.status_code}): try again later"
            )
        if answer.status_code != 200:
            raise ClientError(REFUSED, f"the server refused the workflow: {_reasons(answer)}")

    def cancel(self, prompt_id: str) -> None:
        """Takes a run out of the queue or interrupts it; other runs are left alone."""
        self._request("POST", "/queue", json={"delete": [prompt_id]})
        self._request("POST", "/interrupt", json={"prompt_id": prompt_id})

    def position(self, prompt_id: str) -> int | None:
        """How many runs are before this one; 0 while it runs, None where it is not in the queue."""
        queue = self.get("/queue")
        if any(item[1] == prompt_id for item in queue["queue_running"]):
            return 0
        waiting = [item[1] for item in sorted(queue["queue_pending"], key=lambda item: item[0])]
        return len(queue["queue_running"]) + waiting.index(prompt_id) if prompt_id in waiting else None

    def _listen(self) -> websocket.WebSocket:
        if self._socket is None:
            url = f"{self.url.replace('http', 'ws', 1)}/ws?clientId={self._client}"
            self._socket = websocket.create_connection(url, timeout=1)
        return self._socket

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def follow(
        self,
        prompt_id: str,
        on_event: OnEvent,
        on_position: Callable[[int], None],
        timeout: float | None = None,
    ) -> dict:
        """Waits for a queued run and returns its outputs by node.

        on_event(type, data) is given the server's messages, on_position(n) the number of runs before this one. What
        counts is the server's history: a lost message ends nothing."""
        deadline = time.monotonic() + timeout if timeout else float("inf")
        heard, looked, ended = time.monotonic(), 0.0, False
        while time.monotonic() < deadline:
            event = self._next_event()
            if event is not None:
                on_event(*event)
                # the last message comes a moment before the run leaves the queue
                ended = ended or (event[0] in _ENDS and event[1].get("prompt_id") == prompt_id)
            if not ended and time.monotonic() - looked < LOOK_EVERY:
                continue
            looked = time.monotonic()
            try:
                before = self.position(prompt_id)
                entry = self.get(f"/history/{prompt_id}").get(prompt_id) if before is None else None
            except ClientError as error:
                silent = isinstance(error.__cause__, requests.Timeout)
                if time.monotonic() - heard > PATIENCE["silent" if silent else "refused"]:
                    raise ClientError(SERVER, f"the server {self.url} went away during the run") from error
                continue
            heard = time.monotonic()
            if before is not None:
                on_position(before)
            elif entry is not None:
                return _outputs(entry)
            else:
                raise ClientError(
                    STOPPED, "the run left the queue unfinished: somebody removed it, or the server restarted"
                )
        raise ClientError(STOPPED, f"not done within {timeout:g} s")

    def _next_event(self) -> tuple[str, dict] | None:
        """The next message; None where none came for a second, or it is a preview. Connects anew where it must."""
        try:
            message = self._listen().recv()
        except websocket.WebSocketTimeoutException:
            return None
        except (websocket.WebSocketException, OSError):
            message = ""
        if not message:  # the connection was closed
            self.close()
            time.sleep(0.5)
            return None
        if isinstance(message, bytes):
            return None
        event = json.loads(message)
        return event["type"], event.get("data") or {}

    def download(self, file: dict, target: Path) -> None:
        """Fetches an output file; `target` is there as a whole or not at all."""
        names = {key: file.get(key, "") for key in ("filename", "subfolder", "type")}
        partial = target.with_name(target.name + ".part")
        try:
            with (
                self._request("GET", "/view", params=names, stream=True) as answer,
                partial.open("wb") as out,
            ):
                if answer.status_code != 200:
                    raise ClientError(SERVER, f"the server no longer has the video {names['filename']}")
                for part in answer.iter_content(1 << 20):
                    out.write(part)
            partial.replace(target)
        except requests.RequestException as error:
            raise ClientError(SERVER, f"the server {self.url} went away during the download") from error
        except OSError as error:
            where = "/".join(name for name in (names["subfolder"], names["filename"]) if name)
            reason = f"{target} cannot be written ({error.strerror}); on the server the video is {where}"
            raise ClientError(ARGUMENTS, reason) from error
        finally:
            partial.unlink(missing_ok=True)


def _reasons(answer: requests.Response) -> str:
    """Why a server refused a workflow."""
    try:
        problem = answer.json()
    except ValueError:
        return f"it answers {answer.status_code}"
    error = problem.get("error", {})
    if not isinstance(error, dict):
        return str(error)
    reasons = [
        f"{node['class_type']} (node {name}): {reason['message']} {reason['details']}"
        for name, node in (problem.get("node_errors") or {}).items()
        for reason in node["errors"]
    ]
    return "; ".join(reasons) or f"{error.get('message', '')} {error.get('details', '')}"


def _outputs(entry: dict) -> dict:
    """The outputs of a finished run; ClientError where a node failed or it was interrupted."""
    messages = dict(entry.get("status", {}).get("messages", []))
    if "execution_interrupted" in messages:
        raise ClientError(STOPPED, "interrupted on the server")
    if "execution_error" in messages:
        error = messages["execution_error"]
        node = f"{error['node_type']} (node {error['node_id']})"
        raise ClientError(FAILED, f"{node} failed: {error['exception_message']}")
    return entry["outputs"]
