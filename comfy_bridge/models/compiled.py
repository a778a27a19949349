"""torch.compile on our MODELs: of whole networks, and of the passes of blocks alone.

A network that a node compiles as a whole is compiled block by block. Around the blocks stand Cancel, patches of other
packs and what is made once per clip: Python in which a compiler has to break off, and which changes from step to step.
Inside of them is all that is worth compiling, and one graph serves all.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch

from ...wan_models.dit.passes import PLAIN, Passes, compiled

SETTING = "WAN_COMPILE_PASSES"
"""A variable of the environment: 1 for compiled passes, which take a minute at their first use."""


@contextmanager
def block_by_block(model: Any) -> Iterator[None]:
    """Lets a host's model object, of which `diffusion_model` was compiled, run that itself with compiled blocks."""
    whole = model.diffusion_model
    compiler = getattr(whole, "dynamo_ctx", None)  # with the backend and options that the node has chosen
    if compiler is None:
        yield
        return
    network = whole._orig_mod
    blocks = list(network.blocks)
    model.diffusion_model = network
    for index, block in enumerate(blocks):
        network.blocks[index] = compiler(block)
    try:
        yield
    finally:
        for index, block in enumerate(blocks):
            network.blocks[index] = block
        model.diffusion_model = whole


def chosen_passes(device: torch.device) -> Passes:
    """Passes that the environment asks for. Raises ValueError where they cannot be had on a device."""
    if os.environ.get(SETTING, "0") in ("", "0"):
        return PLAIN
    if device.type == "cpu":
        name = os.environ.get("CXX") or ("cl" if sys.platform == "win32" else "g++")
        missing = "" if shutil.which(name) else f"a C++ compiler ({name})"
    else:
        missing = "" if find_spec("triton") else "the package triton"
    if missing:
        raise ValueError(f"{SETTING} is set, and {missing} is not installed: install it, or unset {SETTING}")
    return compiled()
