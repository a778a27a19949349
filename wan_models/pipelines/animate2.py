"""Animate-2-14B: a character moves like a raw video, clip after clip. Sources: the pipelines of diffusers
(modular_pipelines/wan_animate_2), DiffSynth-Studio (pipelines/wan_video.py) and LightX2V (wan_animate2_runner.py)."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from ..dit.animate2 import Animate2Inputs
from ..dit.kept_keys import Place
from ..families import DISTILLED_MODELS
from ..images.conditioning import reference_mask_channels, replaced_frames
from ..progress import OnProgress
from ..sampling.clips import REFERENCE_FRAMES, AnimateSegment, animate_clip_count, animate_clips, ping_pong
from ..sampling.denoise import denoise
from .base import Models, Picture, Pipeline, Settings, clip_progress, frame_of, grid_of
from .raw_video import RawVideo

DRIVING_PROMPT = "人物动作的参考视频"
"""The official prompt for a driving video: a reference video of a person's movements."""
CARRIED = 1
"""Last frames of a clip that the next one begins with."""


class Animate2(Pipeline):
    """Prompt, a picture of the character and a driving video -> video as long as that; 24 frames per second."""

    family = "animate2"

    def __init__(self, models: Models, device: torch.device | str = "cpu") -> None:
        super().__init__(models, device)
        driven = models.dit.config.driven
        if driven is not None and driven.bias:
            few = DISTILLED_MODELS["Animate-2-14B distilled"]
            self.settings = Settings.of_release(replace(few, solver=self.release.solver))

    def __call__(
        self,
        prompt: str,
        image: Picture,
        driving_video: Tensor,
        settings: Settings | None = None,
        *,
        driving_prompt: str = DRIVING_PROMPT,
        keep: Place = "auto",
        on_progress: OnProgress | None = None,
    ) -> Tensor:
        """The frames [T, H, W, 3] of a video in 0..1, as long as the driving one. Its size is about the area of the
        settings in the image's aspect.

        driving_video: [T, H, W, 3] in 0..1. keep: where its keys and values are kept during a clip. on_progress(done,
        total) counts the steps of all clips. Raises ValueError where inputs do not belong together."""
        settings = settings or self.settings
        raw = _raw_video(image, driving_video, settings)
        made = self.clips(
            prompt,
            image,
            driving_video,
            settings,
            driving_prompt=driving_prompt,
            keep=keep,
            on_progress=on_progress,
        )
        return raw.cropped(torch.cat(list(made))[: raw.frames])

    @torch.no_grad()
    def clips(
        self,
        prompt: str,
        image: Picture,
        driving_video: Tensor,
        settings: Settings,
        *,
        driving_prompt: str = DRIVING_PROMPT,
        keep: Place = "auto",
        on_progress: OnProgress | None = None,
    ) -> Iterator[Tensor]:
        """The new frames of each clip, uncropped, which together may be more than the video's."""
        raw = _raw_video(image, driving_video, settings)
        raw.check()
        per_clip, size, dit = settings.frames, raw.size, self.models.dit
        count = animate_clip_count(raw.frames, per_clip, CARRIED)
        picture = raw.picture()
        positive, negative = self.encode_prompts(prompt, settings)
        driving_text = self.models.text_encoder(driving_prompt)
        features = self.encode_image(picture)
        reference = self.encode(picture)
        generator = self.generator(settings.seed)

        def make(segment: AnimateSegment) -> Tensor:
            frames = raw.driving(ping_pong(segment.start, per_clip, raw.frames))
            video, known = replaced_frames(per_clip, size, segment.carried, None, None)
            encoded = torch.cat([reference, self.encode(video)], dim=2)
            y = torch.cat(
                [reference_mask_channels(known, *encoded.shape[-2:])[None].to(encoded), encoded], dim=1
            )
            driving = Animate2Inputs(
                self.encode(frames), driving_text, self.encode_image(frames[:1]), keep=keep
            )
            self.place(dit)
            noise = self.noise(generator, *size, per_clip + REFERENCE_FRAMES)
            clip = dit.prepare(driving, grid_of(noise))
            assert clip is not None
            prompts = (
                {"context": positive, "image": features, "conditions": clip},
                {
                    "context": negative,
                    "image": features,
                    "conditions": clip.with_unconditional(torch.tensor([True])),
                },
            )
            progress = clip_progress(on_progress, segment.index, count)
            with self.experts() as experts:
                return denoise(experts, noise, *prompts, settings, y=y, on_progress=progress)

        yield from animate_clips(
            make, self.decode, picture, frames_per_clip=per_clip, carried=CARRIED, clips=count
        )


def _raw_video(image: Picture, driving_video: Tensor, settings: Settings) -> RawVideo:
    return RawVideo(
        reference_image=frame_of(image), driving_video=driving_video, area=settings.width * settings.height
    )
