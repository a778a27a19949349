"""A text with all that changes how the tokens of a video look at it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..attention import Attention
from .layers import pad_text
from .text_guidance import NAG, TextKernel, beside
from .text_schedule import Schedule
from .tokens import FrameSpan, Grid


@dataclass(frozen=True)
class GuidedText:
    """Text of a video, and how its tokens are to look at it.

    rows: UMT5 rows [B, L, text_dim], or a list of [L_i, text_dim]. nag, schedule: None for none."""

    rows: Tensor | list[Tensor]
    nag: NAG | None = None
    schedule: Schedule | None = None

    @classmethod
    def of(cls, text: "Tensor | list[Tensor] | GuidedText") -> "GuidedText":
        return text if isinstance(text, GuidedText) else cls(text)

    def plain(self) -> dict[str, Any]:
        """The same as tensors and plain data by name, which other processes can be sent."""
        out: dict[str, Any] = {"context": self.rows}
        if (nag := self.nag) is not None:
            out |= {"nag": (nag.scale, nag.tau, nag.alpha), "nag_text": nag.text}
            out |= {} if nag.rows is None else {"nag_rows": nag.rows}
        if self.schedule is not None:
            out["schedule"] = self.schedule.plain()
        return out

    @classmethod
    def of_plain(cls, given: Mapping[str, Any]) -> "GuidedText":
        """Makes it of what `plain` gave, which is among `given`."""
        nag, schedule = None, given.get("schedule")
        if "nag" in given:
            scale, tau, alpha = given["nag"]
            nag = NAG(given["nag_text"], scale, tau, alpha, given.get("nag_rows"))
        return cls(given["context"], nag, None if schedule is None else Schedule.of_plain(schedule))

    def embed(self, length: int, dtype: torch.dtype, layer: Callable[[Tensor], Tensor]) -> "EmbeddedText":
        """The rows, padded to `length`, through a layer that is given them as `dtype`; together with the text that they
        are guided away from, if there is one."""
        rows, nag = pad_text(self.rows, length), self.nag
        if nag is not None:
            negative = pad_text(nag.text, length).to(rows)
            if guided := nag.guided(rows, negative):
                tokens, of_negative = beside(rows, negative, lambda x: layer(x.to(dtype)))
                guidance = {"nag": nag, "negative": of_negative, "rows": guided}
                return EmbeddedText(rows, tokens, self.schedule, guidance)
        return EmbeddedText(rows, layer(rows.to(dtype)), self.schedule)


@dataclass(frozen=True)
class EmbeddedText:
    """A text as blocks are given it: tokens [B, L, C] of its padded rows [B, L, text_dim].

    guidance: fields of `TextKernel`, where it is guided away from another."""

    rows: Tensor
    tokens: Tensor
    schedule: Schedule | None = None
    guidance: dict[str, Any] = field(default_factory=dict)

    def kernel(self, attention: Attention, grid: Grid, before: int, frames: FrameSpan) -> Attention:
        """The kernel of the cross-attention to it, from the tokens of these frames of a grid, before which there are
        `before` latent frames of a reference; `attention` itself for a plain text."""
        kernel = attention
        if self.schedule is not None:
            kernel = self.schedule.kernel(attention, self.rows, self.schedule.times(grid[0], before), frames)
        guides = self.guidance or kernel is not attention
        return TextKernel(kernel, attention, **self.guidance) if guides else attention
