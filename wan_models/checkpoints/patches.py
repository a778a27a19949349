"""Changes to weights, as low-rank factors and differences, merged into one weight at a time.

For processes that load weights by themselves: a `Patch` is plain data that can be sent to them. Formulas: LoRA (arXiv
2106.09685), DoRA (2402.09353), LoHa and LoKr (2108.06098 and LyCORIS).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Patch(NamedTuple):
    """One change of one weight.

    kind: "lora", "loha", "lokr", "diff" (added as it is) or "set" (put in its place). strength: factor on the change;
    keep: factor on the weight before. parts: tensors by the names LyCORIS gives them, and "alpha", a number."""

    kind: str
    strength: float
    keep: float
    parts: Mapping[str, Any]


Patches = Mapping[str, Sequence[Patch]]
"""Official names of parameters to their changes, in order."""


def patched(weight: Tensor, patches: Sequence[Patch]) -> Tensor:
    """The weight with all changes, computed in float32; of the weight's own dtype."""
    out = weight.float() if weight.dtype != torch.float32 else weight.clone()
    for patch in patches:
        parts = {name: _like(part, out) for name, part in patch.parts.items()}
        if patch.kind == "set":
            out = parts["diff"].view(out.shape).clone()
            continue
        if patch.keep != 1.0:
            out *= patch.keep
        change = _change(patch.kind, parts).reshape(out.shape)
        scale = parts.get("dora_scale")
        if scale is None:
            out.add_(change, alpha=patch.strength)
            continue
        turned = out + change
        # a length for each row, or for each column where it is written as a row
        axes = tuple(range(1, out.dim())) if scale.shape[0] == out.shape[0] else (0,)
        turned *= scale / torch.linalg.vector_norm(turned, dim=axes, keepdim=True).clamp_min(1e-12)
        out = torch.lerp(out, turned, patch.strength)
    return out.to(weight.dtype)


def _like(part: Any, weight: Tensor) -> Any:
    return part.to(weight) if isinstance(part, Tensor) else part


def _change(kind: str, parts: Mapping[str, Any]) -> Tensor:
    if kind == "diff":
        return parts["diff"]
    change, rank = {"lora": _lora, "loha": _loha, "lokr": _lokr}[kind](parts)
    alpha = parts.get("alpha")
    return change if alpha is None or rank is None else change * (float(alpha) / rank)


def _lora(parts: Mapping[str, Any]) -> tuple[Tensor, int]:
    up, down, mid = parts["up"], parts["down"], parts.get("mid")
    if mid is not None:  # a convolution through a smaller one: up (o, r), mid (r, s, h, w), down (s, i)
        return torch.einsum("or,rshw,si->oihw", up.flatten(1), mid, down.flatten(1)), down.shape[0]
    return up.flatten(1) @ down.flatten(1), down.shape[0]


def _loha(parts: Mapping[str, Any]) -> tuple[Tensor, int]:
    halves = [_tucker(parts.get(f"t{i}"), parts[f"w{i}_a"], parts[f"w{i}_b"]) for i in (1, 2)]
    return halves[0] * halves[1], parts["w1_b"].shape[0]


def _lokr(parts: Mapping[str, Any]) -> tuple[Tensor, int | None]:
    rank: int | None = None
    factors = []
    for i in (1, 2):
        whole = parts.get(f"w{i}")
        if whole is None:
            rank = parts[f"w{i}_b"].shape[0]
            whole = _tucker(parts.get(f"t{i}"), parts[f"w{i}_a"], parts[f"w{i}_b"])
        factors.append(whole)
    one, two = factors
    return torch.kron(one.view(*one.shape, *[1] * (two.dim() - one.dim())), two), rank


def _tucker(core: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    """a @ b, or both sides of a convolution's core."""
    return a @ b if core is None else torch.einsum("ijkl,jr,ip->prkl", core, b, a)
