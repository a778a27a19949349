"""Actor of a worker process, as Ray runs it for `group.Group`: a `Worker`, with plain data in and out.

Runs in processes that import this package by its own name, wherever the caller has it. So nothing that crosses over
may be an object of this package: tensors go as numpy arrays, which Ray maps into every process without a copy, and
errors as text.
"""

import os
import socket
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypedDict

import torch
import torch.distributed as dist
from torch import Tensor

from ..checkpoints.patches import Patch
from .mesh import Layout
from .store import listening_store
from .weights import Recipe
from .worker import Worker

_TENSOR = "__tensor__"


def pack(value: Any) -> Any:
    """Plain data of tensors, dicts, lists and tuples: each tensor as an array of bytes with dtype and shape."""
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return {_TENSOR: flat, "dtype": str(value.dtype).removeprefix("torch."), "shape": tuple(value.shape)}
    if isinstance(value, dict):
        return {key: pack(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [pack(item) for item in value]
    return value


def unpack(value: Any) -> Any:
    """The inverse of `pack`; tuples come back as lists. Tensors share the arrays' memory, which must not be
    written to."""
    if isinstance(value, dict):
        if _TENSOR not in value:
            return {key: unpack(item) for key, item in value.items()}
        if not value[_TENSOR].size:
            return torch.empty(value["shape"], dtype=getattr(torch, value["dtype"]))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            flat = torch.from_numpy(value[_TENSOR])
        return flat.view(getattr(torch, value["dtype"])).view(value["shape"])
    return [unpack(item) for item in value] if isinstance(value, list) else value


class Outcome(TypedDict, total=False):
    """Outcome of a job in one process: a result, or an error, whose kind is one of `BLAME`."""

    result: Any
    error: str
    kind: str
    message: str
    """Text of the exception, without its type."""
    traceback: str


# kinds of errors, by how sure each is the cause where several processes have failed; "input" is the caller's mistake,
# "peer" that another process was lost
BLAME = {"dead": 0, "stalled": 1, "memory": 2, "failed": 3, "input": 3, "peer": 4}


class Actor:
    """One worker. `call` runs one job at a time; `ask` is answered while a job runs."""

    def __init__(self, rank: int, world: int, timeout: float) -> None:
        if not torch.cuda.is_available():
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // world))
        self.worker = Worker(rank, world, timeout)
        self._store: dist.TCPStore | None = None

    def call(self, method: str, *arguments: Any) -> Outcome:
        """Runs a method of this class or of `Worker` on packed arguments; the result is packed too."""
        try:
            if self.worker.device.type == "cuda":
                torch.cuda.set_device(self.worker.device)  # of this thread
            return {"result": pack(self._method(method)(*unpack(list(arguments))))}
        except Exception as error:  # told to the caller, whatever it is
            return {
                "error": f"{type(error).__name__}: {error}",
                "kind": _kind(error),
                "message": str(error),
                "traceback": traceback.format_exc(),
            }

    def ask(self, method: str) -> Any:
        """Runs a quick method that disturbs no job: `rendezvous`, or `done` or `stats` of `Worker`."""
        return self._method(method)()

    def rendezvous(self) -> tuple[str, int]:
        """Host and port at which the processes of the group find each other; asked of the first one only."""
        import ray.util

        host = ray.util.get_node_ip_address()
        self._store = listening_store(host)
        return host, self._store.port

    def connect(self, host: str, port: int) -> dict[str, Any]:
        """Joins the group that meets there; returns `Worker.stats` and the name of this machine."""
        store = self._store or dist.TCPStore(host, port, is_master=False, timeout=timedelta(seconds=60))
        self.worker.connect(store)
        return {**self.worker.stats(), "host": socket.gethostname()}

    def load(self, key: str, recipe: dict, patches: dict) -> dict[str, Any]:
        """`Worker.load` of a recipe and patches as plain data."""
        layout = Layout(**recipe.pop("layout"))
        patches = {name: [Patch(*patch) for patch in several] for name, several in patches.items()}
        return self.worker.load(key, Recipe(**recipe, layout=layout), patches)

    def _method(self, name: str) -> Callable[..., Any]:
        return getattr(self, name, None) or getattr(self.worker, name)


def _kind(error: Exception) -> str:
    if isinstance(error, ValueError):
        return "input"
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return "memory"
    return "peer" if isinstance(error, dist.DistError) or "onnection" in str(error) else "failed"
