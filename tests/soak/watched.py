"""A server whose prompts are counted, whose pictures are compared, and of which readings are taken."""

import contextlib
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from devhost.errors import HostError
from devhost.host import Host
from devhost.server import Server

from .files import REPLACED
from .outcome import digest
from .prompts import Graph, named
from .readings import Reading, grown, read

SECONDS_OF_A_PROMPT = 300
BAD_LOG = ("Exception ignored in", "never retrieved", "Exception in thread", "ResourceWarning")


@dataclass
class Result:
    """What was done, how often; what went wrong, one line each; and what the server held, reading by reading.

    made: prompts whose pictures were looked at; repeated: those of them that had been made before."""

    done: Counter[str] = field(default_factory=Counter)
    prompts: int = 0
    made: int = 0
    repeated: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)


class Watched:
    """temporary: the server's folder for temporary files. `version` is that of the file that is REPLACED."""

    def __init__(self, host: Host, temporary: Path) -> None:
        self.host, self.base, self.temporary = host, Path(host.base), temporary
        self.result = Result()
        self.version = 0
        self.took: dict[str, float] = {}
        self._known: dict[str, str] = {}
        self._began = time.monotonic()
        self._lock = threading.Lock()

    @property
    def is_alive(self) -> bool:
        return self.host.process.poll() is None

    def count(self, name: str) -> str:
        """Counts a prompt; returns a name for its files."""
        with self._lock:
            self.result.prompts += 1
            self.result.done[name] += 1
            return f"soak_{self.result.prompts}"

    def run(
        self, name: str, graph: Graph, prompt_id: str | None = None, client: Server | None = None
    ) -> dict:
        """The entry of a prompt that was run to its end; HostError where it has none."""
        prompt = named(graph, self.count(name))
        began = time.monotonic()
        entry = (client or self.host).run(prompt, timeout=SECONDS_OF_A_PROMPT, prompt_id=prompt_id)
        self.took[name] = time.monotonic() - began
        return entry

    def compare(self, name: str, graph: Graph, entry: dict) -> None:
        """Holds what a prompt has made against what it made before."""
        if not entry.get("status", {}).get("completed"):
            self.fail(name, f"it did not end well: {entry.get('status')}")
            return
        found = digest(self.host.outputs(entry))
        plain = named(graph, "")
        if "video" in plain:  # where clips are kept changes nothing
            plain["video"]["inputs"].pop("checkpoint_folder", None)
        key = str(plain)
        if REPLACED in key:
            key += f" version {self.version}"
        self.result.made += 1
        self.result.repeated += key in self._known
        if self._known.setdefault(key, found) != found:
            self.fail(name, f"other pictures than before: {key[:3000]}")

    def run_and_compare(self, name: str, graph: Graph) -> None:
        self.compare(name, graph, self.run(name, graph))

    def wait_until_idle(self) -> None:
        """Waits until the queue is empty."""
        deadline = time.monotonic() + SECONDS_OF_A_PROMPT
        while time.monotonic() < deadline and self.is_alive:
            with contextlib.suppress(HostError):
                queue = self.host.get("/queue")
                if not queue["queue_running"] and not queue["queue_pending"]:
                    return
            time.sleep(0.05)
        self.fail("queue", "it does not become empty")

    def clear_output(self) -> None:
        for path in (self.base / "output").iterdir():
            if path.is_file():
                path.unlink()

    def tick(self) -> None:
        self.result.seconds = time.monotonic() - self._began

    def read(self) -> None:
        """A reading of the server at rest, with its models unloaded and its list of past prompts emptied."""
        self.host.post("/history", {"clear": True})
        self.host.free()
        time.sleep(1.0)
        self.tick()
        done = self.result.prompts, self.result.seconds
        self.result.readings.append(read(self.host.process.pid, self.base, self.temporary, *done))

    def look_back(self) -> None:
        """Whether the server holds ever more, and what its log says that nothing else has told."""
        for name, (rose, allowed) in grown(self.result.readings).items():
            if rose > allowed:
                self.fail(name, f"rose by {rose:.0f} since the warm-up, where {allowed:.0f} is the most")
        for line in self.host.log.read_text(errors="replace").splitlines():
            if any(bad in line for bad in BAD_LOG):
                self.fail("log", line)

    def fail(self, what: str, line: str) -> None:
        self.result.failures.append(f"prompt {self.result.prompts}, {what}: {line}")
