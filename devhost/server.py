"""The HTTP client of a ComfyUI server: what it has, files up and down, and one run followed to its end."""

import contextlib
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from .errors import HostError, NodeError, RefusedError, StoppedError, UnreachableError
from .events import Events

OnEvent = Callable[[str, dict], None]
OnPosition = Callable[[int], None]
PATIENCE = {"refused": 6.0, "silent": 600.0}
"""Seconds after which a server counts as gone: one that takes no connection, and one too busy to answer."""
LOOK_EVERY = 3.0
_BUSY = (429, 503)
_ENDS = ("execution_success", "execution_error", "execution_interrupted")


class Server:
    """A ComfyUI that runs somewhere. address: host:port, or a URL where it stands behind one. Every problem is a
    HostError."""

    def __init__(self, address: str) -> None:
        self.url = (address if "://" in address else f"http://{address}").rstrip("/")
        self._client_id = uuid.uuid4().hex

    def _request(self, method: str, path: str, **options: Any) -> requests.Response:
        try:
            return requests.request(method, self.url + path, **{"timeout": (10, 60), **options})
        except requests.Timeout as error:
            raise UnreachableError(f"the server {self.url} does not answer") from error
        except requests.ConnectionError as error:
            hint = "is it running, and is the address right?"
            raise UnreachableError(f"no server answers at {self.url}: {hint}") from error
        except requests.exceptions.InvalidJSONError as error:
            raise RefusedError(f"what was to be sent is no JSON: {error}") from error
        except (requests.RequestException, ValueError) as error:
            raise UnreachableError(f"{self.url} is no address of a server: {error}") from error

    def get(self, path: str, **params: Any) -> Any:
        """The JSON answer of a path."""
        answer = self._request("GET", path, params=params)
        try:
            answer.raise_for_status()
            return answer.json()
        except (requests.HTTPError, ValueError) as error:
            status = f"{answer.status_code} {answer.headers.get('content-type', '')}".strip()
            raise UnreachableError(f"{self.url} is no ComfyUI: it answers {status} to {path}") from error

    def post(self, path: str, data: dict | None = None) -> requests.Response:
        """The answer, of any status, to JSON sent to a path."""
        return self._request("POST", path, json=data or {})

    def check(self) -> None:
        """UnreachableError unless a ComfyUI answers there."""
        stats = self.get("/system_stats")
        if not isinstance(stats, dict) or "comfyui_version" not in stats.get("system", {}):
            raise UnreachableError(f"what answers at {self.url} is no ComfyUI")

    def choices(self, class_type: str) -> dict[str, list]:
        """The lists that a node's inputs are chosen from; RefusedError where there is no such node."""
        info = self.get(f"/object_info/{class_type}").get(class_type)
        if info is None:
            is_ours = class_type.startswith("Wan")
            missing = (
                "this pack in its custom_nodes, or a version of it that has the node"
                if is_ours
                else "a newer ComfyUI"
            )
            raise RefusedError(f"the server {self.url} has no node {class_type}: it needs {missing}")
        lists = {}
        for group in ("required", "optional"):
            for name, (kind, *rest) in info["input"].get(group, {}).items():
                # older nodes give the list in the place of the type
                options = kind if isinstance(kind, list) else rest[0].get("options") if rest else None
                if isinstance(options, list):
                    lists[name] = options
        return lists

    def upload(self, file: Path, folder: str) -> str:
        """Puts a file into a folder of the server's input folder and returns its name there; the same file is stored
        once."""
        with file.open("rb") as content:
            form = {"files": {"image": (file.name, content)}, "data": {"subfolder": folder}}
            answer = self._request("POST", "/upload/image", timeout=(10, 600), **form)
        if answer.status_code == requests.codes.request_entity_too_large:
            raise RefusedError(f"the server takes no file as large as {file}: see its --max-upload-size")
        if not answer.ok:
            raise RefusedError(f"the server does not take {file}: it answers {answer.status_code}")
        stored = answer.json()
        return "/".join(part for part in (stored.get("subfolder"), stored["name"]) if part)

    def download(self, file: dict, target: Path) -> None:
        """Fetches an output file; `target` is there as a whole or not at all. OSError where it cannot be written."""
        names = {key: file.get(key, "") for key in ("filename", "subfolder", "type")}
        partial = target.with_name(target.name + ".part")
        try:
            with (
                self._request("GET", "/view", params=names, stream=True) as answer,
                partial.open("wb") as out,
            ):
                if not answer.ok:
                    raise UnreachableError(f"the server no longer has the video {names['filename']}")
                for part in answer.iter_content(1 << 20):
                    out.write(part)
            partial.replace(target)
        except requests.RequestException as error:
            raise UnreachableError(f"the server {self.url} went away during the download") from error
        finally:
            partial.unlink(missing_ok=True)

    def queue(self, prompt: dict, prompt_id: str | None = None) -> str:
        """Queues an API-format workflow and returns its id; RefusedError where it is refused."""
        prompt_id = prompt_id or str(uuid.uuid4())
        body = {"prompt": prompt, "client_id": self._client_id, "prompt_id": prompt_id}
        answer = self.post("/prompt", body)
        if answer.status_code in _BUSY:
            raise RefusedError(
                f"the server's queue is full (it answers {answer.status_code}): try again later"
            )
        if not answer.ok:
            raise RefusedError(f"the server refused the workflow: {_reasons(answer)}")
        return prompt_id

    def position(self, prompt_id: str) -> int | None:
        """Number of runs before this one; 0 while it runs, None where it is not in the queue."""
        queue = self.get("/queue")
        if any(item[1] == prompt_id for item in queue["queue_running"]):
            return 0
        waiting = [item[1] for item in sorted(queue["queue_pending"], key=lambda item: item[0])]
        return len(queue["queue_running"]) + waiting.index(prompt_id) if prompt_id in waiting else None

    def cancel(self, prompt_id: str) -> None:
        """Takes a run out of the queue or interrupts it; other runs are left alone."""
        self.post("/queue", {"delete": [prompt_id]})
        self.post("/interrupt", {"prompt_id": prompt_id})

    def interrupt(self) -> None:
        """Interrupts whatever runs."""
        self.post("/interrupt")

    def free(self) -> None:
        """Unloads all models and empties the cache."""
        self.post("/free", {"unload_models": True, "free_memory": True})

    def history(self, prompt_id: str) -> dict:
        """The entry of a finished run; it appears a moment after the last message."""
        for _ in range(100):
            if entry := self.get(f"/history/{prompt_id}").get(prompt_id):
                return entry
            time.sleep(0.05)
        raise HostError(f"the server has no history of the run {prompt_id}")

    def run(
        self,
        prompt: dict,
        on_event: OnEvent | None = None,
        on_position: OnPosition | None = None,
        timeout: float | None = 600,
        prompt_id: str | None = None,
    ) -> dict:
        """Queues an API-format workflow, waits for it, and returns its entry in the server's history.

        on_event(type, data) is given the server's messages, on_position(n) the number of runs before this one.
        NodeError where a node fails, StoppedError where the run was interrupted or has no end within `timeout`
        seconds (None: it may take any time). What counts is the server's history: a lost message ends nothing."""
        with contextlib.closing(
            Events(self.url, self._client_id)
        ) as events:  # before, so that none is missed
            prompt_id = self.queue(prompt, prompt_id)
            return _checked(self._follow(prompt_id, events, on_event, on_position, timeout))

    def _follow(
        self,
        prompt_id: str,
        events: Events,
        on_event: OnEvent | None,
        on_position: OnPosition | None,
        timeout: float | None,
    ) -> dict:
        """The entry in the history of a queued run, when it has ended."""
        deadline = time.monotonic() + timeout if timeout else float("inf")
        heard, looked, has_ended = time.monotonic(), 0.0, False
        while time.monotonic() < deadline:
            event = events.next()
            if event is not None:
                if on_event is not None:
                    on_event(*event)
                # the last message comes a moment before the run leaves the queue
                has_ended |= event[0] in _ENDS and event[1].get("prompt_id") == prompt_id
            if not has_ended and time.monotonic() - looked < LOOK_EVERY:
                continue
            looked = time.monotonic()
            try:
                before = self.position(prompt_id)
                entry = self.get(f"/history/{prompt_id}").get(prompt_id) if before is None else None
            except UnreachableError as error:
                is_silent = isinstance(error.__cause__, requests.Timeout)
                if time.monotonic() - heard > PATIENCE["silent" if is_silent else "refused"]:
                    raise UnreachableError(f"the server {self.url} went away during the run") from error
                continue
            heard = time.monotonic()
            if before is not None:
                if on_position is not None:
                    on_position(before)
            elif entry is None:
                raise StoppedError(
                    "the run left the queue unfinished: somebody removed it, or the server restarted"
                )
            elif has_ended or event is None:
                return entry
            else:
                looked = 0.0  # messages are still to be read
        raise StoppedError(f"not done within {timeout:g} s")


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


def _checked(entry: dict) -> dict:
    """The entry of a run that was successful; HostError where a node failed or it was interrupted."""
    messages = dict(entry.get("status", {}).get("messages", []))
    if "execution_interrupted" in messages:
        raise StoppedError("interrupted on the server")
    if "execution_error" in messages:
        error = messages["execution_error"]
        node = f"{error['node_type']} (node {error['node_id']})"
        raise NodeError(f"{node} failed: {error['exception_message']}")
    return entry
