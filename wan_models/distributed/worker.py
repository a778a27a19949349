"""One process of a group: its device, the group's communication, and the models it keeps.

Every call but `done` and `stats` is one of all processes at once, with equal arguments. Knows nothing of who calls: the
actors of `group` do, and so does the self-test.
"""

import gc
import math
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from typing_extensions import Unpack

from .. import rope
from ..attention import get_attention
from ..checkpoints.patches import Patches
from ..dit.layers import BlockInputs
from ..memory import free_bytes
from .decode import decode_strip
from .fsdp import resident_bytes
from .mesh import Layout, device_of, make_mesh, rows_of
from .weights import Heartbeat, LoadedModel, Recipe


class Worker:
    """Process `rank` of `world`. timeout: seconds after which communication fails. heartbeat is called whenever some
    work is done."""

    def __init__(self, rank: int, world: int, timeout: float, heartbeat: Heartbeat = lambda: None) -> None:
        self.rank, self.world, self._heartbeat = rank, world, heartbeat
        self._done = 0
        self._marks: deque[torch.cuda.Event] = deque()
        self.device = device_of(int(os.environ.get("LOCAL_RANK", rank)))
        self.timeout = timedelta(seconds=timeout)
        self._models: dict[str, LoadedModel] = {}
        self._meshes: dict[tuple[int, int], DeviceMesh] = {}
        self._inputs: dict[str, Tensor] = {}

    def connect(self, store: dist.Store) -> None:
        """Joins the group."""
        is_gpu = self.device.type == "cuda"
        if is_gpu:
            torch.cuda.set_device(self.device)
        dist.init_process_group(
            "nccl" if is_gpu else "gloo",
            store=store,
            rank=self.rank,
            world_size=self.world,
            timeout=self.timeout,
            device_id=self.device if is_gpu else None,
        )

    def beat(self) -> None:
        """Notes that a piece of work was done, or on a GPU was given to it."""
        self._heartbeat()
        if self.device.type == "cuda":
            mark = torch.cuda.Event()
            mark.record()
            self._marks.append(mark)
        else:
            self._done += 1

    def done(self) -> int:
        """Number of pieces of work that are done; may be asked from another thread."""
        while self._marks and self._marks[0].query():
            self._marks.popleft()
            self._done += 1
        return self._done

    def measure(self) -> dict[str, float]:
        """A quick look at what layouts depend on: "flops" per second of a matrix product (half precision on GPUs),
        "bandwidth" in bytes per second that a process sends while all send to all (inf where it is alone), and "free"
        bytes of memory."""
        is_gpu = self.device.type == "cuda"
        side, dtype = (8192, torch.bfloat16) if is_gpu else (512, torch.float32)
        a = torch.randn(side, side, device=self.device, dtype=dtype)
        seconds = self._time(lambda: a @ a)
        sent = torch.zeros(self.world, (64 << 20 if is_gpu else 4 << 20) // self.world, device=self.device)
        got = torch.empty_like(sent)
        away = sent.nbytes * (self.world - 1) / self.world
        bandwidth = math.inf
        if self.world > 1:
            bandwidth = away / self._time(lambda: dist.all_to_all_single(got, sent))
        return {"flops": 2 * side**3 / seconds, "bandwidth": bandwidth, "free": self._free()}

    def _free(self) -> int:
        """Bytes of memory that this process could take."""
        free = free_bytes(self.device)
        if self.device.type == "cuda":
            return free
        return free // self.world  # processes of one machine share its memory

    def _time(self, job: Callable[[], Any], repeats: int = 3) -> float:
        """The least seconds that a job took, after one to warm up."""
        taken = []
        for _ in range(repeats + 1):
            begun = time.monotonic()
            job()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            taken.append(time.monotonic() - begun)
        return min(taken[1:])

    def load(self, key: str, recipe: Recipe, patches: Patches) -> dict[str, Any]:
        """Makes a model, or changes the patches of one that is there.

        Returns how many tensors were "read", the "seconds" that it took, and the "bytes" that the model takes here."""
        begun, read = time.monotonic(), 0
        mesh = self._mesh(recipe.layout)
        model = self._models.get(key)
        if model is not None:
            read = model.repatch(patches)
        elif self._takes_part(recipe):
            model = self._models[key] = LoadedModel(recipe, self.device, mesh, patches, self.beat)
            read = len(model.network.state_dict())
        taken = 0 if model is None else resident_bytes(model.network)
        return {"read": read, "seconds": time.monotonic() - begun, "bytes": taken}

    def keep(self, name: str, tensor: Tensor) -> None:
        """Stores an input that many steps have in common."""
        self._inputs[name] = tensor.to(self.device)

    def forget(self, names: list[str]) -> None:
        """Drops stored inputs."""
        for name in names:
            self._inputs.pop(name, None)

    @torch.no_grad()
    def velocity(
        self, key: str, inputs: Mapping[str, Any], kept: Mapping[str, str], attention: str = "auto"
    ) -> Tensor | None:
        """One forward of a DiT: `LoadedModel.velocity` of inputs and of `kept`, those that were stored before, by name.

        Returns the rows of this process's part of the batch, on the CPU, from one process of each part; None from the
        others."""
        model = self._models.get(key)
        if model is None:  # this process has no part in it
            return None
        layout = model.recipe.layout
        spare, cfg, place = self._mesh(layout).get_coordinate()  # type: ignore[misc]
        given = {name: x.to(self.device) if isinstance(x, Tensor) else x for name, x in inputs.items()}
        given |= {name: self._inputs[stored] for name, stored in kept.items()}
        batch = given["x"].shape[0]
        rows = rows_of(cfg, layout.cfg, batch)

        def run_block(index: int, block: nn.Module, x: Tensor, **block_inputs: Unpack[BlockInputs]) -> Tensor:  # noqa: ARG001
            self.beat()
            return block(x, **block_inputs)

        out = model.velocity(given, rows, get_attention(attention), run_block)
        is_needed = cfg * (rows.stop - rows.start) < batch and spare == place == 0
        return out.cpu() if is_needed else None

    @torch.no_grad()
    def encode_text(self, key: str, ids: Tensor, mask: Tensor) -> Tensor | None:
        """Features of a T5 encoder, [B, text_len, dim], from the first process."""
        network = self._models[key].network
        out = network.encode(ids.to(self.device), mask.to(self.device), lambda done, total: self.beat())  # type: ignore[operator]
        return out.cpu() if self.rank == 0 else None

    @torch.no_grad()
    def decode(self, key: str, latents: Tensor) -> Tensor:
        """This process's strip of the video that raw latents [B, z, t, h, w] decode to; see `decode_strip`."""
        network = self._models[key].network
        return decode_strip(network, latents, self.rank, self.world, self.device, self.beat)  # type: ignore[arg-type]

    def _takes_part(self, recipe: Recipe) -> bool:
        """Whether this process works on a model: those that a layout leaves over only where weights are shared."""
        return recipe.kind != "dit" or recipe.layout.fsdp or self.rank < recipe.layout.size

    def drop(self, key: str) -> None:
        """Lets go of a model, and of the memory that it took."""
        self._models.pop(key, None)
        rope.clear()
        gc.collect()  # networks whose weights are shared hold on to themselves
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def stats(self) -> dict[str, Any]:
        """Process id, device, free bytes, and bytes kept by each model."""
        return {
            "pid": os.getpid(),
            "device": str(self.device),
            "free": self._free(),
            "models": {key: resident_bytes(model.network) for key, model in self._models.items()},
        }

    def _mesh(self, layout: Layout) -> DeviceMesh:
        degrees = (layout.cfg, layout.ulysses)
        if degrees not in self._meshes:
            self._meshes[degrees] = make_mesh(layout, self.world, self.device.type)
        return self._meshes[degrees]
