"""The contract of a group of workers, with two processes on this machine's CPU: results, faults, and the end."""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from forked import run, start
from processes import wait_for

from devhost.host import ROOT
from wan_models.distributed.group import Group, GroupError
from wan_models.distributed.jobs import Jobs
from wan_models.distributed.local_ray import import_ray, use_token, without_helpers
from wan_models.distributed.mesh import Layout
from wan_models.distributed.weights import LoadedModel, Recipe
from wan_models.tools.small_models import CONFIGS, inputs_of, lora_of, write_models

pytestmark = pytest.mark.slow
TIMEOUT = 10.0


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture(scope="module")
def taken_ports():
    """Those of torch and Ray, in use by something else."""
    holders = []
    for port in (29500, 6379):
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", port))
        holder.listen()
        holders.append(holder)
    yield
    for holder in holders:
        holder.close()


@pytest.fixture(scope="module")
def shared(taken_ports):
    """One group for the tests that leave it as they found it, or that it survives."""
    group = Group(2)
    yield group
    group.close()


@pytest.fixture
def given_up(shared, monkeypatch):
    """The moments at which the group gave its processes up. To clear up takes as long as the machine lets it."""
    moments = []

    def close():
        moments.append(time.monotonic())
        shared.close()

    monkeypatch.setattr(shared._jobs, "_on_failure", close)
    return moments


ULYSSES = Layout(1, 2)


def recipe(models, name="t2v", layout=ULYSSES):
    return Recipe("dit", str(models / name), layout=layout)


def expected(models, given, patches=(), name="t2v"):
    plain = LoadedModel(
        Recipe("dit", str(models / name)), torch.device("cpu"), None, dict(patches), lambda: None
    )
    with torch.no_grad():
        return plain.velocity(given)


def long_inputs():
    """A forward that takes these processes many seconds."""
    given = inputs_of(CONFIGS["t2v"], 1)
    return given | {"x": torch.randn(2, 16, 21, 44, 44)}


def long_job(group, key):
    """A job of many seconds that all processes are in the middle of, waited for as `in_background` does."""
    before = group._jobs.ask("done")
    wait = in_background(lambda: group.velocity(key, long_inputs()))
    wait_for(lambda: all(now > then for now, then in zip(group._jobs.ask("done"), before, strict=True)))
    return wait


def close_to(a, b):
    return float((a - b).norm() / b.norm()) < 1e-5


def in_background(job):
    """Starts job() in a thread; returns a function that waits for it and gives what it returned or raised."""
    found = []

    def run():
        try:
            found.append(job())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def wait(seconds=60):
        thread.join(seconds)
        assert found, "it hangs"
        return found[0]

    return wait


def test_taken_ports_do_not_matter(taken_ports, shared):
    shared.start()
    assert len(shared.stats()) == 2


def test_results_and_a_changed_lora(shared, models, seed):
    given = inputs_of(CONFIGS["t2v"], seed)
    for layout in (Layout(1, 2), Layout(2, 1), Layout(1, 2, fsdp=True), Layout()):
        key = shared.load(recipe(models, layout=layout))
        assert close_to(shared.velocity(key, given), expected(models, given)), layout
    patches = lora_of(CONFIGS["t2v"], seed)
    key = shared.load(recipe(models), lambda: patches, "one")
    assert close_to(shared.velocity(key, given), expected(models, given, patches))
    reports = shared.loads[key].reports
    shared.load(recipe(models), lambda: pytest.fail("the patches are there already"), "one")
    shared.load(recipe(models), dict, "none")
    assert close_to(shared.velocity(key, given), expected(models, given))
    again = shared.loads[key].reports
    assert again[0]["read"] == len(patches) < reports[0]["read"]  # only what the LoRA had touched
    assert again[0]["bytes"] == shared.stats()[0]["models"][key] > 0


def test_inputs_of_all_steps_are_sent_once(shared, models, seed):
    key = shared.load(recipe(models, "animate"))
    given = inputs_of(CONFIGS["animate"], seed)
    shared.velocity(key, given)
    count = shared._kept.sent
    for shift in range(3):  # the host gives new tensors of the same content at each step
        step = {name: value.clone() if name != "x" else value + shift for name, value in given.items()}
        assert close_to(shared.velocity(key, step), expected(models, step, name="animate"))
    assert shared._kept.sent == count
    other = {**given, "context": given["context"] + 1}
    assert close_to(shared.velocity(key, other), expected(models, other, name="animate"))
    assert shared._kept.sent == count + 1


def test_another_layout_of_a_model_takes_the_place_of_the_first(shared, models):
    for layout in (Layout(1, 2), Layout(2, 1)):
        shared.load(recipe(models, layout=layout))
        paths = [loaded.path for loaded in shared.loads.values()]
        assert paths.count(str(models / "t2v")) == 1
        assert set(shared.stats()[0]["models"]) == set(shared.loads)


def test_older_models_make_room(shared, models):
    shared.load(recipe(models))
    key = shared.load(recipe(models, "i2v"), needed=1e18)
    assert list(shared.loads) == [key]


def test_a_wrong_input_is_the_callers_and_the_group_lives_on(shared, models):
    key = shared.load(recipe(models, "i2v"))
    before = shared.stats()
    wrong = inputs_of(CONFIGS["t2v"], 1)
    with pytest.raises(ValueError, match="expects 36 channels and got 16"):
        shared.velocity(key, wrong)
    assert [one["pid"] for one in shared.stats()] == [one["pid"] for one in before]
    with pytest.raises(ValueError, match="nothing does not exist"):
        shared.load(Recipe("dit", str(models / "nothing")))
    assert shared.is_running


def test_text_and_video(shared, models, seed):
    ids, mask = torch.randint(1, 50, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    plain = LoadedModel(Recipe("t5", str(models / "T5")), torch.device("cpu"), None, {}, lambda: None).network
    key = shared.load(Recipe("t5", str(models / "T5"), layout=Layout(fsdp=True)))
    assert close_to(shared.encode_text(key, ids, mask), plain.encode(ids, mask))
    latents = torch.randn(1, 16, 2, 4, 33)
    vae = Recipe("vae", str(models / "VAE 2.1"))
    plain = LoadedModel(vae, torch.device("cpu"), None, {}, lambda: None).network
    with torch.no_grad():
        assert close_to(shared.decode(shared.load(vae), latents), plain.decode(latents))


def test_cancel_is_heard_at_once_and_the_next_job_waits_for_the_left_one(shared, models, seed):
    key = shared.load(recipe(models))
    given = inputs_of(CONFIGS["t2v"], seed)
    shared.velocity(key, given)
    before = shared._jobs.ask("done")

    def cancel():
        done = import_ray().get([actor.ask.remote("done") for actor in shared._jobs.actors])
        if all(now > then for now, then in zip(done, before, strict=True)):  # in the middle of the work
            raise KeyboardInterrupt

    shared._jobs.check_cancelled = cancel
    with pytest.raises(KeyboardInterrupt):
        shared.velocity(key, long_inputs())
    left = shared._jobs._in_flight  # and not waited for
    assert len(left) == 2 and not import_ray().wait(left, num_returns=1, timeout=0)[0]
    shared._jobs.check_cancelled = lambda: None
    assert close_to(shared.velocity(key, given), expected(models, given))


class Books:
    """What a process has been told to keep, without its work; strict about what it does not have."""

    def __init__(self):
        self.inputs, self.models = {}, {}
        self.call = SimpleNamespace(remote=lambda method, *given: {"result": getattr(self, method)(*given)})

    def keep(self, name, tensor):
        self.inputs[name] = tensor

    def forget(self, names):
        for name in names:
            del self.inputs[name]

    def load(self, key, recipe, patches):
        self.models[key] = patches["a"][0][0]
        return {"read": 1, "seconds": 0.0, "bytes": 1}

    def drop(self, key):
        del self.models[key]

    def velocity(self, key, step, kept, attention):
        return torch.stack([step["x"], *(self.inputs[name] for name in kept.values())]) * self.models[key]


class Cancelled(Exception):
    pass


def test_a_cancel_at_any_moment_leaves_both_sides_with_the_same_books(monkeypatch, seed):
    """Inputs, models and patches that the group takes for known are those that its processes have, and no other."""
    chance = random.Random(seed)
    monkeypatch.setattr(Jobs, "put", lambda self, value: value)
    monkeypatch.setattr(Jobs, "ask", lambda self, method: [{"free": chance.choice([0, 9])}])

    def wait(self, refs, check_cancelled):
        check_cancelled()
        return refs

    monkeypatch.setattr(Jobs, "_wait", wait)
    group, books, cancelled = Group(1), Books(), 0
    group._jobs.actors = [books]

    def check_cancelled():
        if chance.random() < 0.3:
            raise Cancelled

    pool = [torch.full((1,), float(i)) for i in range(6)]
    for _ in range(400):
        text, image, x = (chance.choice(pool) for _ in range(3))
        model, strength = Recipe("dit", f"model {chance.randrange(3)}"), chance.randrange(1, 4)
        group._jobs.check_cancelled = check_cancelled
        try:
            if chance.random() < 0.2:
                group.drop(str(model))
            # one file at several strengths: what is merged must be what was asked for
            key = group.load(model, lambda strength=strength: {"a": [(strength,)]}, strength, needed=5)
            found = group.velocity(
                key, {"x": x, "timestep": x, "context": text.clone(), "image": image.clone()}
            )
        except Cancelled:
            cancelled += 1
        else:
            assert torch.equal(found, torch.stack([x, text, image]) * strength)
        assert set(books.models) == set(group.loads)
        known = {stored for entries in group._kept.entries.values() for _, stored in entries}
        assert known == set(books.inputs)
        group._jobs.check_cancelled = lambda: None
        group._jobs.drain()
    assert 50 < cancelled < 350
    for value in (7.0, 8.0):  # whatever was left over goes with the next ones
        given = {name: torch.full((1,), value) for name in ("x", "timestep", "context", "image")}
        key = group.load(model, lambda: {"a": [(strength,)]}, strength)
        group.velocity(key, given)
    assert len(books.inputs) <= 4


def test_nothing_listens_to_other_machines(shared):
    """Ray, its helpers, the workers, torch's store, gloo, and this process itself."""
    shared.start()
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    assert {place["pid"] for place in shared.places} <= {process.pid for process in processes}
    listening = [
        (process.name(), connection.laddr.ip)
        for process in processes
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
        or (connection.laddr and connection.type == socket.SOCK_DGRAM)
    ]
    assert {"gcs_server", "raylet"} <= {name for name, _ in listening} and len(listening) > 6
    foreign = [one for one in listening if not ip_address(one[1].removeprefix("::ffff:")).is_loopback]
    assert not foreign


def test_helpers_that_nobody_asks_are_left_out(shared):
    shared.start()
    running = " ".join(word for p in psutil.Process().children(recursive=True) for word in p.cmdline())
    assert "gcs_server" in running
    assert [name for name in ("log_monitor.py", "dashboard.py", "monitor.py") if name in running] == []


@pytest.mark.parametrize("module", [None, SimpleNamespace(), SimpleNamespace(Node=object)])
def test_a_ray_of_other_parts_is_left_as_it_is(monkeypatch, module):
    monkeypatch.setitem(sys.modules, "ray._private.node", module)
    with without_helpers():
        pass


@pytest.mark.parametrize(
    ("names", "left"),
    [
        (("start_log_monitor", "start_api_server", "start_monitor"), []),
        (("start_log_monitor", "start_helper"), ["start_helper"]),
        (("start_helper",), ["start_helper"]),
    ],
)
def test_a_ray_that_calls_its_helpers_otherwise_starts_with_them(monkeypatch, names, left):
    started = []
    kind = type("Node", (), {name: lambda self, name=name: started.append(name) for name in names})
    monkeypatch.setitem(sys.modules, "ray._private.node", SimpleNamespace(Node=kind))
    with without_helpers():
        for name in names:
            getattr(kind(), name)()
    assert started == left
    for name in names:
        getattr(kind(), name)()
    assert started == [*left, *names]  # all of them are as before


def test_only_the_users_own_processes_are_let_in(shared):
    shared.start()
    folder = Path(shared._cluster._ray.folder)
    assert folder.stat().st_mode & 0o077 == 0
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    assert token.stat().st_mode & 0o077 == 0 and len(token.read_text()) >= 32
    stranger = "import sys; from ray._raylet import GcsClient as C; print('in', C(sys.argv[1]).internal_kv_keys(b''))"
    address = import_ray().get_runtime_context().gcs_address
    for mode, secret, knows in (
        ("token", token.read_text(), True),
        ("token", "0" * 64, False),
        ("disabled", "", False),
    ):
        environment = {**os.environ, "RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": secret}
        done = subprocess.run(
            [sys.executable, "-c", stranger, address],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ("in" in done.stdout.split()) == knows, done.stderr[-3000:]
        assert knows or "Authentication" in done.stderr


def test_one_process_that_fails_is_named_with_its_traceback(shared, models, given_up):
    key = shared.load(recipe(models))
    given = inputs_of(CONFIGS["t2v"], 3)
    shared.velocity(key, given)
    stored = shared._kept.entries["context"][0][1]
    shared._jobs.actors[1].call.remote("forget", [stored])  # a fault in this process alone
    begun = time.monotonic()
    with pytest.raises(GroupError, match=r"rank 1 of 2 .*failed in velocity: KeyError(.|\n)*Traceback"):
        shared.velocity(key, given)
    assert given_up[0] - begun < TIMEOUT + 5
    assert not shared.is_running
    key = shared.load(recipe(models))
    assert close_to(shared.velocity(key, given), expected(models, given))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_is_named_and_the_group_starts_anew(shared, models, given_up, rank):
    key = shared.load(recipe(models))
    victim = shared.stats()[rank]["pid"]
    wait = long_job(shared, key)
    os.kill(victim, signal.SIGKILL)
    begun = time.monotonic()
    error = wait()
    assert isinstance(error, GroupError), error
    assert f"rank {rank} of 2" in str(error) and f"process {victim}" in str(error) and "died" in str(error)
    assert given_up[0] - begun < TIMEOUT + 5
    given = inputs_of(CONFIGS["t2v"], 3)
    key = shared.load(recipe(models))
    assert close_to(shared.velocity(key, given), expected(models, given))


@pytest.mark.long
@pytest.mark.parametrize("stage", ["load", "decode", "idle"])
def test_a_process_that_is_killed_at_another_stage_is_named_too(shared, models, given_up, stage):
    latents, given = torch.randn(1, 16, 2, 4, 33), inputs_of(CONFIGS["t2v"], 3)
    vae = Recipe("vae", str(models / "VAE 2.1"))
    key, decoder = shared.load(recipe(models)), shared.load(vae)
    jobs = {
        "load": lambda: shared.load(recipe(models), dict, "another version"),
        "decode": lambda: shared.decode(decoder, latents),
        "idle": lambda: shared.velocity(key, given),
    }
    victim = shared.stats()[1]["pid"]
    os.kill(victim, signal.SIGKILL if stage == "idle" else signal.SIGSTOP)
    wait = in_background(jobs[stage])
    if stage != "idle":
        wait_for(lambda: shared._jobs._in_flight)  # the others are at it, and this one never ends
        os.kill(victim, signal.SIGKILL)
    error = wait()
    assert isinstance(error, GroupError) and f"process {victim}" in str(error) and "died" in str(error), error
    assert len(given_up) == 1 and not shared.loads
    key = shared.load(recipe(models))
    assert close_to(shared.velocity(key, given), expected(models, given))


def test_a_stalled_process_is_named_after_the_timeout(shared, models, given_up):
    key = shared.load(recipe(models))
    victim = shared.stats()[1]["pid"]
    shared.set_timeout(TIMEOUT)
    wait = long_job(shared, key)
    stalled = [psutil.Process(victim)]
    os.kill(victim, signal.SIGSTOP)
    begun = time.monotonic()
    error = wait()
    assert isinstance(error, GroupError) and "rank 1 of 2" in str(error), error
    assert f"no answer for {TIMEOUT:g} s" in str(error)
    assert TIMEOUT - 3 < given_up[0] - begun < TIMEOUT + 8
    assert not psutil.wait_procs(stalled, timeout=30)[1]  # a killed process may take a moment to be gone


def test_more_gpus_than_there_are(shared, monkeypatch):
    shared.close()  # a process has one Ray, which this one would be asked for GPUs
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="2 GPUs were asked for and there is 1: ask for fewer"):
        Group(2).start()


def test_a_ray_without_tokens_is_refused(monkeypatch):
    for version in ("2.9.3", "2.51.2", "1.13.0"):
        monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(__version__=version, is_initialized=bool))
        with pytest.raises(ValueError, match=rf"ray {version} lets .* run code.*pip install 'ray>=2\.52'"):
            Group(2).start()
    for version in ("2.52.0", "2.60.0", "3.0.0.dev0"):
        monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(__version__=version, is_initialized=bool))
        assert import_ray().__version__ == version


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "ray._raylet", raising=False)
    return tmp_path


def test_the_token_is_made_for_the_user_alone(home):
    token = home / ".ray" / "auth_token"
    use_token(is_own=False)
    assert not token.exists() and "RAY_AUTH_MODE" not in os.environ
    use_token(is_own=True)
    made = token.read_text()
    assert token.stat().st_mode & 0o777 == 0o600 and token.parent.stat().st_mode & 0o777 == 0o700
    assert len(made) >= 32 and os.environ["RAY_AUTH_MODE"] == "token"
    token.chmod(0o644)  # as Ray writes it
    del os.environ["RAY_AUTH_MODE"]
    use_token(is_own=True)
    assert token.stat().st_mode & 0o777 == 0o600 and token.read_text() == made


def test_a_token_that_cannot_be_written(home):
    (home / ".ray").write_text("in the way")
    with pytest.raises(ValueError, match=r"could not be written to .*auth_token .*RAY_AUTH_TOKEN"):
        use_token(is_own=True)


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match="pip install 'ray"):
        Group(2).start()


def test_a_cluster_that_is_not_there(shared):
    shared.close()  # a process has one Ray, which would be there
    with pytest.raises(ValueError, match=r"the Ray cluster at 127.0.0.1:1 could not be reached"):
        Group(2, "127.0.0.1:1").start()
    with pytest.raises(ValueError, match=r"auto or host:port of the cluster's head, not ray://127.0.0.1:1"):
        Group(2, "ray://127.0.0.1:1").start()


_MEMBER = """
import sys
from ipaddress import ip_address
from pathlib import Path
from wan_models.distributed.group import Group
from wan_models.distributed.mesh import Layout
from wan_models.distributed.weights import Recipe
from wan_models.tools.small_models import CONFIGS, inputs_of
import torch
address, model, out = sys.argv[1:]
group = Group(2, address, timeout=60)
key = group.load(Recipe("dit", model, layout=Layout(1, 2)))
torch.save(group.velocity(key, inputs_of(CONFIGS["t2v"], 5)), out)
group.close()
"""


def test_an_existing_cluster(models, tmp_path):
    """The group uses its machines and leaves it running; the package is sent there."""
    use_token(is_own=True)  # both take it from the environment
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # keeps this cluster on the loopback interface
    here = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "GLOO_SOCKET_IFNAME": "lo"}
    here["RAY_enable_worker_prestart"] = "0"  # of processes that nobody asks for
    head = [
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--head",
        "--block",
        "--node-ip-address=127.0.0.1",
    ]
    options = [
        f"--port={port}",
        "--num-cpus=2",
        "--include-dashboard=false",
        "--object-store-memory=200000000",
    ]
    cluster = subprocess.Popen(
        [*head, *options], env=os.environ | here, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    started = []
    try:
        for line in cluster.stdout:
            if "Ray runtime started" in line:
                break
        started = psutil.Process(cluster.pid).children(recursive=True)
        script, out = tmp_path / "member.py", tmp_path / "out.pt"
        script.write_text(_MEMBER)
        given = (script, f"127.0.0.1:{port}", models / "t2v", out)
        done = run(*given, seconds=120, PYTHONPATH=str(ROOT), **here)
        assert done.returncode == 0, done.stderr[-3000:]
        assert close_to(torch.load(out), expected(models, inputs_of(CONFIGS["t2v"], 5)))
        assert cluster.poll() is None and all(process.is_running() for process in started)
    finally:
        cluster.terminate()
        try:
            cluster.wait(20)
        except subprocess.TimeoutExpired:
            cluster.kill()
        for process in psutil.wait_procs(started, timeout=10)[1]:
            process.kill()


_OWNER = """
import subprocess, sys, time, psutil
from wan_models.distributed.group import Group
other = subprocess.Popen(["sleep", "1000"])  # of the host, or of another pack
group = Group(1)
group.start()
children = [child.pid for child in psutil.Process().children(recursive=True)]
children.remove(other.pid)
print(other.pid, group._cluster._ray.folder, *children, flush=True)
if sys.argv[1] == "close":
    group.close()
    print("closed", flush=True)
time.sleep(0 if sys.argv[1] in ("close", "exit") else 100)
"""


@pytest.mark.parametrize("how", ["kill", "exit", "close", "terminate all"])
def test_no_process_is_left(how, tmp_path):
    script, out = tmp_path / "owner.py", tmp_path / "out.txt"
    script.write_text(_OWNER)
    out.touch()
    owner = start([script, how], ROOT, out, tmp_path / "err.txt", PYTHONPATH=str(ROOT))
    other, folder, *pids = wait_for(lambda: "\n" in out.read_text() and out.read_text().split())
    other = psutil.Process(int(other))
    assert Path(folder).is_dir()
    processes = [psutil.Process(int(pid)) for pid in pids]
    assert len(processes) > 4
    if how == "kill":
        psutil.Process(owner.pid).kill()
    elif how == "terminate all":
        for process in (*processes, psutil.Process(owner.pid)):
            process.terminate()
    elif how == "close":
        wait_for(lambda: out.read_text().endswith("\nclosed\n"))
    owner.wait(60)
    # some that Ray leaves end by themselves after a minute
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert not alive
    wait_for(lambda: not Path(folder).exists())
    assert other.status() == psutil.STATUS_SLEEPING
    other.kill()
