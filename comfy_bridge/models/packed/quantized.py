"""The host's own layers for quantised weights, where it has them: it stores, multiplies, patches and offloads these.

Hosts without them get our own of `layers`, which unpack the same values for each use.
"""

import inspect
import json
import logging
from types import SimpleNamespace
from typing import Any

import comfy.ops
import torch
from torch import Tensor, nn

from ....wan_models.checkpoints.packed.notes import NOTE
from ....wan_models.checkpoints.reader import Checkpoint

# formats in which single rows can be unpacked, as an embedding needs them
_EMBEDDINGS = ("float8_e4m3fn", "float8_e5m2", "int8_tensorwise")


def layers(checkpoint: Checkpoint, compute: torch.dtype, device: Any = None) -> Any:
    """A namespace of the host's layers, which hold a checkpoint's weights packed; None where the host has no such
    layers, or none for a format that is in the file.

    compute: dtype that weights are unpacked to. device: on it, matrix products are computed in the packed formats that
    it supports; without one, as for the host's text encoders, weights are unpacked before every product."""
    packings = {name: packing for name in checkpoint if (packing := checkpoint.packing(name)) is not None}
    if checkpoint.gguf is not None or not packings:
        return None
    formats = {_format(checkpoint.beside(name)) for name in packings}
    if not formats <= _formats_of_host():
        logging.info(
            "[Wan2.2] %s: weights are stored as %s, for which this ComfyUI has no layers: unpacked for each use",
            checkpoint.path.name,
            ", ".join(
                sorted({_format(checkpoint.beside(name)) or one.name for name, one in packings.items()})
            ),
        )
        return None
    config = {"mixed_ops": True}
    if device is None:
        return _namespace(comfy.ops.mixed_precision_ops(config, compute, full_precision_mm=True))
    # the host says in its log which of its formats the device computes in
    operations = comfy.ops.pick_operations(
        compute, compute, load_device=device, model_config=SimpleNamespace(quant_config=config)
    )
    return _namespace(operations)


def products(stored: torch.dtype, compute: torch.dtype, device: Any) -> Any:
    """A namespace of the host's layers that compute matrix products in 8-bit floats, where the host does so for weights
    of the dtype `stored`, which have no scales (`--fast fp8_matrix_mult`); None elsewhere."""
    host: Any = getattr(comfy.ops, "fp8_ops", None)
    if host is None or comfy.ops.pick_operations(stored, compute, load_device=device) is not host:
        return None

    class Layers(host):
        class Linear(_Loaded, host.Linear):
            pass

    return Layers


def _format(beside: dict[str, Tensor]) -> str | None:
    """Name of the format in its note, and whether each row has a scale where the host knows one per weight only."""
    if NOTE not in beside:
        return None
    noted = json.loads(beside[NOTE].numpy().tobytes())["format"]
    per_row = noted.startswith("float8") and beside["weight_scale"].numel() > 1
    return f"{noted} per row" if per_row else noted


def _formats_of_host() -> set[str]:
    make = getattr(comfy.ops, "mixed_precision_ops", None)
    if make is None or "disabled" not in inspect.signature(make).parameters:
        return set()  # that of older hosts is for one format and reads the state dict of a whole model
    return set(comfy.ops.QUANT_ALGOS)


def _namespace(host: Any) -> Any:
    class Layers(host):
        class Linear(_Taking, host.Linear):
            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **options)
                # which the host makes when it loads one; ours is asked for its names and shapes before
                shape = (self.out_features, self.in_features)
                self.weight = nn.Parameter(torch.empty(shape, device="meta"), requires_grad=False)

        class Embedding(_Taking, host.Embedding):
            _formats = _EMBEDDINGS

    return Layers


class _Loaded:
    """Mixed into a layer of the host's, which is then made with a weight on the meta device as others are.

    Where the host has dynamic VRAM, its layers are made without one unless they bring this method."""

    def _load_from_state_dict(self, *args: Any) -> None:
        nn.Module._load_from_state_dict(self, *args)  # type: ignore[arg-type]


class _Taking:
    """Mixed into a layer of the host's that makes a quantised weight of what is loaded into it."""

    _formats: tuple[str, ...] | None = None  # that it can hold, None for all of the host's

    def take_packed(self, raw: Tensor, beside: dict[str, Tensor]) -> bool:
        """Takes a weight as it is stored, and what lies beside it; False where it cannot hold that."""
        if self._formats is not None and _format(beside) not in self._formats:
            return False
        self.load_state_dict({"weight": raw, **beside}, strict=False, assign=True)  # type: ignore[attr-defined]
        return True

    def _load_from_state_dict(self, state: dict, prefix: str, *args: Any) -> None:
        # the host's takes away a weight that is not among what is loaded, and rounds others to its dtype
        is_packed = f"{prefix}{NOTE}" in state
        load = super()._load_from_state_dict if is_packed else nn.Module._load_from_state_dict.__get__(self)  # type: ignore[misc]
        load(state, prefix, *args)
