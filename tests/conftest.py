"""Fixtures of the whole suite: a fresh seed each run, and the official code made to run on a CPU."""

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

from demo.cpu_torch import repair_torchvision
from demo.setup_host import HOST, install_host

repair_torchvision()


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """The host's folder: COMFYUI from the environment, or the one that set-up brings."""
    chosen = os.environ.get("COMFYUI")
    return Path(chosen).resolve() if chosen else (HOST if HOST.is_dir() else install_host())


@pytest.fixture
def seed() -> int:
    """A seed drawn anew each run and set as torch's; pytest shows the print where a test fails.

    TEST_SEED in the environment sets it, so that a failure can be looked at again."""
    value = int(os.environ.get("TEST_SEED") or random.SystemRandom().randrange(2**31))
    print(f"seed = {value}")  # noqa: T201
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
