"""S2V-14B: a talking video from a picture and a voice, clip after clip. Source: wan/speech2video.py of the official
code."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..audio.buckets import per_frame_of
from ..audio.wav2vec import mono
from ..dit.speech import SpeechInputs
from ..images.pixels import rgb
from ..images.resize import shortest_side_crop
from ..images.sizes import size_for_s2v
from ..progress import OnProgress
from ..sampling.clips import SpeechSegment, pose_clip, speech_clip_count, speech_clips
from ..sampling.denoise import denoise
from .base import Picture, Pipeline, Settings, clip_progress, frame_of, grid_of


@dataclass(frozen=True)
class Speech:
    """Speech and poses of a talking video. features: hidden states of wav2vec2 [layers, T, C]. frames: of the video.
    pose: drawn poses [T, H, W, 3] in 0..1, one for each frame of the video or for its beginning, or None."""

    features: Tensor
    frames: int
    pose: Tensor | None = None


class SpeechToVideo(Pipeline):
    """Prompt, picture and voice -> video as long as the voice; 16 frames per second."""

    family = "s2v"

    def __call__(
        self,
        prompt: str,
        image: Picture,
        sound: Tensor,
        rate: int,
        settings: Settings | None = None,
        *,
        pose: Tensor | None = None,
        from_image: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Tensor:
        """The frames [T, H, W, 3] of a video, in 0..1, of about the area of the settings in the picture's aspect.

        sound: [channels, N] at `rate` samples per second. pose: as in `Speech`. from_image: whether the video begins
        with the image itself. on_progress(done, total) counts the steps of all clips. Raises ValueError where no such
        video can be made."""
        frames = max(1, round(sound.shape[-1] / rate * self.release.fps))
        speech = Speech(self.encode_sound(sound, rate), frames, pose)
        made = self.clips(
            prompt, image, speech, settings or self.settings, from_image=from_image, on_progress=on_progress
        )
        return torch.cat(list(made))[:frames]

    @torch.no_grad()
    def encode_sound(self, sound: Tensor, rate: int) -> Tensor:
        """Sound [channels, N] of any rate -> hidden states of wav2vec2 [layers, T, C]."""
        encoder = self.models.audio_encoder
        assert encoder is not None
        self.place(encoder.network)
        return torch.cat(encoder.encode(mono(sound, rate).to(self.device)))

    @torch.no_grad()
    def clips(
        self,
        prompt: str,
        image: Picture,
        speech: Speech,
        settings: Settings,
        *,
        from_image: bool = False,
        done: list[Tensor] | None = None,
        on_progress: OnProgress | None = None,
    ) -> Iterator[Tensor]:
        """The frames of each clip, which together may be more than the video's; done: clips that were made before."""
        per_clip, dit = settings.frames, self.models.dit
        count = speech_clip_count(speech.frames, per_clip, from_image)
        start = frame_of(image)
        size = size_for_s2v(start.shape[2], start.shape[1], settings.width * settings.height)
        picture = shortest_side_crop(start, *size)
        poses = None if speech.pose is None else rgb(speech.pose)
        audio = per_frame_of(speech.features, count * per_clip, per_clip, self.release.fps)
        prompts = self.encode_prompts(prompt, settings)
        reference = self.encode(picture)

        def make(segment: SpeechSegment) -> Tensor:
            first, last = segment.start, segment.start + per_clip
            pose = None if poses is None else self.encode(pose_clip(poses, first, per_clip, size))[:, :, 1:]
            self.place(dit)
            noise = self.noise(self.generator(settings.seed + segment.index), *size, per_clip - 3)
            positive, negative = (
                {"context": context, "conditions": dit.prepare(inputs, grid_of(noise))}
                for context, inputs in zip(
                    prompts,
                    # the negative prompt goes with silence
                    (
                        SpeechInputs(reference, segment.motion, pose, audio[..., first:last] * on)
                        for on in (1, 0)
                    ),
                    strict=True,
                )
            )
            progress = clip_progress(on_progress, segment.index, count)
            with self.experts() as experts:
                return denoise(experts, noise, positive, negative, settings, on_progress=progress)

        yield from speech_clips(
            make,
            self.encode,
            self.decode,
            picture,
            frames_per_clip=per_clip,
            clips=count,
            from_reference=from_image,
            done=done,
        )
