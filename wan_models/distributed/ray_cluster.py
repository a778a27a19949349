"""Ray under a group: started for it on this machine, or joined at an address, and the actors that it places there."""

import gc
import importlib
import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch

from .guard import Guard
from .local_ray import import_ray, on_loopback, private_folder, use_token, without_helpers

_PACKAGE = Path(__file__).resolve().parents[1]
_OBJECT_STORE_BYTES = 4 << 30
# where there is no GPU and no number was asked for
_CPU_PROCESSES = 2


def first_line(error: BaseException) -> str:
    """The first line of an error of Ray, whose others are of no help to users."""
    return str(error).strip().splitlines()[0]


class RayCluster:
    """Ray with the actors of one group.

    address: of an existing cluster ("auto" or "host:6379"), "" for this machine alone, where Ray is started and ended
    with the group."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._ray: _RayThread | None = None
        self._guard: Guard | None = None

    def start(self, requested: int, timeout: float, check_cancelled: Callable[[], None]) -> list[Any]:
        """Actors of `Actor` by rank, as many as requested; 0 for one per GPU that there is.

        timeout: seconds after which communication between them fails. Raises ValueError where there are fewer GPUs, no
        cluster at the address, or no Ray."""
        ray = import_ray()
        _RayThread.wait_for_left(check_cancelled)
        if not ray.is_initialized():
            self._start_ray(ray, requested, check_cancelled)
        gpus = int(ray.cluster_resources().get("GPU", 0))
        _refuse_more(requested, gpus)
        return self._make_actors(ray, requested or gpus or _CPU_PROCESSES, gpus > 0, timeout)

    def guard(self, pids: Iterable[int]) -> None:
        """Has Ray's processes and the group's, by their ids, ended should this process be killed."""
        import psutil

        if self.address or self._ray is None:
            return
        ray: list[int] = []
        for child in psutil.Process().children():
            with suppress(psutil.NoSuchProcess):
                # others in this process have children of their own
                if self._ray.folder in " ".join(child.cmdline()):
                    ray += [child.pid, *(process.pid for process in child.children(recursive=True))]
        self._guard = Guard([*ray, *pids], self._ray.folder)

    def stop(self, actors: Iterable[Any]) -> None:
        """Ends the actors, and Ray where it was started here."""
        ray = sys.modules.get("ray")
        if ray is not None and ray.is_initialized():
            for actor in actors:
                ray.kill(actor, no_restart=True)
        thread, self._ray = self._ray, None
        if thread is not None:
            thread.end()
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.close()

    def _start_ray(self, ray: Any, requested: int, check_cancelled: Callable[[], None]) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        use_token(is_own=not self.address)
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if self.address:
            check_reachable(self.address)
            # other machines of the cluster get this package from here
            options |= {"address": self.address, "runtime_env": {"py_modules": [str(_PACKAGE)]}}
        else:
            _refuse_more(requested, torch.cuda.device_count())  # before Ray is waited for
            options |= {
                "address": "local",  # of our own, whatever else runs here
                "num_cpus": max(1, requested),
                "num_gpus": torch.cuda.device_count(),
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE_BYTES,
                "_node_ip_address": "127.0.0.1",
                # none of them would be of use: the actors have an environment of their own
                "_system_config": {"enable_worker_prestart": False, "prestart_worker_first_driver": False},
            }
        self._ray = _RayThread(ray, options, "" if self.address else private_folder())
        self._ray.start()
        while not self._ray.has_started.wait(0.1):
            check_cancelled()
        if (failure := self._ray.failure) is not None:
            raise ValueError(f"Ray could not be started: {failure}") from failure

    def _make_actors(self, ray: Any, size: int, has_gpus: bool, timeout: float) -> list[Any]:
        def module() -> Any:
            # looking for garbage among thousands of new modules takes a fifth of the time, and finds none
            gc.disable()
            # in the worker this package goes by its own name, whatever folder the caller has it in
            actor = importlib.import_module("wan_models.distributed.actor")
            gc.freeze()
            gc.enable()
            return actor

        class WanWorker:
            def __init__(self, rank, world, timeout):  # noqa: ANN001, ANN204
                self.actor = module().Actor(rank, world, timeout)

            def call(self, *arguments):  # noqa: ANN002, ANN202
                return self.actor.call(*arguments)

            def ask(self, method):  # noqa: ANN001, ANN202
                return self.actor.ask(method)

        WanWorker.ask = ray.method(concurrency_group="talk")(WanWorker.ask)  # type: ignore[method-assign]
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
        return [remote.remote(rank, size, timeout) for rank in range(size)]


class _RayThread(threading.Thread):
    """Ray from `ray.init` to `ray.shutdown`: Linux ends Ray's processes with the thread that started them, so this one
    lives as long as they."""

    def __init__(self, ray: Any, options: dict[str, Any], folder: str) -> None:
        super().__init__(daemon=True, name="ray")
        self._ray, self._options = ray, options | ({"_temp_dir": f"{folder}/ray"} if folder else {})
        self.folder = folder
        """Place for the files of a Ray that is started here."""
        self._is_over = threading.Event()
        self.has_started = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with ExitStack() as meanwhile:
                if self.folder:
                    meanwhile.enter_context(on_loopback())
                    meanwhile.enter_context(without_helpers())
                self._ray.init(**self._options)
        except BaseException as error:
            self.failure = error
        self.has_started.set()
        self._is_over.wait()
        self._ray.shutdown()
        if self.folder and self.failure is None:  # the error of a failure names files there
            shutil.rmtree(self.folder, ignore_errors=True)

    def end(self) -> None:
        """Shuts Ray down; where it is just being started, as soon as it is, without waiting for that."""
        self._is_over.set()
        if self.has_started.is_set():
            self.join()

    @classmethod
    def wait_for_left(cls, check_cancelled: Callable[[], None]) -> None:
        """Waits for those that were ended while Ray was being started."""
        for thread in threading.enumerate():
            while isinstance(thread, cls) and thread._is_over.is_set() and thread.is_alive():
                thread.join(0.1)
                check_cancelled()


def _refuse_more(requested: int, gpus: int) -> None:
    """ValueError where more GPUs are asked for than there are; without GPUs, processes share the CPU."""
    if gpus and requested > gpus:
        there = "there is 1" if gpus == 1 else f"there are {gpus}"
        raise ValueError(
            f"{requested} GPUs were asked for and {there}: ask for fewer, or for 0, which takes all"
        )


def check_reachable(address: str) -> None:
    """ValueError where nothing answers at host:port, for which Ray would wait very long."""
    if "://" in address:
        raise ValueError(f"the Ray address is auto or host:port of the cluster's head, not {address}")
    host, _, port = address.rpartition(":")
    if not host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the Ray cluster at {address} could not be reached: {error}. Start its head with: ray start --head"
        ) from None
