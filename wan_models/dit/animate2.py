"""The diffusion transformer of Animate-2-14B: the image-to-video one, driven by a raw video.

The driving video's latents go through the same blocks as the video's, at timestep 1 and with text and CLIP features of
their own; they see each other only. In each block, latent frame j of the video attends to all of the video and to the
driving frame j - 1; frame 0 holds the reference picture and has none. What drives does not depend on the step, so its
keys and values are made once per clip and kept, or else made block by block beside the video's.
Sources: DiffSynth-Studio's wan_animate_2_dit.py, diffusers' transformer_wan_animate_2.py, LightX2V's infer/animate2;
the parameters are those of the image-to-video model.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..attention import Attention
from ..config import DrivenConfig
from ..frame_attention import FrameKeys, KeysValues
from .base import InputError, RunBlock, WanModel
from .kept_keys import KeptKeys, Place
from .layers import BlockInputs, Through, pad_text
from .tokens import Conditions, FrameSpan, Grid, Inputs, Run

DRIVING_TIMESTEP = 1.0
_KNOWN = 4  # mask channels of the driving video: all of it is known


@dataclass(frozen=True)
class Animate2Inputs(Inputs):
    """Driving inputs of a clip.

    driving: latents [B, C, F, H, W] of the frames after the reference; None for a clip that nothing drives.
    driving_text: UMT5 rows [B, L, text_dim] of a prompt for the driving video. driving_image: CLIP features [B, 257,
    image_dim] of its first frame. driving_strength, reference_strength: factors on the values that the driving video
    and the reference are attended to with; 1 is official. keep: where the driving keys and values are kept."""

    driving: Tensor | None = None
    driving_text: Tensor | None = None
    driving_image: Tensor | None = None
    driving_strength: float = 1.0
    reference_strength: float = 1.0
    keep: Place = "auto"


@dataclass(frozen=True)
class Animate2Clip(Conditions):
    """The inputs of a clip, with one row where all rows are alike, and the keys and values made of them so far.

    unconditional: bool [B], the rows of a call that are of the negative prompt; None for none."""

    inputs: Animate2Inputs
    kept: KeptKeys
    unconditional: Tensor | None = None

    def with_unconditional(self, rows: Tensor) -> "Animate2Clip":
        return replace(self, unconditional=rows)


@dataclass
class _Recorder:
    """Attention that remembers the keys and values it was last given: all tokens', of this process's heads."""

    attention: Attention
    last: KeysValues | None = None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        self.last = k, v
        return self.attention(q, k, v, heads)

    def take(self) -> KeysValues:
        assert self.last is not None, "a block has run without attention"
        last, self.last = self.last, None
        return last


class WanAnimate2Model(WanModel):
    """Velocity of the flow at a noise level, for latent video, text, reference and an `Animate2Clip`."""

    inputs_class = Animate2Inputs
    frames_before: ClassVar[int] = 1
    kept_clips: ClassVar[int] = (
        1  # guidance does not change what drives, and one clip's keys are many gigabytes
    )
    guided_apart: ClassVar[bool] = True

    @property
    def driven(self) -> DrivenConfig:
        if self.config.driven is None:
            raise ValueError(f"this is the config of a {self.config.family} model, not of Animate-2")
        return self.config.driven

    def prepare(self, inputs: Inputs, size: tuple[int, int, int]) -> Animate2Clip:
        """A clip of latent `size` (frames, height, width), the reference among the frames. Raises ValueError where
        what drives does not fit it."""
        if not isinstance(inputs, Animate2Inputs):
            raise InputError("conditions", "an Animate-2 model takes Animate2Inputs")
        kept_keys = KeptKeys(inputs.keep, self.config.num_layers, self.config.head_dim)
        if inputs.driving is None:
            return Animate2Clip(inputs, kept_keys)
        frames, *area = inputs.driving.shape[2:]
        if (frames, *area) != (size[0] - 1, *size[1:]):
            raise InputError(
                "conditions",
                f"the driving video has latent size {(frames, *area)} (frames, height, width), and this clip "
                f"{(size[0] - 1, *size[1:])} after its reference: they must be equal",
            )
        if inputs.driving_text is None:
            raise InputError("conditions", "the driving video has no prompt of its own")
        alike = replace(
            inputs,
            driving=_one_row(inputs.driving),
            driving_text=_one_row(inputs.driving_text),
            driving_image=_one_row(inputs.driving_image),
        )
        return Animate2Clip(alike, kept_keys)

    def kernels(
        self, grid: Grid, conditions: Conditions | None, attention: Attention, run_block: RunBlock
    ) -> Iterator[Attention]:
        clip = _clip(conditions)
        inputs, kept_keys = clip.inputs, clip.kept
        keys = FrameKeys(grid[1] * grid[2], None, self.driven.bias, inputs.reference_strength)
        driving = None
        if inputs.driving is not None and not kept_keys.is_full:
            kept_keys.clear()
            driving = self._drive(inputs, attention, run_block)
        for index in range(self.config.num_layers):
            if inputs.driving is None:
                yield keys.around(attention)
                continue
            if driving is None:
                k, v = kept_keys.get(index, inputs.driving.device)
            else:
                k, v = next(driving)
                kept_keys.put(index, (k, v))
            if inputs.driving_strength != 1.0:
                v = v * inputs.driving_strength
            yield replace(keys, driving=(k, v)).around(attention)

    def pass_block(
        self, index: int, hidden: Tensor, through: Through, conditions: Conditions | None
    ) -> Tensor:
        rows = _clip(conditions).unconditional
        if index != self.driven.skipped or rows is None or not bool(rows.any()):
            return through(hidden)
        if bool(rows.all()) and not self.is_sharded:
            return hidden
        before = hidden[rows]  # a copy
        hidden = through(hidden)
        hidden[rows] = before
        return hidden

    def driving_runner(self, run_block: RunBlock) -> RunBlock:
        """Runner of blocks for the driving video, where `run_block` is the video's."""
        return run_block

    def _drive(
        self, inputs: Animate2Inputs, attention: Attention, run_block: RunBlock
    ) -> Iterator[KeysValues]:
        """Keys and values of the driving video in one block after the other."""
        latents = inputs.driving
        assert latents is not None
        assert inputs.driving_text is not None
        mask = latents.new_ones(latents.shape[0], _KNOWN, *latents.shape[2:])
        hidden, grid = self.patchify(torch.cat([latents, mask, latents], dim=1))
        frames, height, width = grid
        ranges = range(1, frames + 1), range(height), range(width, 2 * width)
        rotary = self.rotary_at(tuple(tuple(map(float, axis)) for axis in ranges), hidden.device)  # type: ignore[arg-type]
        time, modulation = self.embed_time(hidden.new_full((hidden.shape[0], 1), DRIVING_TIMESTEP))
        text = pad_text(inputs.driving_text, self.config.text_len).to(self.compute_dtype)
        recorder = _Recorder(attention)
        run = Run(hidden, time, modulation, rotary, None, FrameSpan.of_video(grid))
        length = hidden.shape[1]
        if self.sequence_parallel is not None:
            run = self.sequence_parallel.split(run)
        block_inputs: BlockInputs = {
            "e": run.modulation, "context": self.text_embedding(text), "rotary": run.rotary,
            "attention": self.over_all(recorder, length), "cross_attention": attention,
            "image": self.embed_image(inputs.driving_image), "lengths": run.lengths,
        }  # fmt: skip
        hidden = run.hidden
        del run
        run_block = self.driving_runner(run_block)
        for index, block in enumerate(self.blocks):
            hidden = run_block(index, block, hidden, **block_inputs)
            yield recorder.take()


def _one_row(x: Tensor | None) -> Tensor | None:
    """One row [1, ...] of a batch whose rows are all alike, or else all."""
    return x[:1] if x is not None and x.shape[0] > 1 and bool((x == x[:1]).all()) else x


def _clip(conditions: Conditions | None) -> Animate2Clip:
    if not isinstance(conditions, Animate2Clip):
        raise InputError(
            "conditions", "an Animate-2 model needs the conditions that its `prepare` makes of a clip"
        )
    return conditions
