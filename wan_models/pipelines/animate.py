"""Animate-14B: a character moves like the person in a video, or takes their place, clip after clip. Source:
wan/animate.py of the official code."""

from collections.abc import Iterator

import torch
from einops import rearrange
from torch import Tensor

from ..dit.animate import AnimateInputs
from ..images.conditioning import reference_mask_channels, replaced_frames
from ..images.resize import letterbox, resize_area
from ..progress import OnProgress
from ..sampling.clips import REFERENCE_FRAMES, AnimateSegment, animate_clip_count, animate_clips, ping_pong
from ..sampling.denoise import denoise
from .base import Picture, Pipeline, Settings, clip_progress, frame_of, grid_of
from .driving import DrivingVideos


class Animate(Pipeline):
    """Prompt, a picture of the character and driving videos -> video as long as these; 30 frames per second."""

    family = "animate"

    def __call__(
        self,
        prompt: str,
        image: Picture,
        driving: DrivingVideos,
        settings: Settings | None = None,
        *,
        carried: int = 1,
        face_strength: float = 1.0,
        on_progress: OnProgress | None = None,
    ) -> Tensor:
        """The frames [T, H, W, 3] of a video in 0..1, of the size and the length of the driving videos.

        carried: last frames of a clip that the next one begins with, 1 or 5. face_strength: 1 is official, 0 leaves the
        face out. on_progress(done, total) counts the steps of all clips. Raises ValueError where inputs do not belong
        together."""
        made = self.clips(
            prompt,
            image,
            driving,
            settings or self.settings,
            carried=carried,
            face_strength=face_strength,
            on_progress=on_progress,
        )
        return torch.cat(list(made))[: driving.frames]

    @torch.no_grad()
    def clips(
        self,
        prompt: str,
        image: Picture,
        driving: DrivingVideos,
        settings: Settings,
        *,
        carried: int = 1,
        face_strength: float = 1.0,
        on_progress: OnProgress | None = None,
    ) -> Iterator[Tensor]:
        """The new frames of each clip, which together may be more than the video's."""
        driving.check()
        per_clip, size, dit = settings.frames, driving.size, self.models.dit
        count = animate_clip_count(driving.frames, per_clip, carried)
        picture = letterbox(frame_of(image), *size)
        prompts = self.encode_prompts(prompt, settings)
        features = self.encode_image(picture)
        reference = self.encode(picture)
        generator = self.generator(settings.seed)
        assert dit.config.face is not None
        face_size = dit.config.face.size

        def make(segment: AnimateSegment) -> Tensor:
            frames = driving.driving(ping_pong(segment.start, per_clip, driving.frames), face_size)
            before = None if segment.carried is None else resize_area(segment.carried, *size)
            video, known = replaced_frames(per_clip, size, before, frames.background, frames.mask)
            encoded = torch.cat([reference, self.encode(video)], dim=2)
            mask = reference_mask_channels(known, *encoded.shape[-2:])[None].to(encoded)
            y = torch.cat([mask, encoded], dim=1)
            pose = self.encode(frames.pose)
            face = rearrange(frames.face, "t h w c -> 1 c t h w").to(self.device) * 2 - 1
            self.place(dit)
            noise = self.noise(generator, *size, per_clip + REFERENCE_FRAMES)
            positive, negative = (
                {
                    "context": context,
                    "image": features,
                    "conditions": dit.prepare(AnimateInputs(pose, faces, face_strength), grid_of(noise)),
                }
                # the neutral face of the negative prompt is black
                for context, faces in zip(prompts, (face, torch.full_like(face, -1)), strict=True)
            )
            progress = clip_progress(on_progress, segment.index, count)
            with self.experts() as experts:
                return denoise(experts, noise, positive, negative, settings, y=y, on_progress=progress)

        yield from animate_clips(
            make, self.decode, picture, frames_per_clip=per_clip, carried=carried, clips=count
        )
