"""What a worker process does for `group.Group`: a `Worker`, plain data in and out, and a life sign.

Runs in processes that import this package by its own name, wherever the caller has it. So nothing that crosses over
may be an object of this package: tensors go as numpy arrays, which Ray maps into every process without a copy, and
errors as text.
"""

import os
import socket
import traceback
import warnings
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..checkpoints.patches import Patch
from .mesh import Layout
from .weights import Recipe
from .worker import Worker

_TENSOR = "__tensor__"
# what the caller did wrong, not the process: told without a traceback
_USER_ERRORS = (ValueError,)


def pack(value: Any) -> Any:
    """Tensors anywhere in dicts, lists and tuples -> arrays of bytes with dtype and shape."""
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


class Actor:
    """One worker. `call` runs one job at a time; `ask` is answered while a job runs."""

    def __init__(self, rank: int, world: int, timeout: float) -> None:
        if not torch.cuda.is_available():
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // world))
        self.worker = Worker(rank, world, timeout)
        self._store: dist.TCPStore | None = None

    def ask(self, what: str) -> Any:
        """ "beats", how much was done so far; "stats"; or "place", where the group's first process is reached."""
        if what == "beats":
            return self.worker.done()
        if what == "stats":
            return self.worker.stats()
        import ray.util

        host = ray.util.get_node_ip_address()
        # the system picks a free port, and the store has it from then on
        self._store = dist.TCPStore(host, 0, is_master=True, wait_for_workers=False)
        return host, self._store.port

    def connect(self, host: str, port: int) -> dict[str, Any]:
        store = self._store or dist.TCPStore(host, port, is_master=False, timeout=timedelta(seconds=60))
        self.worker.connect(store)
        return {**self.worker.stats(), "host": socket.gethostname()}

    def load(self, key: str, recipe: dict, patches: dict) -> dict[str, Any]:
        layout = Layout(**recipe.pop("layout"))
        made = {name: [Patch(*patch) for patch in several] for name, several in patches.items()}
        return self.worker.load(key, Recipe(**recipe, layout=layout), made)

    def call(self, method: str, *arguments: Any) -> dict[str, Any]:
        """Runs a method of this class or of `Worker`; {"result": ...} or {"error": ..., "traceback": ...}."""
        try:
            if self.worker.device.type == "cuda":
                torch.cuda.set_device(self.worker.device)  # of this thread
            job = getattr(self, method, None) or getattr(self.worker, method)
            return {"result": pack(job(*unpack(list(arguments))))}
        except Exception as error:  # told to the caller, whatever it is
            return {
                "error": f"{type(error).__name__}: {error}",
                "message": str(error),
                "is_users": isinstance(error, _USER_ERRORS),
                "is_memory": isinstance(error, (torch.OutOfMemoryError, MemoryError)),
                "is_peer": isinstance(error, dist.DistError) or "onnection" in str(error),
                "traceback": traceback.format_exc(),
            }
