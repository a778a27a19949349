"""Shared parts of long videos made clip by clip: checks before the first clip, one progress bar, finished clips on
disk, a line on the time left."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import comfy.model_management
import folder_paths
import psutil
from torch import Tensor

from ...wan_models.wording import counted
from ..host_types import Latent, Model
from ..media.conditioning import Prompts
from ..media.film import Film
from ..models import identity
from ..models.fingerprint import hash_of
from ..progress import without_progress
from . import preview
from .clip_files import FinishedClips
from .clip_store import ClipStore, check_room
from .experts import Experts
from .sample import sample_with_experts
from .settings import Noise, Settings

_FRAME_BYTES = 3 * 4  # a pixel in memory and in a checkpoint folder: three colours in float32
_FILM_BYTES = 0.05  # a pixel in a film of H.264, rather more than the host's default quality takes


@dataclass(frozen=True)
class ClipPlan:
    """Length and size of a video and of its clips: `frames` of the whole, width and height in pixels."""

    frames: int
    frames_per_clip: int
    clips: int
    width: int
    height: int

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height

    @property
    def summary(self) -> str:
        """Such as "13 frames in 2 clips of 9"."""
        return f"{counted(self.frames, 'frame')} in {counted(self.clips, 'clip')} of {self.frames_per_clip}"


@dataclass(frozen=True)
class ClipSampling:
    """Settings and noise of each clip, and the folder below the host's output folder that keeps finished ones; empty
    for none."""

    settings: Settings
    noise: Noise
    checkpoint_folder: str = ""


@dataclass(frozen=True)
class Output:
    """Destination of frames as they are made: a film, if there is one, and memory."""

    film: Film | None = None
    frames: bool = True


IN_MEMORY = Output()
OUTPUTS = ("film and frames", "film", "frames")


@dataclass(frozen=True)
class OutputChoice:
    """A user's choice of output: one of OUTPUTS; filename_prefix and tags as in `Film`."""

    output: str
    filename_prefix: str
    tags: Mapping[str, Any]

    def open(self, size: tuple[int, int], fps: float) -> Output:
        """The output of a video of that width, height and rate."""
        film = None if self.output == "frames" else Film(self.filename_prefix, size, fps, self.tags)
        return Output(film, self.output != "film")


class ClipRun:
    """The clips of one video. `done` holds the frames of those that an earlier run has left in the checkpoint folder.

    model: one, or both experts. inputs: identity of everything beside model, prompts, plan and sampling, by the names
    that users know; computed only where there is a folder. of_clip: what of it is one clip's, by its number.
    on_progress(text) is called as clips begin. Raises ValueError where the folder holds another run's clips or cannot
    be written to, and where disk or memory cannot hold the video."""

    def __init__(
        self,
        model: Model | Experts,
        prompts: Prompts,
        plan: ClipPlan,
        sampling: ClipSampling,
        inputs: Callable[[], identity.Parts],
        on_progress: Callable[[str], None],
        *,
        of_clip: Callable[[int], identity.Parts] = lambda index: {},
        output: Output = IN_MEMORY,
    ) -> None:
        self._experts = model if isinstance(model, Experts) else Experts.of(model)
        self._prompts, self._plan, self._sampling = prompts, plan, sampling
        self._of_clip, self._output = of_clip, output
        self._beside: dict[str, Tensor] = {}
        self._inputs, self._on_progress = cache(inputs), on_progress
        self._store: ClipStore | None = None
        self._parts: identity.Parts = {}
        self._texts: list[identity.Parts] = []
        if sampling.checkpoint_folder:
            self._parts, self._texts = self._identity(), self._prompt_identities()
            needed = plan.frames * plan.width * plan.height * _FRAME_BYTES
            self._store = ClipStore(sampling.checkpoint_folder, self._parts, needed, self._parts_of_clip)
        try:
            self.done = self._store.load()[: plan.clips] if self._store else FinishedClips([])
            self._check_room()
        except BaseException:
            self.close()
            raise
        self._show = preview.callback(self._experts.high, sampling.settings.steps * plan.clips)
        self._started = time.monotonic()

    def prompts(self, index: int) -> Prompts:
        """The prompts of a clip."""
        return self._prompts.of_clip(index)

    def _prompt_identities(self) -> list[identity.Parts]:
        """Identity of each clip's prompts, up to the clip after which they stay the same."""
        return [identity.of_prompts(*self.prompts(index)) for index in range(self._prompts.clips)]

    def _parts_of_clip(self, index: int) -> identity.Parts:
        """Identity of a clip and of each that it goes on from; short where that is the same for all."""
        last = len(self._texts) - 1
        *before, own = (
            identity.settled(self._texts[min(clip, last)]) | self._of_clip(clip) for clip in range(index + 1)
        )
        if all(parts == own for parts in before):
            return own
        return own | {"the clips before": hash_of(*map(repr, before)).hex()}

    def _identity(self) -> identity.Parts:
        """Identity of the run. A model and prompts may change while they sample: see `identity.settle`."""
        noise = self._sampling.noise
        plain = {
            "seed": noise.seed,
            "noise_source": noise.noise_source,
            "frames_per_clip": self._plan.frames_per_clip,
        }
        return (
            identity.of_host()
            | self._of_models()
            | self._inputs()
            | identity.of_values(plain)
            | identity.of_settings(self._sampling.settings)
        )

    def _of_models(self) -> identity.Parts:
        high, low = self._experts.high, self._experts.low
        parts = identity.of_model(high)
        if low is not high:
            parts |= {f"{name}, low-noise": part for name, part in identity.of_model(low).items()}
        if base := self._experts.base:
            parts |= {f"{name}, base": part for name, part in identity.of_model(base.model).items()}
            parts |= identity.of_values({"base_steps": base.steps, "base_cfg": base.cfg})
        return parts

    def _check_room(self) -> None:
        frames, pixels = self._plan.frames, self._plan.width * self._plan.height
        film = int(frames * pixels * _FILM_BYTES)
        check_room(folder_paths.get_output_directory(), film, f"{frames} frames as a film")
        if self._store:
            left = max(0, frames - sum(self.done.lengths))
            needed = left * pixels * _FRAME_BYTES + film
            check_room(self._store.folder, needed, f"{left} frames in checkpoint_folder and their film")
        needed = frames * pixels * _FRAME_BYTES
        memory = psutil.virtual_memory().total + psutil.swap_memory().total
        if self._output.frames and needed > memory:
            instead = (
                "let the node give the film alone"
                if self._output.film
                else "make the video in parts, or smaller"
            )
            raise ValueError(
                f"{frames} frames of this size take {needed / 2**30:.0f} GiB of memory as IMAGE, and this computer has "
                f"{memory / 2**30:.0f}: {instead}"
            )

    def begin(self, index: int) -> None:
        """Reports which clip is next, and the time left; ends the run where Cancel was pressed."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        text = f"clip {index + 1} of {self._plan.clips}"
        if count := index - len(self.done):
            left = (time.monotonic() - self._started) / count * (self._plan.clips - index)
            text += f", about {left / 60:.0f} min left" if left > 90 else f", about {left:.0f} s left"
        logging.info("[Wan2.2] %s", text)
        self._on_progress(text)

    def sample(self, index: int, prompts: Prompts, latent: Latent, noise: Noise, unseen: int = 0) -> Tensor:
        """Latents [B, C, F, h, w] of a clip under its own conditioning, with one bar and preview over the steps of all
        clips. unseen: latent frames at the start that the preview leaves out."""
        settings, clips = self._sampling.settings, self._plan.clips

        def show(step: int, denoised: Tensor, x: Tensor, _total: int) -> None:
            self._show(index * settings.steps + step, denoised[:, :, unseen:], x, clips * settings.steps)

        latents, _ = sample_with_experts(self._experts, prompts, latent, settings, noise, callback=show)
        return latents["samples"]

    def keep_beside(self, tensors: dict[str, Tensor]) -> None:
        """Has these kept in the checkpoint folder beside the frames of the clip that is made, for the next clip."""
        self._beside = tensors

    def collect(self, clips: Iterator[Tensor]) -> Tensor:
        """Frames [T, H, W, 3] of the video: those of `done`, then those of each clip as it is made; none of them where
        they go into a film alone."""
        video: Tensor | None = None
        filled = 0
        try:
            with without_progress(), self._output.film or nullcontext() as film:
                for index, part in enumerate(_all(self.done, clips)):
                    if self._store and index >= len(self.done):
                        self._store.save(index, part, self._beside)
                    frames = part[: self._plan.frames - filled]
                    filled += len(frames)
                    if film:
                        film.write(frames)
                    if video is None:  # once and whole: memory may not hold a second copy
                        video = part.new_empty(
                            self._plan.frames if self._output.frames else 0, *part.shape[1:]
                        )
                    if self._output.frames:
                        video[filled - len(frames) : filled] = frames
        finally:
            if self._store:
                self._settle()
            self.close()
        assert video is not None
        return video[:filled]

    def close(self) -> None:
        """Leaves the checkpoint folder to other runs."""
        if self._store:
            self._store.close()

    def _settle(self) -> None:
        try:
            identity.settle(self._parts, self._identity())
            for before, after in zip(self._texts, self._prompt_identities(), strict=True):
                identity.settle(before, after)
        except ValueError:
            logging.debug("[Wan2.2] a patch keeps something new of the run", exc_info=True)

    def report(self, text: str) -> str:
        """`text` with the number of clips that an earlier run had made, and of those that could not be kept."""
        if self.done:
            text += f"; {counted(len(self.done), 'clip')} {'was' if len(self.done) == 1 else 'were'} there already"
        if self._store and self._store.unkept:
            text += f"; {counted(self._store.unkept, 'clip')} could not be kept in checkpoint_folder (the log says why)"
        return text


def _all(done: Sequence[Tensor], clips: Iterator[Tensor]) -> Iterator[Tensor]:
    yield from done
    yield from clips
