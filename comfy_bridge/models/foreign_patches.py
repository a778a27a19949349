"""Patches of other nodes and packs on a MODEL: named, and refused where they could not be honoured."""

import logging
import sys
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from .hosted.blocks import PATCHES

_NETWORK = "diffusion_model."
# replaced in this process they reach the workers too, which are sent the table of positions
_POSITIONS = (f"{_NETWORK}rope_embedder", f"{_NETWORK}rope_encode")


def name_of(patch: Any) -> str:
    """The node that made a patch where it can be told, else its class or function, and the pack that it is from."""
    while isinstance(patch, partial):
        patch = patch.func
    patch = getattr(patch, "__func__", patch)
    kind = patch if hasattr(patch, "__qualname__") else type(patch)
    name = kind.__qualname__.split(".")[0]
    module = sys.modules.get(kind.__module__)
    if getattr(sys.modules.get("nodes"), "NODE_CLASS_MAPPINGS", {}).get(name) is getattr(module, name, None):
        name = sys.modules["nodes"].NODE_DISPLAY_NAME_MAPPINGS.get(name, name)  # type: ignore[attr-defined]
    parts = Path(getattr(module, "__file__", None) or "").parts
    pack = parts[parts.index("custom_nodes") + 1] if "custom_nodes" in parts[:-1] else ""
    return f"{name} of {pack}" if pack else name


def warn_of_unused(patcher: Any) -> None:
    """Logs the patches on a MODEL that belong to other kinds of models, and do nothing on a Wan model."""
    options = patcher.model_options.get("transformer_options", {})
    unused = {kind: patches for kind, patches in options.get("patches", {}).items() if kind not in PATCHES}
    for kind, replaced in options.get("patches_replace", {}).items():
        strange = [p for place, p in replaced.items() if kind != "dit" or place[0] != "double_block"]
        unused |= {kind: strange} if strange else {}
    for kind, patches in unused.items():
        makers = ", ".join(sorted({name_of(p) for p in patches}))
        logging.warning("[Wan2.2] %s does nothing here: Wan models have no place for its %s", makers, kind)


def refuse_on_workers(patcher: Any) -> None:
    """ValueError, which names the node, where a MODEL for several GPUs was changed by what only one process can run."""
    refuse_options_on_workers(patcher.model_options.get("transformer_options", {}))
    for key, value in patcher.object_patches.items():
        if key.startswith(_NETWORK) and key not in _POSITIONS and not isinstance(value, Tensor):
            _refuse(name_of(value), f"{key.removeprefix(_NETWORK)} of the model")
    if any("torch.compile" in wrappers for wrappers in patcher.wrappers.values()):
        _refuse("torch.compile (TorchCompileModel or a node like it)", "the model into a compiled one")


def refuse_options_on_workers(options: dict) -> None:
    """The same of transformer_options, which guidance may change while it samples."""
    for kind in PATCHES:
        for patch in options.get("patches", {}).get(kind, []):
            _refuse(name_of(patch), "single blocks of the model")
    for patch in options.get("patches_replace", {}).get("dit", {}).values():
        _refuse(name_of(patch), "single blocks of the model")
    if override := options.get("optimized_attention_override"):
        _refuse(name_of(override), "the attention")


def _refuse(maker: str, what: str) -> None:
    raise ValueError(
        f"{maker} changes {what}, which the worker processes of several GPUs cannot run: take that node out, or "
        "WanMultiGPU"
    )
