"""What long videos made clip by clip share: one progress bar, finished clips on disk, a line on the time left."""

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from . import preview
from .clip_store import ClipStore
from .progress import without_progress


class ClipRun:
    """The clips of one video. `done` holds the frames of those that an earlier run has left in `folder`.

    folder: below the host's output folder, empty for none. inputs and described: what tells this run from another.
    tell(text) is called as clips begin. Raises ValueError where the folder holds another run's clips."""

    def __init__(
        self,
        model: Any,
        steps: int,
        clips: int,
        folder: str,
        inputs: Any,
        described: Any,
        tell: Callable[[str], None],
    ) -> None:
        self._store = ClipStore(folder, inputs, described) if folder else None
        self.done = self._store.load()[:clips] if self._store else []
        self._steps, self._clips, self._tell = steps, clips, tell
        self._show = preview.callback(model, steps * clips)
        self._started = time.monotonic()
        self._index = len(self.done)

    def begin(self, index: int) -> None:
        """Says which clip is next; ends the run where Cancel was pressed."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._index = index
        text = f"clip {index + 1} of {self._clips}"
        if made := index - len(self.done):
            left = (time.monotonic() - self._started) / made * (self._clips - index)
            text += f", about {left / 60:.0f} min left" if left > 90 else f", about {left:.0f} s left"
        logging.info("[Wan2.2] %s", text)
        self._tell(text)

    def step(self, step: int, denoised: Tensor, x: Tensor, total: int) -> None:
        """The callback of the sampler: one bar and preview over the steps of all clips."""
        self._show(self._index * self._steps + step, denoised, x, self._clips * self._steps)

    def collect(self, made: Iterator[Tensor]) -> Tensor:
        """All frames [T, H, W, 3]: those of `done`, then those of each clip as it is made."""
        frames = list(self.done)
        with without_progress():
            for part in made:
                frames.append(part)
                if self._store:
                    self._store.save(len(frames) - 1, part)
        return torch.cat(frames)

    def report(self, text: str) -> str:
        """`text`, and how much of it an earlier run had made."""
        return text + (f"; {len(self.done)} clips were there already" if self.done else "")
