"""A group of worker processes, one per GPU, that the caller's process works with as with one big GPU.

The contract:

- **Processes** are Ray actors: of this machine by default, then Ray itself is started and ended here; of an existing
  cluster where its address is given. On a machine without GPUs they are CPU processes and talk through gloo.
- **One job** is in flight at a time, and it is one of all processes. Inputs are plain data and tensors; what many steps
  have in common (text, images, LoRA patches) is put into Ray's object store once, and every process maps it from there.
- **Weights** are never sent. A process gets a recipe (path, dtypes, layout), reads the file by itself through mmap, so
  that a machine holds one copy of it in its page cache, and keeps the model until it is dropped.
- **Waiting** can be ended: `check_cancelled` is called ten times a second and may raise. The job then ends by itself,
  its result is dropped, and the next job waits for it.
- **A process that dies, fails alone or stalls** (no sign of progress from it for `timeout` seconds) ends the group: a
  `GroupError` says which rank, where, and why. The next job starts a new one. Where those that have a part in a job
  refuse it for the same reason, it is the caller's mistake: a ValueError, and the group lives on.
- **Closing** ends all processes and frees all they hold. That also happens when the caller's process ends in any way.
"""

import atexit
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.patches import Patches
from .actor import pack
from .jobs import GroupError, Jobs
from .loaded_models import Loaded, LoadedModels
from .ray_cluster import RayCluster
from .tensors import KeptTensors
from .weights import Recipe

__all__ = ["Group", "GroupError"]


class Group:
    """`size` processes, started when first needed; 0 for one per GPU that there is.

    address: of an existing Ray cluster ("auto" or "host:6379"), "" for this machine. timeout: seconds without progress
    after which a process counts as stalled. check_cancelled: see the contract."""

    def __init__(
        self,
        size: int,
        address: str = "",
        timeout: float = 120.0,
        check_cancelled: Callable[[], None] = lambda: None,
    ) -> None:
        self.requested, self.address = size, address
        self._cluster = RayCluster(address)
        self._jobs = Jobs(timeout, check_cancelled, self.close)
        self._models, self._kept = LoadedModels(self._jobs), KeptTensors(self._jobs)
        self._lock = threading.RLock()
        atexit.register(self.close)

    @property
    def is_running(self) -> bool:
        return bool(self._jobs.actors)

    @property
    def loads(self) -> dict[str, Loaded]:
        """Models that are loaded, by key."""
        return self._models.by_key

    @property
    def size(self) -> int:
        """Number of processes; 0 until they are started where all GPUs were asked for."""
        return len(self._jobs.actors) or self.requested

    @property
    def places(self) -> list[dict[str, Any]]:
        """Place of each process, by rank: "host", "device" and "pid"; [] where none runs."""
        return self._jobs.places

    def set_timeout(self, seconds: float) -> None:
        """Sets the seconds without progress after which a process counts as stalled, from the next job on."""
        self._jobs.timeout = seconds

    def start(self) -> None:
        """Starts the processes, unless they run. ValueError where there are fewer GPUs, or no Ray."""
        if self.is_running:
            return
        begun, jobs = time.monotonic(), self._jobs
        try:
            # torch's own limit is only for what ours does not see
            jobs.connect(self._cluster.start(self.requested, jobs.timeout + 60, jobs.check_cancelled))
        except BaseException:
            self.close()
            raise
        self._cluster.guard(place["pid"] for place in self.places)
        devices = ", ".join(sorted({place["device"] for place in self.places}))
        seconds = time.monotonic() - begun
        logging.info("[Wan2.2] %d worker processes on %s after %.1f s", self.size, devices, seconds)

    def load(
        self,
        recipe: Recipe,
        patches: Callable[[], Patches] = dict,
        version: object = None,
        needed: float = 0.0,
    ) -> str:
        """Makes sure that a model is there with these patches, which are asked for where `version` says that they are
        others. Returns the key that other calls know it by.

        Models of the same file in another layout go first, then older ones while less than `needed` bytes are free in
        some process."""
        with self._turn():
            self.start()
            return self._models.load(recipe, patches, version, needed)

    def velocity(self, key: str, inputs: Mapping[str, Any], attention: str = "auto") -> Tensor:
        """One forward of a loaded DiT; inputs as of `LoadedModel.velocity`. [B, C, F, H, W] on the CPU."""
        with self._turn() as jobs:
            step, names = {}, {}
            for name, value in inputs.items():
                if isinstance(value, Tensor) and name not in ("x", "timestep"):
                    names[name] = self._kept.keep(name, value)
                else:
                    step[name] = value
            outs = jobs.run("velocity", key, jobs.put(step), names, attention)
            return torch.cat([out for out in outs if out is not None])

    def encode_text(self, key: str, ids: Tensor, mask: Tensor) -> Tensor:
        """Features of a loaded T5 encoder, [B, text_len, dim] on the CPU."""
        with self._turn() as jobs:
            return jobs.run("encode_text", key, pack(ids), pack(mask))[0].clone()

    def decode(self, key: str, latents: Tensor) -> Tensor:
        """The video [B, 3, T, H, W] that raw latents decode to, on the CPU, each process making a strip."""
        with self._turn() as jobs:
            return torch.cat(jobs.run("decode", key, jobs.put(latents)), dim=-1)

    def measure(self) -> list[dict[str, float]]:
        """Speed, bandwidth and free memory of each process; see `Worker.measure`."""
        with self._turn() as jobs:
            self.start()
            return jobs.run("measure")

    def drop(self, key: str) -> None:
        """Lets go of a model, if it is there."""
        with self._lock:
            if key in self.loads:
                self._jobs.drain()
                self._models.drop(key)

    def stats(self) -> list[dict[str, Any]]:
        """Report of each process: id, device, and bytes by model. [] where none runs."""
        return self._jobs.ask("stats") if self.is_running else []

    def close(self) -> None:
        """Ends all processes. The group can be used again and then starts anew."""
        # without the lock: when the caller's process exits, a thread of it may still hold that
        actors = self._jobs.release()
        self._models, self._kept = LoadedModels(self._jobs), KeptTensors(self._jobs)
        self._cluster.stop(actors)

    @contextmanager
    def _turn(self) -> Iterator[Jobs]:
        """The jobs for this thread alone, with none left in flight."""
        with self._lock:
            self._jobs.drain()
            yield self._jobs
