"""What long videos made clip by clip share: checks before the first clip, one progress bar, finished clips on disk, a
line on the time left."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import comfy.model_management
import folder_paths
import psutil
from torch import Tensor

from ..models import identity
from ..progress import without_progress
from . import preview
from .clip_store import ClipStore, check_room

_FRAME_BYTES = 3 * 4  # a pixel in memory and in a checkpoint folder: three colours in float32
_FILM_BYTES = 0.05  # a pixel in a film of H.264, rather more than the host's default quality takes


class ClipRun:
    """The clips of one video. `done` holds the frames of those that an earlier run has left in `folder`.

    frames, size: of the whole video, width and height. folder: below the host's output folder, empty for none.
    inputs: everything beside the model that tells this run from another, by the names that users know.
    tell(text) is called as clips begin. Raises ValueError where the folder holds another run's clips or cannot be
    written to, and where disk or memory cannot hold the video."""

    def __init__(
        self,
        model: Any,
        steps: int,
        clips: int,
        frames: int,
        size: tuple[int, int],
        folder: str,
        inputs: Callable[[], Mapping[str, str]],
        tell: Callable[[str], None],
    ) -> None:
        self._store, self._parts = None, {}
        self._describe = lambda: identity.of_host() | identity.of_model(model) | dict(inputs())
        if folder:
            self._parts = self._describe()
            self._store = ClipStore(folder, self._parts)
        self.done = self._store.load()[:clips] if self._store else []
        self._steps, self._clips, self._frames, self._tell = steps, clips, frames, tell
        self._check_room(size[0] * size[1])
        self._show = preview.callback(model, steps * clips)
        self._started = time.monotonic()
        self._index = len(self.done)

    def _check_room(self, pixels: int) -> None:
        film = int(self._frames * pixels * _FILM_BYTES)
        check_room(folder_paths.get_output_directory(), film, f"{self._frames} frames as a film")
        if self._store:
            left = max(0, self._frames - sum(part.shape[0] for part in self.done))
            needed = left * pixels * _FRAME_BYTES + film
            check_room(self._store.folder, needed, f"{left} frames in checkpoint_folder and their film")
        needed = self._frames * pixels * _FRAME_BYTES
        memory = psutil.virtual_memory().total + psutil.swap_memory().total
        if needed > memory:
            raise ValueError(
                f"{self._frames} frames of this size take {needed / 2**30:.0f} GiB of memory as IMAGE, and this "
                f"computer has {memory / 2**30:.0f}: make the video in parts, or smaller"
            )

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
        """The frames [T, H, W, 3] of the video: those of `done`, then those of each clip as it is made."""
        video, filled = None, 0
        try:
            with without_progress():
                for index, part in enumerate(_all(self.done, made)):
                    if (
                        video is None
                    ):  # once and whole: a second copy at the end may be more than memory holds
                        video = part.new_empty(self._frames, *part.shape[1:])
                    kept = part[: self._frames - filled]
                    video[filled : filled + len(kept)] = kept
                    filled += len(kept)
                    if self._store and index >= len(self.done):
                        self._store.save(index, part)
        finally:
            if self._store:
                self._settle()
        assert video is not None
        return video[:filled]

    def _settle(self) -> None:
        try:
            identity.settle(self._parts, self._describe())
        except ValueError:
            logging.debug("[Wan2.2] a patch keeps something new of the run", exc_info=True)

    def report(self, text: str) -> str:
        """`text`, how much of it an earlier run had made, and how much could not be kept."""
        if self.done:
            text += f"; {len(self.done)} clips were there already"
        if self._store and self._store.unkept:
            text += f"; {self._store.unkept} clips could not be kept in checkpoint_folder (the log says why)"
        return text


def _all(done: list[Tensor], made: Iterator[Tensor]) -> Iterator[Tensor]:
    yield from done
    yield from made
