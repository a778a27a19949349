"""Ray under a group, and its failures, with a Ray that is only played."""

import subprocess
import threading
import time
from types import SimpleNamespace

import psutil
import pytest
from processes import wait_for

from wan_models.distributed import jobs as jobs_module
from wan_models.distributed import ray_cluster
from wan_models.distributed.guard import _is_alive
from wan_models.distributed.jobs import GroupError, Jobs
from wan_models.distributed.ray_cluster import RayCluster


class FakeRay:
    """Takes a moment to start."""

    def __init__(self):
        self.history = []

    def init(self, **options):
        time.sleep(0.3)
        self.history.append("started")

    def shutdown(self):
        self.history.append("ended")

    def is_initialized(self):
        return self.history[-1:] == ["started"]

    def cluster_resources(self):
        raise LookupError("this is as far as it is played")


class Cancelled(Exception):
    pass


def cancel():
    raise Cancelled


def test_a_cancel_while_ray_is_started_leaves_none_running(monkeypatch):
    ray = FakeRay()
    monkeypatch.setattr(ray_cluster, "import_ray", lambda: ray)
    monkeypatch.setitem(ray_cluster.sys.modules, "ray", ray)
    cluster = RayCluster("")
    with pytest.raises(Cancelled):
        cluster.start(1, 60.0, cancel)
    cluster.stop([])
    assert ray.history == []  # nobody has waited for it
    with pytest.raises(LookupError):  # the next one waits until the first is gone
        cluster.start(1, 60.0, lambda: None)
    assert ray.history == ["started", "ended", "started"]
    cluster.stop([])
    assert ray.history[-1] == "ended"
    assert not [thread for thread in threading.enumerate() if thread.name == "ray"]


class RayError(Exception):
    pass


def test_a_process_that_died_between_two_jobs_ends_the_group(monkeypatch):
    def get(refs):
        raise RayError("The actor died\nand more that helps nobody")

    ray = SimpleNamespace(
        wait=lambda refs, **_: (refs, []), get=get, exceptions=SimpleNamespace(RayError=RayError)
    )
    monkeypatch.setattr(jobs_module, "import_ray", lambda: ray)
    ended = []
    jobs = Jobs(10.0, lambda: None, lambda: ended.append(jobs.release()))
    actor = SimpleNamespace(ask=SimpleNamespace(remote=lambda method: method))
    jobs.actors, jobs.places = [actor], [{"host": "here", "device": "cpu", "pid": 1}]
    with pytest.raises(GroupError, match=r"^a worker process died: The actor died$"):
        jobs.ask("stats")
    assert ended == [[actor]] and not jobs.actors


def test_when_one_stalls_the_others_are_not_asked_what_they_saw(monkeypatch):
    ray = SimpleNamespace(wait=lambda refs, timeout, **_: time.sleep(timeout) or ([], refs))
    monkeypatch.setattr(jobs_module, "import_ray", lambda: ray)
    monkeypatch.setattr(jobs_module, "_GRACE_SECONDS", 60.0)
    jobs = Jobs(0.3, lambda: None, lambda: None)
    remote = SimpleNamespace(remote=lambda *_: object())
    jobs.actors = [SimpleNamespace(ask=remote, call=remote)] * 2
    begun = time.monotonic()
    with pytest.raises(GroupError, match=r"rank 0 of 2 failed in velocity: no answer for 0\.3 s"):
        jobs.run("velocity")
    assert time.monotonic() - begun < 30


def test_a_dead_process_that_nobody_has_asked_for_is_gone():
    with subprocess.Popen(["sleep", "1000"]) as child:
        process = psutil.Process(child.pid)
        assert _is_alive(process)
        child.kill()
        wait_for(lambda: not _is_alive(process))
        assert process.status() == psutil.STATUS_ZOMBIE
    assert not _is_alive(process)
