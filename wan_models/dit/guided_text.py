"""A text with all that changes how the tokens of a video look at it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .text_guidance import NAG
from .text_schedule import Schedule


@dataclass(frozen=True)
class GuidedText:
    """What a video is told, and how its tokens are to look at it.

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
        """That of which `plain` gave what is among `given`."""
        nag, schedule = None, given.get("schedule")
        if "nag" in given:
            scale, tau, alpha = given["nag"]
            nag = NAG(given["nag_text"], scale, tau, alpha, given.get("nag_rows"))
        return cls(given["context"], nag, None if schedule is None else Schedule.of_plain(schedule))
