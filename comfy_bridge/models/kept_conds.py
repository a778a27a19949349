"""Conditioning of the host that stays the same over a run, and says so: see `wan_models.content`."""

from collections.abc import Sequence
from typing import Any

import comfy.conds
import comfy.model_base
import comfy.utils
import torch
from torch import Tensor

from ...wan_models.content import note_origin, origin_of, tracked


class KeptCond(comfy.conds.CONDRegular):
    """The host's conditioning, whose tensor of each step is noted as made of the run's."""

    def __init__(self, cond: Tensor, source: Tensor | None = None) -> None:
        super().__init__(cond)
        self.source = cond if source is None else source

    def process_cond(self, batch_size: int, **kwargs: Any) -> "KeptCond":
        return type(self)(comfy.utils.repeat_to_batch_size(self.cond, batch_size), self.source)

    def concat(self, others: Sequence[Any]) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            out = super().concat(others)
        sources = [getattr(cond, "source", None) for cond in (self, *others)]
        if all(source is not None for source in sources):
            note_origin(out, sources)
        return out


def kept(conds: dict[str, Any]) -> dict[str, Any]:
    """Result of a model's extra_conds, with its plain tensors as `KeptCond`."""
    out = dict(conds)
    for name, cond in conds.items():
        if type(cond) is comfy.conds.CONDRegular and isinstance(cond.cond, Tensor):
            out[name] = KeptCond(tracked(cond.cond))
    return out


def converted(value: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """A step's conditioning in the dtype and on the device that the host is about to convert it to, with its note."""
    origin = origin_of(value) if isinstance(value, Tensor) else None
    if origin is None:
        return value
    with torch.inference_mode(False), torch.no_grad():
        out = comfy.model_base.convert_tensor(value, dtype, device)
    note_origin(out, [source for source, _ in origin])
    return out
