"""Jobs of a group's processes: given to all at once, one at a time, waited for, and their failures named."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .actor import BLAME, Outcome, pack, unpack
from .local_ray import import_ray
from .ray_cluster import first_line
from .watchdog import Watchdog

# how long the others are given to tell what they saw when one process has failed
_GRACE_SECONDS = 3.0
# a process first imports torch, which takes long from a cold disk
_START_SECONDS = 120.0


class GroupError(RuntimeError):
    """A process of the group died, failed or stalled; the next job starts a new group."""


class Jobs:
    """The job that the processes of a group have in hand.

    timeout: seconds without progress after which a process counts as stalled. check_cancelled is called ten times a
    second while there is something to wait for, and may raise. on_failure is called before a GroupError says that the
    processes are of no use any more."""

    def __init__(
        self, timeout: float, check_cancelled: Callable[[], None], on_failure: Callable[[], None]
    ) -> None:
        self.timeout, self.check_cancelled, self._on_failure = timeout, check_cancelled, on_failure
        self.actors: list[Any] = []
        """One per process, by rank; [] where none run."""
        self.places: list[dict[str, Any]] = []
        """Place of each process: "host", "device", "pid"."""
        self._in_flight: list[Any] = []

    def connect(self, actors: list[Any]) -> None:
        """Takes on new processes, and has them find each other."""
        self.actors = actors
        host, port = self._answers([actors[0].ask.remote("rendezvous")])[0]
        # the store answers at its own node only where the group is of this machine
        self.places = self.run("connect", host, port)

    def release(self) -> list[Any]:
        """The actors, of which no more is expected."""
        actors, self.actors = self.actors, []
        self.places, self._in_flight = [], []
        return actors

    def run(self, method: str, *arguments: Any) -> list[Any]:
        """Results of one job, by rank. method: of `Actor` or `Worker`; arguments: plain data."""
        self.send(method, *arguments)
        return self.receive(method)

    def send(self, method: str, *arguments: Any) -> None:
        """Gives all processes a job. Raises GroupError where the group was ended meanwhile."""
        if not self.actors:
            raise GroupError("the group was ended; run again to start a new one")
        self._in_flight = [actor.call.remote(method, *arguments) for actor in self.actors]

    def receive(self, method: str, can_cancel: bool = True) -> list[Any]:
        """Results of the job that was given last, by rank. ValueError: it was the caller's mistake."""
        outcomes = self._wait(self._in_flight, self.check_cancelled if can_cancel else lambda: None)
        self._in_flight = []
        self._raise_on_failure(method, outcomes)
        return [unpack(outcome["result"]) for outcome in outcomes]

    def drain(self) -> None:
        """Waits for a job that was left when its caller was cancelled; mistakes of that caller are of no interest."""
        if self._in_flight:
            outcomes = self._wait(self._in_flight, self.check_cancelled)
            self._in_flight = []
            with suppress(ValueError):
                self._raise_on_failure("the cancelled job", outcomes)

    def put(self, value: Any) -> Any:
        """An argument for `send`, in Ray's object store: one copy for all, mapped into each process.

        It is a copy, so the caller may go on with its own while a cancelled job still runs."""
        return import_ray().put(pack(value))

    def ask(self, method: str) -> list[Any]:
        """Answer of each process to `Actor.ask`, whatever job it runs."""
        return self._answers([actor.ask.remote(method) for actor in self.actors])

    def _answers(self, refs: list[Any]) -> list[Any]:
        """Answers that are quick once a process is there."""
        ray = import_ray()
        limit = max(self.timeout, _START_SECONDS)
        end = time.monotonic() + limit
        while True:
            _, waiting = ray.wait(refs, num_returns=len(refs), timeout=0.1)
            if not waiting:
                break
            self.check_cancelled()
            if time.monotonic() > end:
                self._on_failure()
                raise GroupError(f"the worker processes did not answer within {limit:g} s")
        try:
            return ray.get(refs)
        except ray.exceptions.RayError as error:
            what = "died" if self.places else "could not be started"
            self._on_failure()
            raise GroupError(f"a worker process {what}: {first_line(error)}") from None

    def _wait(self, refs: list[Any], check_cancelled: Callable[[], None]) -> list[Outcome]:
        """Outcomes by rank; of dead and stalled processes as errors. Ends early where one has failed."""
        ray = import_ray()
        outcomes: dict[int, Outcome] = {}
        watchdog = Watchdog(ray, self.actors, self.timeout)
        deadline: float | None = None
        while len(outcomes) < len(refs):
            pending = [ref for rank, ref in enumerate(refs) if rank not in outcomes]
            ray.wait(pending, num_returns=len(pending), timeout=0.1, fetch_local=False)
            for rank, ref in enumerate(refs):
                if rank not in outcomes and ray.wait([ref], timeout=0)[0]:
                    outcomes[rank] = _outcome(ray, ref)
            if len(outcomes) == len(refs):
                break
            if any("error" in outcome for outcome in outcomes.values()):
                deadline = deadline or time.monotonic() + _GRACE_SECONDS
                if time.monotonic() > deadline:
                    break
                continue
            check_cancelled()
            if stalled := watchdog.stalled(set(range(len(refs))) - set(outcomes)):
                outcomes |= {rank: {"error": why, "kind": "stalled"} for rank, why in stalled.items()}
                break  # the others wait for these: they have nothing to tell
        lost: Outcome = {"error": "waited for the others", "kind": "peer"}
        return [outcomes.get(rank, lost) for rank in range(len(refs))]

    def _raise_on_failure(self, method: str, outcomes: list[Outcome]) -> None:
        """Raises what went wrong, if anything, and ends the group unless all its processes are still in step."""
        errors = {rank: outcome for rank, outcome in enumerate(outcomes) if "error" in outcome}
        if not errors:
            return
        rank, cause = min(errors.items(), key=lambda item: (BLAME[item[1]["kind"]], item[0]))
        # all have answered, none waits for another: they are in step
        if all(error["kind"] == "input" and error["error"] == cause["error"] for error in errors.values()):
            raise ValueError(cause["message"])
        where = f"rank {rank} of {len(outcomes)}"
        if rank < len(self.places):
            where += " ({device} of {host}, process {pid})".format(**self.places[rank])
        self._on_failure()
        hint = ". Switch fsdp on, use more GPUs, or make a smaller video" if cause["kind"] == "memory" else ""
        what = f"{where} failed in {method}: {cause['error'].rstrip('.')}{hint}"
        trace = f"\n{cause['traceback']}" if "traceback" in cause else ""
        raise GroupError(f"{what}. The workers start anew with the next run.{trace}")


def _outcome(ray: Any, ref: Any) -> Outcome:
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        return {"error": first_line(error), "kind": "failed", "traceback": str(error)}
    except ray.exceptions.RayError as error:
        return {"error": f"the process died ({first_line(error)})", "kind": "dead"}
