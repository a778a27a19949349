"""Fixtures of the whole suite: fresh seeds each run, and the official code made to run on a CPU.

pytest-xdist spreads the suite over processes by file, so that tests of a file share what its fixtures made."""

import gc
import hashlib
import importlib.util
import os
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from devhost.cpu_torch import repair_torchvision
from devhost.setup_host import HOST, install_host

repair_torchvision()

SLOW_FOLDERS = ("browser", "client", "demo", "host", "quality")
IN_BRIEF = "test_in_brief.py"
"""The one file of tests/quality that is a test of the code."""
LONG_FILES = ("test_multi_gpu.py", "test_group.py", "test_distributed.py", "test_page.py")
"""Begun first, as the browser's are: processes that share a run of the tests then end at about the same time."""
BROWSER = "tests/browser"
"""The folder whose files share a browser, and a server for each page."""


def pytest_xdist_auto_num_workers():
    """One process more than there are cores: each of them waits now and then, for what it has started to answer or to
    be given up."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """That of `--dist loadfile`, which has the tests of the browser's folder in one process too."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return BROWSER if nodeid.startswith(BROWSER) else super()._split_scope(nodeid)

    return Scheduling(config, log)


def pytest_configure(config):
    """What all processes of a run have in common: the seed that those of the tests are made of, and one thread each."""
    os.environ.setdefault("TEST_SEED", str(random.SystemRandom().randrange(2**31)))
    if config.getoption("numprocesses", None):  # which are as many as there are cores, and more
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Without looks for garbage among the thousands of modules that come in: there is none."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items):
    """Marks as slow what starts a server or a browser, and the measurements of trained weights as what they are; other
    tests mark themselves."""
    items.sort(key=lambda item: not (item.nodeid.startswith(BROWSER) or item.path.name in LONG_FILES))
    for item in items:
        if item.path.parent.name in SLOW_FOLDERS:
            item.add_marker("slow")
        if item.path.parent.name == "quality":
            item.add_marker("long" if item.path.name == IN_BRIEF else "quality")


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """The host's folder: COMFYUI from the environment, or the one that set-up brings."""
    chosen = os.environ.get("COMFYUI")
    return Path(chosen).resolve() if chosen else (HOST if HOST.is_dir() else install_host())


@pytest.fixture(autouse=True)
def seed(request) -> int:
    """A seed of each test's own, other in each run and set as torch's; pytest shows the print where a test fails.

    TEST_SEED in the environment sets those of all tests, whatever else runs and in which process."""
    run = os.environ["TEST_SEED"]
    digest = hashlib.sha256(f"{run} {request.node.nodeid}".encode()).digest()
    value = int.from_bytes(digest[:4], "big") >> 1
    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    print(f"seed = {value}, of TEST_SEED={run} ({worker})")  # noqa: T201
    torch.manual_seed(value)
    return value


def _plain_attention(
    q: Tensor, k: Tensor, v: Tensor, q_lens=None, k_lens=None, softmax_scale=None, **_
) -> Tensor:
    """The official attention signature over torch's own attention: [B, L, H, D], keys past `k_lens` masked."""
    mask = None
    if k_lens is not None:
        mask = torch.arange(k.shape[1])[None, :] < k_lens.to(torch.int64)[:, None]
        mask = mask[:, None, None, :]
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return (
        F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=softmax_scale)
        .transpose(1, 2)
        .contiguous()
    )


@pytest.fixture
def official(monkeypatch) -> ModuleType:
    """The official Wan2.2 package `wan`, with the changes that let it run without a GPU; undone after a test."""
    if importlib.util.find_spec("wan") is None:
        pytest.skip("the official code is not installed: pip install --no-deps wan22==2.2.11")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    wan = importlib.import_module("wan")
    for name, module in list(sys.modules.items()):
        if name.startswith("wan.") and hasattr(module, "flash_attention"):
            monkeypatch.setattr(module, "flash_attention", _plain_attention)
    return wan
