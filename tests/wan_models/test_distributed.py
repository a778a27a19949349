"""Several processes give what one gives; gloo on this machine's CPU, 2 and 4 of them."""

import gc
import json
import weakref
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from forked import run
from tests_support import on_meta

from devhost.host import ROOT
from wan_models.checkpoints.patches import Patch, patched
from wan_models.distributed.mesh import Layout, check, layouts, rows_of
from wan_models.distributed.parallelize import parallelize_dit
from wan_models.distributed.sequence_parallel import Shard, ulysses
from wan_models.distributed.worker import Worker
from wan_models.families import FAMILIES
from wan_models.rope import rotary_table
from wan_models.tools.selftest import TOLERANCE, layouts_of
from wan_models.tools.small_models import CONFIGS

pytestmark = pytest.mark.slow
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo"}


TORCHRUN = (
    "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", "0",
    "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "-m",
)  # fmt: skip
SELFTEST = "wan_models.tools.selftest"
STARTS = {"2 by torchrun": (2, *TORCHRUN, SELFTEST), "4 of its own": (4, SELFTEST, "--world", "4")}


@pytest.fixture(scope="module", params=STARTS)
def results(request, tmp_path_factory):
    """What the self-test finds with so many processes."""
    world, *arguments = STARTS[request.param]
    file = tmp_path_factory.mktemp("selftest") / "results.json"
    done = run("-m", *arguments, "--json", file, seconds=300, **LOOPBACK)
    assert done.returncode in (0, 1), done.stderr
    print(done.stdout)  # noqa: T201
    found = json.loads(file.read_text())
    assert done.returncode == int(any(not one["error"] < TOLERANCE for one in found)), done.stderr[-3000:]
    return world, found


def test_equal_to_one_process(results):
    world, found = results
    assert len(found) > 40
    for family in ("t2v", "t2v + LoRA", "i2v", "ti2v", "s2v", "animate", "animate2"):
        seen = {one["layout"] for one in found if one["case"] == f"{family}, batch 2"}
        assert seen == {str(layout) for layout in layouts_of(world)}, family
    assert {"T5", "VAE 2.1 decode", "VAE 2.2 decode"} <= {one["case"] for one in found}
    wrong = [one for one in found if not one["error"] < TOLERANCE]
    assert not wrong


def test_each_process_keeps_its_share_of_the_weights(results):
    world, found = results
    for one in found:
        expected = 1 / world if "FSDP" in one["layout"] else 1.0
        assert one["share"] == pytest.approx(expected, rel=0.02), one


def test_no_process_ever_holds_the_whole_model(tmp_path):
    """Loading 200 MB over two processes: anonymous memory grows by about half, and one tensor."""
    from safetensors.torch import save_file

    from wan_models.config import DiTConfig
    from wan_models.dit.base import WanModel
    from wan_models.random_weights import random_state_dict

    config = DiTConfig(dim=512, ffn_dim=2048, num_heads=4, num_layers=12)
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(
        random_state_dict(lambda: WanModel(config), 1),
        folder / "diffusion_pytorch_model.safetensors",
    )
    script = tmp_path / "load.py"
    script.write_text(_LOAD.format(folder=str(folder)))
    done = run(script, seconds=300, PYTHONPATH=str(ROOT), **LOOPBACK)
    assert done.returncode == 0, done.stderr[-3000:]
    whole = (folder / "diffusion_pytorch_model.safetensors").stat().st_size
    for line in done.stdout.splitlines():
        kept, peak = map(int, line.split())
        assert kept == pytest.approx(whole / 2, rel=0.02)
        assert peak < 0.7 * whole, (peak / whole, done.stdout)


_LOAD = """
import torch, torch.distributed as dist, torch.multiprocessing as mp
import torch._dynamo, torch.distributed.fsdp  # which take memory, too
from wan_models.distributed.mesh import Layout
from wan_models.distributed.weights import Recipe
from wan_models.distributed.worker import Worker

def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))

def process(rank, port):
    seen = []
    worker = Worker(rank, 2, 60, heartbeat=lambda: seen.append(anonymous()))
    worker.connect(dist.TCPStore("127.0.0.1", port, is_master=False))
    before = anonymous()
    report = worker.load("model", Recipe("dit", {folder!r}, layout=Layout(fsdp=True)), {{}})
    print(report["bytes"], max(*seen, anonymous()) - before, flush=True)
    dist.barrier()
    dist.destroy_process_group()

if __name__ == "__main__":
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    mp.start_processes(process, (store.port,), nprocs=2, start_method="fork")
"""


def test_parts_of_a_sequence():
    for length, world in ((1, 4), (7, 4), (8, 4), (13, 3), (105, 2)):
        shards = [Shard(rank, world, length) for rank in range(world)]
        x = torch.randn(2, length, 3)
        assert torch.equal(torch.cat([s.take(x) for s in shards], 1)[:, :length], x)
        e = torch.arange(length)[None, :, None].repeat(2, 1, 1)  # a segment for each token
        for shard in shards:
            inside, lengths = shard.segments(length, None)
            assert sum(lengths or (shard.size,)) == shard.size
            own = e[0, inside][: shard.stop - shard.start, 0]
            assert torch.equal(own, torch.arange(shard.start, shard.stop))


def test_what_attention_is_given_lies_in_memory_of_its_own(monkeypatch):
    """Keys that are kept would keep the queries, too."""
    monkeypatch.setattr(dist, "all_to_all_single", lambda out, sent, group: out.copy_(sent))
    given = []

    def attention(q, k, v, heads):
        given.extend((q, k, v))
        return q

    group = SimpleNamespace(size=lambda: 2)
    ulysses(attention, group, 6)(*torch.randn(3, 1, 3, 8), heads=4)
    assert [x.untyped_storage().nbytes() for x in given] == [x.nbytes for x in given] == [6 * 4 * 4] * 3


def test_rows_of_a_batch():
    for batch in range(1, 7):
        rows = [rows_of(group, 2, batch) for group in range(2)]
        assert all(part.stop > part.start for part in rows)
        first, last = ([*range(part.start, part.stop)] for part in rows)
        assert first + last == [*range(batch)] or (batch == 1 and first == last == [0])


@pytest.mark.parametrize(
    ("layout", "world", "heads", "message"),
    [
        (
            Layout(1, 3),
            3,
            40,
            "ulysses 3 does not divide the model's 40 attention heads; choose one of 1, 2, 4, 5, 8",
        ),
        (
            Layout(2, 4),
            4,
            40,
            "makes 8, and there are 4 GPUs; choose CFG-parallel 2 x Ulysses 2, CFG-parallel 1 x Uly",
        ),
        (Layout(3, 1), 3, 40, "CFG-parallel is 1 or 2"),
        (Layout(offload=True), 1, 40, "with FSDP only"),
        (Layout(1, 1), 2, 40, "there are 2 GPUs; choose"),
    ],
)
def test_degrees_that_do_not_fit(layout, world, heads, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        check(layout, world, heads)


def test_choices_are_accepted():
    for world in (1, 2, 4, 6, 8):
        for layout in layouts(world, 40):
            check(layout, world, 40)


def test_patches_by_hand(seed):
    draw = lambda *shape: torch.randn(shape)  # noqa: E731
    weight, up, down = draw(6, 4), draw(6, 2), draw(2, 4)
    lora = {"up": up, "down": down, "alpha": 4.0}
    assert torch.allclose(patched(weight, [Patch("lora", 0.5, 1.0, lora)]), weight + 0.5 * 2 * up @ down)
    assert torch.allclose(patched(weight, [Patch("diff", 2.0, 0.5, {"diff": weight})]), 2.5 * weight)
    assert torch.equal(patched(weight, [Patch("set", 1.0, 1.0, {"diff": up @ down})]), up @ down)
    hada = {"w1_a": up, "w1_b": down, "w2_a": draw(6, 2), "w2_b": draw(2, 4)}
    expected = weight + (up @ down) * (hada["w2_a"] @ hada["w2_b"])
    assert torch.allclose(patched(weight, [Patch("loha", 1.0, 1.0, hada)]), expected, atol=1e-5)
    one, two = draw(3, 2), draw(2, 2)
    expected = weight + torch.kron(one, two)
    assert torch.allclose(
        patched(weight, [Patch("lokr", 1.0, 1.0, {"w1": one, "w2": two})]), expected, atol=1e-5
    )
    turned = weight + up @ down
    length = torch.rand(6, 1) + 1
    expected = turned / turned.norm(dim=1, keepdim=True) * length
    dora = {"up": up, "down": down, "dora_scale": length}
    assert torch.allclose(patched(weight, [Patch("lora", 1.0, 1.0, dora)]), expected, atol=1e-5)
    assert patched(weight.bfloat16(), [Patch("lora", 0.5, 1.0, lora)]).dtype == torch.bfloat16


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_that_is_dropped_is_freed_at_once(name):
    """Its memory does not wait for Python to look for cycles."""
    model = on_meta(FAMILIES[CONFIGS[name].family].network_class, CONFIGS[name])
    mesh = SimpleNamespace(get_group=lambda name: SimpleNamespace(size=lambda: 2, rank=lambda: 0))
    parallelize_dit(model, mesh, Layout(ulysses=2), load=lambda model: None)
    assert model.sequence_parallel is not None
    gone = weakref.ref(model.blocks[0].self_attn.q.weight)
    gc.disable()
    try:
        del model
        assert gone() is None
    finally:
        gc.enable()


def test_a_worker_frees_what_holds_on_to_itself(monkeypatch):
    """As networks do whose weights are shared; and tables of positions, which are on its device too."""
    worker, network = Worker(0, 1, 60.0), torch.nn.Linear(2, 2)
    network.itself = [network]
    worker._models["key"] = SimpleNamespace(network=network)
    tables = weakref.ref(rotary_table((2, 3, 4), 12, worker.device))
    gone = weakref.ref(network.weight)
    del network
    gc.disable()
    try:
        assert gone() is not None and tables() is not None
        worker.drop("key")
        assert gone() is None and tables() is None
    finally:
        gc.enable()
