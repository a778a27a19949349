"""Keys and values of a video that drives another: made once per clip, and kept for its steps where there is room."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ..config import DiTConfig
from ..frame_attention import KeysValues
from ..memory import free_bytes

Place = Literal["auto", "gpu", "gpu int8", "ram", "ram int8", "off"]
PLACES: tuple[Place, ...] = ("auto", "gpu", "gpu int8", "ram", "ram int8", "off")
"""Places to keep them: beside the model on its device, in main memory, as they are or in 8 bits; or nowhere, and made
anew at every step. "auto" takes the device, then main memory, and neither where there is no room."""

_SHARE = 0.6  # of the free memory that "auto" takes; what a step computes needs room too


def kept_bytes(config: DiTConfig, tokens: int, item_bytes: int, place: Place = "gpu") -> int:
    """Bytes of the keys and values of a video of so many tokens, `item_bytes` a number unless in 8 bits."""
    rows = 2 * config.num_layers * tokens
    if place.endswith("int8"):
        return rows * (config.dim + 2 * config.num_heads)
    return rows * config.dim * item_bytes


@dataclass(frozen=True)
class _Packed:
    """A tensor [B, L, H * D] in 8 bits, with a scale in float16 for each head of each token."""

    values: Tensor
    scales: Tensor
    dtype: torch.dtype

    @classmethod
    def of(cls, x: Tensor, head_dim: int) -> "_Packed":
        parts = x.float().unflatten(-1, (-1, head_dim))
        scales = (parts.abs().amax(-1, keepdim=True) / 127).clamp_min(1e-7).half()
        values = (parts / scales.float()).round_().clamp_(-127, 127).to(torch.int8)
        return cls(values, scales, x.dtype)

    def to(self, device: torch.device) -> "_Packed":
        return _Packed(self.values.to(device), self.scales.to(device), self.dtype)

    def unpacked(self) -> Tensor:
        return (self.values.float() * self.scales.float()).flatten(-2).to(self.dtype)


@dataclass
class KeptKeys:
    """Keys and values by block, once they were put here; `place` is settled when the first ones are.

    free: free bytes of a device. Nothing is kept after `clear`, until the next are put."""

    place: Place
    blocks: int
    head_dim: int
    free: Callable[[torch.device], int] = free_bytes
    _kept: dict[int, tuple[Tensor | _Packed, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.place not in PLACES:
            raise ValueError(
                f"unknown place {self.place!r} for the driving video's keys: choose one of {', '.join(PLACES)}"
            )

    @property
    def is_full(self) -> bool:
        """Whether all blocks' are here."""
        return len(self._kept) == self.blocks

    def put(self, index: int, pair: KeysValues) -> None:
        """Keeps those of block `index`, where they are kept at all; k and v [B, L, H' * D] of this process's heads."""
        if self.place == "auto":
            self.place = self._choose(pair)
        if self.place == "off":
            return
        device = pair[0].device if self.place.startswith("gpu") else torch.device("cpu")
        if self.place.endswith("int8"):
            self._kept[index] = tuple(_Packed.of(x, self.head_dim).to(device) for x in pair)
        else:
            self._kept[index] = tuple(x.to(device) for x in pair)

    def get(self, index: int, device: torch.device) -> KeysValues:
        """Keys and values of block `index`, on a device."""
        k, v = (x.to(device) for x in self._kept[index])
        return (k if isinstance(k, Tensor) else k.unpacked()), (v if isinstance(v, Tensor) else v.unpacked())

    def clear(self) -> None:
        """Lets go of what was put in a pass that was not finished."""
        self._kept = {}

    def nbytes(self) -> int:
        """Bytes that are kept."""
        return sum(_bytes(x) for pair in self._kept.values() for x in pair)

    def _choose(self, pair: Sequence[Tensor]) -> Place:
        needed = self.blocks * sum(x.nbytes for x in pair)
        device = pair[0].device
        if needed <= _SHARE * self.free(device):
            return "gpu"
        return "ram" if needed <= _SHARE * self.free(torch.device("cpu")) else "off"


def _bytes(x: Tensor | _Packed) -> int:
    return x.nbytes if isinstance(x, Tensor) else x.values.nbytes + x.scales.nbytes
