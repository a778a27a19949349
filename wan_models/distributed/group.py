"""A group of worker processes, one per GPU, that the caller's process works with as with one big GPU.

The contract:

- **Processes** are Ray actors: of this machine by default, then Ray itself is started and ended here; of an existing
  cluster where its address is given. On a machine without GPUs they are CPU processes and talk through gloo.
- **One job** is in flight at a time, and it is one of all processes. Inputs are plain data and tensors; what many steps
  have in common (text, images, LoRA patches) is put into Ray's object store once, and every process maps it from there.
- **Weights** are never sent. A process gets a recipe (path, dtypes, layout), reads the file by itself through mmap, so
  that a machine holds one copy of it in its page cache, and keeps the model until it is dropped.
- **Waiting** can be ended: `hear_cancel` is called ten times a second and may raise. The job then ends by itself, its
  result is dropped, and the next job waits for it.
- **A process that dies, fails alone or stalls** (no sign of progress from it for `timeout` seconds) ends the group: a
  `GroupError` says which rank, where, and why. The next job starts a new one. Where those
  that have a part in a job refuse it for the same reason, it is the caller's mistake: a ValueError, and the group lives
  on.
- **Closing** ends all processes and frees all they hold. That also happens when the caller's process ends in any way.
"""

import atexit
import importlib
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.patches import Patches
from ..content import Seen
from .actor import pack, unpack
from .life_signs import LifeSigns
from .weights import Recipe

INSTALL = "pip install 'ray>=2.9'"
_PACKAGE = Path(__file__).resolve().parents[1]
# how long the others are given to tell what they saw when one process has failed
_GRACE_SECONDS = 3.0
_OBJECT_STORE_BYTES = 4 << 30
# a process first imports torch, which takes long from a cold disk
_START_SECONDS = 120.0
# where there is no GPU and no number was asked for
_CPU_PROCESSES = 2


class GroupError(RuntimeError):
    """A process of the group died, failed or stalled; the next job starts a new group."""


def _ray() -> Any:
    # Ray asks for tokens by default, and looks for the user's own only where told to before its import
    has_token = (Path.home() / ".ray" / "auth_token").exists()
    if has_token or "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise ValueError(
            f"working on several GPUs needs the package ray. Install it with: {INSTALL}"
        ) from None


class Group:
    """`size` processes, started when first needed; 0 for one per GPU that there is.

    address: of an existing Ray cluster ("auto" or "host:6379"), "" for this machine. timeout: seconds without progress
    after which a process counts as stalled. hear_cancel: see the contract."""

    def __init__(
        self,
        size: int,
        address: str = "",
        timeout: float = 120.0,
        hear_cancel: Callable[[], None] = lambda: None,
    ) -> None:
        self.requested, self.address, self.timeout, self.hear_cancel = size, address, timeout, hear_cancel
        self.size = size
        """Processes; known once they are started where all GPUs were asked for."""
        self.places: list[dict[str, Any]] = []
        self.loads: dict[str, dict[str, Any]] = {}
        """What is loaded, by key, with what each process reported when it loaded it."""
        self._actors: list[Any] = []
        self._ray_ended: threading.Event | None = None
        self._guard: subprocess.Popen | None = None
        self._in_flight: list[Any] = []
        self._kept: dict[str, list[tuple[Seen, str]]] = {}
        self._count = 0
        self._lock = threading.RLock()
        atexit.register(self.close)

    @property
    def is_running(self) -> bool:
        return bool(self._actors)

    def start(self) -> None:
        """Starts the processes, unless they run. ValueError where there are fewer GPUs, or no Ray."""
        if self._actors:
            return
        ray = _ray()
        begun = time.monotonic()
        if not ray.is_initialized():
            self._start_ray(ray)
        try:
            self._set_size(ray)
            self._actors = self._make_actors(ray)
            host, port = self._answers([self._actors[0].ask.remote("place")])[0]
            # the store answers at its own node only where the group is of this machine
            self.places = self._run("connect", host, port)
        except BaseException:
            self.close()
            raise
        self._set_guard()
        logging.info(
            "[Wan2.2] %d worker processes on %s after %.1f s",
            self.size,
            ", ".join(sorted({place["device"] for place in self.places})),
            time.monotonic() - begun,
        )

    def load(
        self,
        recipe: Recipe,
        patches: Callable[[], Patches] = dict,
        version: Any = None,
        needed: float = 0.0,
    ) -> str:
        """Makes sure that a model is there with these patches, which are asked for where `version` says that they are
        others. Returns the key that other calls know it by.

        Models of the same file in another layout go first, then older ones while less than `needed` bytes are free in
        some process."""
        key = str(recipe)
        with self._lock:
            self._settle()
            known = self.loads.get(key)
            if known is not None and known["version"] == version:
                return key
            self.start()
            if known is None:
                self._make_room(recipe, needed)
            ray = _ray()
            # one copy for all, mapped into each process
            shared = ray.put(
                pack({name: [tuple(patch) for patch in several] for name, several in patches().items()})
            )
            self._send("load", key, asdict(recipe), shared)
            # noted before it is waited for: after a Cancel it is there all the same, with patches that nobody knows
            unsure = {
                "version": object(),
                "reports": known["reports"] if known else [{}],
                "path": recipe.path,
            }
            self.loads[key] = unsure
            try:
                reports = self._receive("load")
            except ValueError:
                if known is None:  # no process has it
                    self.loads.pop(key, None)
                raise
            self.loads[key] = {"version": version, "reports": reports, "path": recipe.path}
            seconds = max(report["seconds"] for report in reports)
            read = reports[0]["read"]
            logging.info("[Wan2.2] workers: %d tensors of %s read in %.1f s", read, recipe.path, seconds)
            return key

    def _make_room(self, recipe: Recipe, needed: float) -> None:
        for key in [key for key, loaded in self.loads.items() if loaded["path"] == recipe.path]:
            self.drop(key)
        for key in list(self.loads):
            if min(one["free"] for one in self.stats()) > needed:
                break
            self.drop(key)

    def velocity(self, key: str, inputs: Mapping[str, Any], attention: str = "auto") -> Tensor:
        """One forward of a loaded DiT; inputs by the names of `StepModel.velocity`. [B, C, F, H, W] on the CPU."""
        with self._lock:
            self._settle()
            step = {name: inputs[name] for name in ("x", "timestep")}
            kept = {}
            for name, value in inputs.items():
                if isinstance(value, Tensor) and name not in step:
                    kept[name] = self._keep(name, value)
                elif name not in step:
                    step[name] = value
            # copies on the host: the caller may go on with its own while a cancelled job still runs
            outs = self._run("velocity", key, _ray().put(pack(step)), kept, attention)
            return torch.cat([out for out in outs if out is not None])

    def encode_text(self, key: str, ids: Tensor, mask: Tensor) -> Tensor:
        """Features of a loaded T5 encoder, [B, text_len, dim] on the CPU."""
        with self._lock:
            self._settle()
            return self._run("encode_text", key, pack(ids), pack(mask))[0].clone()

    def decode(self, key: str, latents: Tensor) -> Tensor:
        """The video [B, 3, T, H, W] that raw latents decode to, on the CPU, each process making a strip."""
        with self._lock:
            self._settle()
            return torch.cat(self._run("decode", key, _ray().put(pack(latents))), dim=-1)

    def measure(self) -> list[dict[str, float]]:
        """Speed, bandwidth and free memory of each process; see `Worker.measure`."""
        with self._lock:
            self._settle()
            self.start()
            return self._run("measure")

    def drop(self, key: str) -> None:
        """Lets go of a model, if it is there."""
        with self._lock:
            if key in self.loads:
                self._settle()
                self._send("drop", key)
                self.loads.pop(key, None)
                self._receive("drop", hear_cancel=lambda: None)

    def stats(self) -> list[dict[str, Any]]:
        """Of each process: id, device, and bytes by model. [] where none runs."""
        return self._answers([actor.ask.remote("stats") for actor in self._actors]) if self._actors else []

    def close(self) -> None:
        """Ends all processes. The group can be used again and then starts anew."""
        # without the lock: when the caller's process exits, a thread of it may still hold that
        actors, self._actors = self._actors, []
        self._in_flight, self._kept, self.loads, self.places = [], {}, {}, []
        ray = sys.modules.get("ray")
        if ray is not None and ray.is_initialized():
            for actor in actors:
                ray.kill(actor, no_restart=True)
            if self._ray_ended is not None:
                ray.shutdown()
        if self._ray_ended is not None:
            self._ray_ended.set()
            self._ray_ended = None
        guard, self._guard = self._guard, None
        if guard is not None and guard.stdin is not None:
            guard.stdin.close()
            guard.wait(10)

    # --- starting ---

    def _start_ray(self, ray: Any) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if self.address:
            _knock(self.address)
            # other machines of the cluster get this package from here
            options |= {"address": self.address, "runtime_env": {"py_modules": [str(_PACKAGE)]}}
        else:
            options |= {
                "address": "local",  # of our own, whatever else runs here
                "num_cpus": max(1, self.requested),
                "num_gpus": torch.cuda.device_count(),
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE_BYTES,
                "_node_ip_address": "127.0.0.1",
            }
        failure: list[BaseException] = []
        started, ended = threading.Event(), threading.Event()

        def init() -> None:
            try:
                ray.init(**options)
            except BaseException as error:
                failure.append(error)
            started.set()
            # Linux ends Ray's processes with the thread that started them, so it must live as long as they
            ended.wait()

        threading.Thread(target=init, daemon=True, name="ray").start()
        while not started.wait(0.1):
            self.hear_cancel()
        if failure:
            raise ValueError(f"Ray could not be started: {failure[0]}") from failure[0]
        self._ray_ended = ended

    def _set_size(self, ray: Any) -> None:
        gpus = int(ray.cluster_resources().get("GPU", 0))
        if gpus and self.requested > gpus:
            raise ValueError(
                f"{self.requested} GPUs were asked for and there are {gpus}: lower `gpus`, 0 takes all"
            )
        self.size = self.requested or gpus or _CPU_PROCESSES

    def _make_actors(self, ray: Any) -> list[Any]:
        def module() -> Any:
            # in the worker this package goes by its own name, whatever folder the caller has it in
            return importlib.import_module("wan_models.distributed.actor")

        class WanWorker:
            def __init__(self, rank, world, timeout):  # noqa: ANN001, ANN204
                self.actor = module().Actor(rank, world, timeout)

            def call(self, *arguments):  # noqa: ANN002, ANN202
                return self.actor.call(*arguments)

            def ask(self, what):  # noqa: ANN001, ANN202
                return self.actor.ask(what)

        WanWorker.ask = ray.method(concurrency_group="talk")(WanWorker.ask)  # type: ignore[method-assign]
        has_gpus = bool(ray.cluster_resources().get("GPU"))
        paths = [str(_PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        variables = {"PYTHONPATH": os.pathsep.join(paths)} if not self.address else {}
        if not self.address and sys.platform == "linux":
            variables |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
        # memory of tensors goes back when they are freed; glibc would get used to large ones and keep it
        variables["MALLOC_MMAP_THRESHOLD_"] = str(1 << 20)
        remote = ray.remote(
            num_cpus=0,
            num_gpus=1 if has_gpus else 0,
            max_restarts=0,
            concurrency_groups={"talk": 2},
            runtime_env={"env_vars": variables},
        )(WanWorker)
        # torch's own limit is only for what ours does not see
        return [remote.remote(rank, self.size, self.timeout + 60) for rank in range(self.size)]

    def _set_guard(self) -> None:
        """Has a small process end what is left of the group should this one be killed."""
        import psutil

        if self.address or self._ray_ended is None:
            return
        pids = [child.pid for child in psutil.Process().children(recursive=True)]
        pids += [place["pid"] for place in self.places]
        command = [sys.executable, str(Path(__file__).with_name("guard.py"))]
        # in a session of its own: Ctrl-C in the caller's terminal is not for it
        self._guard = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)
        assert self._guard.stdin is not None
        self._guard.stdin.write(" ".join(map(str, pids)) + "\n")
        self._guard.stdin.flush()

    # --- working ---

    def _keep(self, name: str, tensor: Tensor) -> str:
        """The name under which all processes have a tensor of this content; it is sent where they do not."""
        known = self._kept.setdefault(name, [])
        for look in (False, True):  # content is compared where none is known to be the one
            for i, (seen, stored) in enumerate(known):
                if seen.is_held_by(tensor, look):
                    known[i] = (Seen.of(tensor), stored)  # as it will come at the next step
                    return stored
        self._count += 1
        stored = f"{name} {self._count}"
        # what is noted is what the processes were told, whether or not a Cancel lets them be waited for
        seen = Seen.of(tensor)
        self._send("keep", stored, _ray().put(pack(tensor)))
        known.insert(0, (seen, stored))
        self._receive("keep")
        while len(known) > 2:  # with and without guidance
            self._send("forget", [known[-1][1]])
            known.pop()
            self._receive("forget")
        return stored

    def _run(self, method: str, *arguments: Any) -> list[Any]:
        """One job of all processes; their results by rank."""
        self._send(method, *arguments)
        return self._receive(method)

    def _send(self, method: str, *arguments: Any) -> None:
        """Gives all processes a job."""
        if not self._actors:
            raise GroupError("the group was ended; run again to start a new one")
        self._in_flight = [actor.call.remote(method, *arguments) for actor in self._actors]

    def _receive(self, method: str, hear_cancel: Callable[[], None] | None = None) -> list[Any]:
        """The results of the job that was given last, by rank."""
        outcomes = self._await(self._in_flight, hear_cancel or self.hear_cancel)
        self._in_flight = []
        self._judge(method, outcomes)
        return [unpack(outcome["result"]) for outcome in outcomes]

    def _settle(self) -> None:
        """Waits for a job that was left when its caller was cancelled; mistakes of that caller are of no interest."""
        if self._in_flight:
            outcomes = self._await(self._in_flight, self.hear_cancel)
            self._in_flight = []
            with suppress(ValueError):
                self._judge("the cancelled job", outcomes)

    def _await(self, refs: list[Any], hear_cancel: Callable[[], None]) -> list[dict[str, Any]]:
        """What each process answers; dead and silent ones as errors. Ends early where one has failed."""
        ray = _ray()
        outcomes: dict[int, dict[str, Any]] = {}
        signs = LifeSigns(ray, self._actors, self.timeout)
        deadline: float | None = None
        while len(outcomes) < len(refs):
            pending = [ref for rank, ref in enumerate(refs) if rank not in outcomes]
            ray.wait(pending, num_returns=len(pending), timeout=0.1, fetch_local=False)
            for rank, ref in enumerate(refs):
                if rank not in outcomes and ray.wait([ref], timeout=0)[0]:
                    outcomes[rank] = _outcome(ray, ref)
            if len(outcomes) == len(refs):
                break
            failed = any("error" in outcome for outcome in outcomes.values())
            if failed:
                deadline = deadline or time.monotonic() + _GRACE_SECONDS
                if time.monotonic() > deadline:
                    break
                continue
            hear_cancel()
            stalled = signs.stalled(set(range(len(refs))) - set(outcomes))
            for rank, why in stalled.items():
                outcomes[rank] = {"error": why, "is_stall": True}
        return [
            outcomes.get(rank, {"error": "waited for the others", "is_peer": True})
            for rank in range(len(refs))
        ]

    def _judge(self, method: str, outcomes: list[dict[str, Any]]) -> None:
        """Raises what went wrong, if anything, and ends the group unless all its processes are still in step."""
        errors = {rank: outcome for rank, outcome in enumerate(outcomes) if "error" in outcome}
        if not errors:
            return
        # whose own fault it was: a dead process first, those that merely lost a peer last
        order = ("is_dead", "is_stall", "is_memory")
        rank, cause = min(
            errors.items(),
            key=lambda item: (
                next(
                    (i for i, kind in enumerate(order) if item[1].get(kind)),
                    len(order) + bool(item[1].get("is_peer")),
                ),
                item[0],
            ),
        )
        # all have answered, none waits for another: they are in step
        if all(error.get("is_users") and error["error"] == cause["error"] for error in errors.values()):
            raise ValueError(cause["message"])
        place = self.places[rank] if rank < len(self.places) else {}
        where = f"rank {rank} of {self.size}"
        if place:
            where += f" ({place['device']} of {place['host']}, process {place['pid']})"
        hint = ". Switch fsdp on, use more GPUs, or make a smaller video" if cause.get("is_memory") else ""
        self.close()
        told = cause["error"].rstrip(".")
        text = f"{where} failed in {method}: {told}{hint}. The workers start anew with the next run."
        if "traceback" in cause:
            text += f"\n{cause['traceback']}"
        raise GroupError(text)

    def _answers(self, refs: list[Any]) -> list[Any]:
        """Answers of `ask`, which are quick once a process is there."""
        ray = _ray()
        limit = max(self.timeout, _START_SECONDS)
        end = time.monotonic() + limit
        while True:
            _, waiting = ray.wait(refs, num_returns=len(refs), timeout=0.1)
            if not waiting:
                break
            self.hear_cancel()
            if time.monotonic() > end:
                raise GroupError(f"the worker processes did not answer within {limit:g} s")
        try:
            return ray.get(refs)
        except ray.exceptions.RayError as error:
            raise GroupError(f"a worker process could not be started: {_first_line(error)}") from None


def _knock(address: str) -> None:
    """ValueError where nothing answers at host:port, for which Ray would wait very long."""
    if "://" in address:
        raise ValueError(f"ray_address is auto or host:port of the cluster's head, not {address}")
    host, _, port = address.rpartition(":")
    if not host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the Ray cluster at {address} could not be reached: {error}. Start its head with: ray start --head"
        ) from None


def _outcome(ray: Any, ref: Any) -> dict[str, Any]:
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        return {"error": _first_line(error), "traceback": str(error)}
    except ray.exceptions.RayError as error:
        return {"error": f"the process died ({_first_line(error)})", "is_dead": True}


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]
