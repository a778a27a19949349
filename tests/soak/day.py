"""The load: a seeded row of steps, each with prompts that must end as they should, and the checks after it."""

import contextlib
import random
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import requests

from devhost.errors import HostError, StoppedError
from devhost.events import Events
from devhost.host import Host
from devhost.server import Server

from .files import VERSIONS, replace
from .prompts import BROKEN, TASKS, Graph, broken, named
from .watched import Result, Watched

PAGE = (
    "/", "/object_info", "/extensions", "/queue", "/history?max_items=64", "/system_stats", "/settings", "/users",
    "/embeddings", "/wan22/schedule?preset=T2V-A14B", "/object_info/WanMoESampler",
)  # fmt: skip
"""What a page asks for when it is loaded."""


@dataclass(frozen=True)
class Length:
    """When a load ends, by minutes or by number of prompts; every how many prompts the server is read."""

    minutes: float
    prompts: int = 1_000_000
    read_every: int = 25


class Day:
    """One server under load. temporary: its folder for temporary files. tasks: those of TASKS, all by default."""

    def __init__(self, host: Host, temporary: Path, seed: int, tasks: tuple[str, ...] = tuple(TASKS)) -> None:
        self._host, self._server = host, Watched(host, temporary)
        self._tasks, self._chance = tasks, random.Random(seed)
        self._steps: dict[Callable[[], None], int] = {
            self.plain: 50, self.interrupted: 14, self.broken: 9, self.several: 7, self.freed: 5, self.reloaded: 5,
            self.gone: 4, self.replaced: 5, self.emptied: 3,
        }  # fmt: skip

    @property
    def result(self) -> Result:
        return self._server.result

    def run(self, length: Length, on_reading: Callable[[Result], None] = lambda _: None) -> Result:
        """Goes on until the time or the prompts are over, or the server is gone."""
        server, result, last = self._server, self.result, 0
        server.read()
        while result.seconds < 60 * length.minutes and result.prompts < length.prompts:
            (step,) = self._chance.choices([*self._steps], [*self._steps.values()])
            self.checked(step)
            if not server.is_alive:
                server.fail("server", f"it ended with status {self._host.process.returncode}")
                return result
            if result.prompts - last >= length.read_every:
                last = result.prompts
                server.read()
                on_reading(result)
        server.read()
        server.look_back()
        return result

    def checked(self, step: Callable[[], None]) -> None:
        """A step, and what must hold after it."""
        server, name = self._server, step.__name__
        server.result.done[f"step: {name}"] += 1
        try:
            step()
        except (HostError, requests.RequestException) as error:
            server.fail(name, str(error)[-1500:])
        server.wait_until_idle()
        server.clear_output()
        server.tick()

    # --- steps ---

    def plain(self) -> None:
        """A prompt, to its end."""
        name, graph = self._choose()
        with self._kept(name, graph, chance=0.3):
            self._server.run_and_compare(name, graph)

    def interrupted(self) -> None:
        """A prompt that is cancelled at any moment, and then run to its end: clips that were kept must fit."""
        name, graph = self._choose()
        prompt_id = str(uuid.UUID(int=self._chance.randrange(2**128), version=4))  # newer hosts take no other
        stop = self._chance.choice((lambda: self._host.cancel(prompt_id), self._host.interrupt))
        with self._kept(name, graph, chance=0.8):
            try:
                with self._meanwhile(stop, self._moment(name, 1.2)):
                    entry = self._server.run(name, graph, prompt_id)
                self._server.compare(name, graph, entry)
                self._server.result.done["ended before it was cancelled"] += 1
            except StoppedError as error:
                if "not done within" in str(error):
                    raise
                self._server.result.done["cancelled"] += 1
            self._server.wait_until_idle()
            self._server.run_and_compare(name, graph)

    def broken(self) -> None:
        """A prompt that cannot work: refused, or ended with what is wrong."""
        what = self._chance.choice([*BROKEN])
        try:
            self._server.run(f"broken: {what}", broken(what))
        except HostError as error:
            if not re.search(BROKEN[what][1], str(error)):
                self._server.fail(what, f"the error says {str(error)[:500]!r}")
            return
        self._server.fail(what, "it ran")

    def several(self) -> None:
        """Three clients at once."""
        chosen = [self._choose() for _ in range(3)]
        with ThreadPoolExecutor(3) as pool:
            waiting = [pool.submit(self._server.run, *one, client=Server(self._host.url)) for one in chosen]
        for (name, graph), ended in zip(chosen, waiting, strict=True):
            self._server.compare(name, graph, ended.result())

    def freed(self) -> None:
        """Models are unloaded, before a prompt or while it runs."""
        name, graph = self._choose()
        with self._meanwhile(self._host.free, self._chance.choice((0.0, self._moment(name)))):
            self._server.run_and_compare(name, graph)

    def reloaded(self) -> None:
        """A page is loaded while a prompt runs, and listens."""
        name, graph = self._choose()
        client_id = f"page-{self._chance.randrange(2**60):x}"

        def load() -> None:
            with contextlib.closing(Events(self._host.url, client_id)) as events:
                for path in PAGE:
                    answer = requests.get(self._host.url + path, timeout=60)
                    if not answer.ok:
                        self._server.fail("page", f"{path} is answered {answer.status_code}")
                events.next()

        with self._meanwhile(load, self._moment(name)):
            self._server.run_and_compare(name, graph)

    def gone(self) -> None:
        """A client that queues a prompt and is gone before it ends, without a word."""
        name, graph = self._choose()
        client = Server(self._host.url)
        events = Events(client.url, client._client_id)
        prompt_id = client.queue(named(graph, self._server.count(name)))
        deadline = time.monotonic() + self._moment(name)
        while time.monotonic() < deadline:
            events.next()
        if events._socket is not None:
            events._socket.shutdown()  # the connection breaks: nothing is said in it
        self._server.wait_until_idle()
        self._server.compare(name, graph, self._host.history(prompt_id))

    def replaced(self) -> None:
        """A model file gets other content under its name."""
        self._server.version = (self._server.version + 1) % VERSIONS
        replace(self._server.base, self._server.version, in_place=self._chance.random() < 0.5)
        name = "T2V replaced"
        self._server.run_and_compare(name, TASKS[name].variant(self._chance))

    def emptied(self) -> None:
        """The queue is emptied and what runs is stopped, with prompts waiting."""
        for name, graph in [self._choose() for _ in range(3)]:
            self._host.queue(named(graph, self._server.count(name)))
        time.sleep(self._chance.uniform(0, 0.5))
        self._host.post("/queue", {"clear": True})
        self._host.interrupt()

    # --- parts of them ---

    def _choose(self) -> tuple[str, Graph]:
        (name,) = self._chance.choices(self._tasks, [TASKS[name].often for name in self._tasks])
        return name, TASKS[name].variant(self._chance)

    def _moment(self, name: str, most: float = 1.0) -> float:
        """Seconds into a prompt: up to `most` times what one of its task took last."""
        return self._chance.uniform(0, most) * self._server.took.get(name, 1.0)

    @contextlib.contextmanager
    def _meanwhile(self, call: Callable[[], object], seconds: float) -> Iterator[None]:
        """After so many seconds, `call` is made, at the latest when the body is done."""
        timer = threading.Timer(seconds, call)
        timer.start()
        try:
            yield
        finally:
            timer.join()

    @contextlib.contextmanager
    def _kept(self, name: str, graph: Graph, chance: float) -> Iterator[None]:
        """With that chance, and where the task can, finished clips are kept in a folder meanwhile."""
        if not TASKS[name].clips or self._chance.random() > chance:
            yield
            return
        graph["video"]["inputs"]["checkpoint_folder"] = "clips"
        try:
            yield
        finally:
            folder = self._server.base / "output" / "clips"
            left = [path.name for path in folder.glob("*") if not path.match("clip_????.safetensors")]
            if left not in ([], ["run.json"]):
                self._server.fail("clips", f"left in their folder: {left}")
            shutil.rmtree(folder, ignore_errors=True)
