"""The transformers as a sampler calls them: at every step anew, with all conditioning by name.

The names are those of ComfyUI's conditioning. What a clip has constant is made at its first step and kept, though the
caller hands over its ingredients each time. The host's networks and the workers of several GPUs are made of these.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .. import rope
from ..content import Seen
from .animate import WanAnimateModel
from .base import WanModel
from .speech import SpeechClip, WanSpeechModel

# ComfyUI's nodes give an empty pose as the latents that it normalises to about zero
_NO_POSE = 1e-4


class StepModel(WanModel):
    """`WanModel` called by names."""

    _clips: tuple[tuple[tuple, Any], ...] = ()

    def velocity(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        clip_fea: Tensor | None = None,
        attention: Any = None,
        rotary: Any = None,
        run_block: Any = None,
        **conditioning: Any,
    ) -> Tensor:
        """As `WanModel.forward`; `conditioning` that this model has no use for is left alone."""
        return WanModel.forward(
            self,
            x,
            timestep,
            context,
            image=clip_fea,
            attention=attention,
            rotary=rotary,
            run_block=run_block,
        )

    def _clip(self, given: tuple, make: Callable[[], Any]) -> Any:
        """make(), or what it made before of equal things."""
        for look in (False, True):  # content is compared where none is known to be the one
            for entry in self._clips:
                known, clip = entry
                if all(_same(a, b, look) for a, b in zip(known, given, strict=True)):
                    self._note(given, clip, entry)
                    return clip
        clip = make()
        self._note(given, clip)
        return clip

    def _note(self, given: tuple, clip: Any, found: Any = None) -> None:
        """Keeps a clip by its ingredients as they are now, in the place of how it was `found`."""
        others = [entry for entry in self._clips if entry is not found]
        self._clips = ((_seen(given), clip), *others[:1])  # with and without guidance

    def forget(self, *_: Any) -> None:
        """Drops what is kept for the steps of a clip, tables of positions among it."""
        self._clips = ()
        rope.clear()


class SpeechStepModel(StepModel, WanSpeechModel):
    """`WanSpeechModel` called by names."""

    def velocity(  # type: ignore[override]
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        audio_embed: Tensor | None = None,
        reference_latent: Tensor | None = None,
        reference_motion: Tensor | None = None,
        control_video: Tensor | None = None,
        attention: Any = None,
        rotary: Any = None,
        run_block: Any = None,
        **conditioning: Any,
    ) -> Tensor:
        size = (x.shape[2], x.shape[3], x.shape[4])

        def prepare() -> SpeechClip:
            is_posed = control_video is not None and control_video.abs().max() >= _NO_POSE
            audio = None if audio_embed is None else audio_embed[..., : 4 * size[0]]
            pose = control_video if is_posed else None
            return self.prepare(reference_latent, reference_motion, pose, audio, size)

        clip = self._clip((size, reference_latent, reference_motion, control_video, audio_embed), prepare)
        return WanSpeechModel.forward(
            self, x, timestep, context, clip, attention=attention, rotary=rotary, run_block=run_block
        )


class AnimateStepModel(StepModel, WanAnimateModel):
    """`WanAnimateModel` called by names."""

    def velocity(  # type: ignore[override]
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        clip_fea: Tensor | None = None,
        pose_latents: Tensor | None = None,
        face_pixel_values: Tensor | None = None,
        face_strength: float = 1.0,
        attention: Any = None,
        rotary: Any = None,
        run_block: Any = None,
        **conditioning: Any,
    ) -> Tensor:
        frames = x.shape[2]
        clip = self._clip(
            (frames, pose_latents, face_pixel_values),
            lambda: self.prepare(pose_latents, face_pixel_values, frames),
        )
        return WanAnimateModel.forward(
            self,
            x,
            timestep,
            context,
            clip,
            image=clip_fea,
            face_strength=face_strength,
            attention=attention,
            rotary=rotary,
            run_block=run_block,
        )


def _seen(given: tuple) -> tuple:
    return tuple(Seen.of(value) if isinstance(value, Tensor) else value for value in given)


def _same(seen: Any, value: Any, look: bool) -> bool:
    if isinstance(seen, Seen):
        return isinstance(value, Tensor) and seen.is_held_by(value, look)
    return seen is value or (type(seen) is type(value) and seen == value)
