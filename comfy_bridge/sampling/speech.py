"""Speech to video: the conditioning of one clip in the host's own keys, and the whole video, clip after clip."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...wan_models.audio.buckets import per_frame_of
from ...wan_models.config import MOTION_FRAMES
from ...wan_models.dit.speech import LEAST_LATENT_SIDE
from ...wan_models.families import RELEASES
from ...wan_models.images.pixels import rgb
from ...wan_models.images.resize import shortest_side_crop
from ...wan_models.images.sizes import check_video_size, size_for_s2v
from ...wan_models.sampling.clips import SpeechSegment, pose_clip, speech_clip_count, speech_clips
from ..host_types import Audio, AudioEncoder, Latent, Model, Vae
from ..media import latents
from ..media.audio import check_sound, encodable
from ..media.conditioning import FIT, Prompts
from ..models import identity
from ..progress import without_progress
from . import preflight
from .clip_run import ClipPlan, ClipRun, ClipSampling

RELEASE = "S2V-14B"
FPS = RELEASES[RELEASE].fps
_LEAST_SIDE = (
    8 * LEAST_LATENT_SIDE
)  # what a clip sees of the one before is taken together in patches of that size


@dataclass(frozen=True)
class SpeechModels:
    """The models that make a talking video."""

    model: Model
    vae: Vae
    audio_encoder: AudioEncoder

    def check(self) -> None:
        """Raises ValueError where one is missing, or made for something else."""
        preflight.check_family(self.model, "s2v")
        if self.audio_encoder is None:
            raise ValueError(
                "no audio encoder is connected: load wav2vec2-large-xlsr-53-english with WanAudioEncoderLoader"
            )
        preflight.check_vae_of(RELEASE, self.vae)


@dataclass(frozen=True, kw_only=True)
class SpeechVideoInputs:
    """Inputs of a whole talking video: who speaks (IMAGE), the speech, and poses to follow at `pose_fps` frames per
    second.

    width, height, fit: see `video_size`. clips: 0 for as many as the audio needs. start_from_reference: the video
    begins with the reference image itself."""

    reference_image: Tensor
    audio: Audio
    width: int
    height: int
    frames_per_clip: int
    clips: int
    pose_video: Tensor | None = None
    start_from_reference: bool = False
    pose_fps: float = float(FPS)
    fit: str = FIT[0]

    def plan(self, seconds: float) -> ClipPlan:
        """The clips of a video for so much audio. ValueError where they cannot be made."""
        frames = max(1, round(seconds * FPS))
        needed = speech_clip_count(frames, self.frames_per_clip, self.start_from_reference)
        clips = min(self.clips, needed) if self.clips else needed
        width, height = size = video_size(self.reference_image, self.width, self.height, self.fit)
        if clips > 1 and min(size) < _LEAST_SIDE:
            raise ValueError(
                f"{width}x{height} is too small for more than one clip of S2V-14B: width and height need "
                f"{_LEAST_SIDE} or more"
            )
        return ClipPlan(min(frames, clips * self.frames_per_clip), self.frames_per_clip, clips, *size)

    def poses(self, frames: int) -> Tensor | None:
        """The first `frames` of the pose video, thinned out to FPS."""
        if self.pose_video is None:
            return None
        return self.pose_video[:: max(1, round(self.pose_fps / FPS))][:frames]


@dataclass(frozen=True, kw_only=True)
class SpeechClipInputs:
    """Inputs of one clip: `frames` frames from `frame_offset` on, in the audio and in the pose video (at FPS).

    motion_frames: IMAGE of the frames before it, None for the first clip. width, height, fit: see `video_size`."""

    reference_image: Tensor
    width: int
    height: int
    frames: int
    frame_offset: int
    pose_video: Tensor | None = None
    motion_frames: Tensor | None = None
    fit: str = FIT[0]


class SpeechConditioner:
    """Conditioning of the clips of one video, whose reference and audio are encoded once.

    picture [1, H, W, 3] has the video's size. encoded: AUDIO_ENCODER_OUTPUT. poses: IMAGE of any size, a frame for each
    of the video's `frames`, or less, or None."""

    def __init__(
        self,
        vae: Vae,
        picture: Tensor,
        *,
        encoded: dict[str, Any],
        poses: Tensor | None,
        frames: int,
        frames_per_clip: int,
    ) -> None:
        self._vae, self._frames_per_clip = vae, frames_per_clip
        self._size = (picture.shape[2], picture.shape[1])
        self._audio = audio_steps(encoded, frames_per_clip, frames)
        self._poses = poses
        self._reference = vae.encode(picture)

    def clip(self, prompts: Prompts, start: int, motion: Tensor | None) -> tuple[Prompts, Latent]:
        """Conditioning and empty LATENT of the clip from frame `start` on; motion: latents of the frames before it."""
        frames = self._frames_per_clip
        shared: dict[str, Any] = {"reference_latents": [self._reference]}
        if self._poses is not None:
            pose = pose_clip(rgb(self._poses), start, frames, self._size)
            shared["control_video"] = self._vae.encode(pose)[:, :, 1:]
        if motion is not None:
            shared["reference_motion"] = motion
        audio = self._audio[..., start : start + frames]
        # the negative prompt goes with silence, as in the official code
        prompts = prompts.with_values(shared | {"audio_embed": audio}, shared | {"audio_embed": audio * 0.0})
        return prompts, latents.empty(*self._size, frames - 3, 1, self._vae)


def audio_steps(encoded: dict[str, Any], frames_per_clip: int, frames: int) -> Tensor:
    """AUDIO_ENCODER_OUTPUT -> [1, layers, C, N], one step per frame, at least `frames` of them; silence at the end.

    Raises ValueError where it holds no encoded audio."""
    if not encoded or "encoded_audio_all_layers" not in encoded:
        raise ValueError("no encoded audio is connected: load an audio encoder, and encode the audio with it")
    features = torch.cat(list(encoded["encoded_audio_all_layers"]))
    return per_frame_of(features, frames, frames_per_clip, FPS)


def video_size(reference: Tensor, width: int, height: int, fit: str) -> tuple[int, int]:
    """Width and height of the video: by the official rule in the area of width x height, or exactly these."""
    if fit == "exact":
        check_video_size(width, height, 1, 16)
        return width, height
    rows, columns = rgb(reference).shape[1:3]
    return size_for_s2v(columns, rows, width * height)


def _picture(reference: Tensor, size: tuple[int, int]) -> Tensor:
    """The first of IMAGE at the video's size, [1, H, W, 3]."""
    return shortest_side_crop(rgb(reference)[:1], *size)


def one_clip(
    prompts: Prompts, vae: Vae, encoded: dict[str, Any], inputs: SpeechClipInputs
) -> tuple[Prompts, Latent]:
    """Conditioning and empty LATENT of one clip; encoded: AUDIO_ENCODER_OUTPUT of the whole audio.

    Raises ValueError where a clip's length or size cannot be made."""
    preflight.check_vae_of(RELEASE, vae)
    speech_clip_count(inputs.frames, inputs.frames, True)
    size = video_size(inputs.reference_image, inputs.width, inputs.height, inputs.fit)
    conditioner = SpeechConditioner(
        vae,
        _picture(inputs.reference_image, size),
        encoded=encoded,
        poses=inputs.pose_video,
        frames=inputs.frame_offset + inputs.frames,
        frames_per_clip=inputs.frames,
    )
    motion = None
    if inputs.motion_frames is not None:
        past = shortest_side_crop(rgb(inputs.motion_frames)[-MOTION_FRAMES:], *size)
        grey = past.new_full((MOTION_FRAMES - past.shape[0], *past.shape[1:]), 0.5)
        motion = vae.encode(torch.cat([grey, past]))
    return conditioner.clip(prompts, inputs.frame_offset, motion)


def speech_video(
    models: SpeechModels,
    prompts: Prompts,
    inputs: SpeechVideoInputs,
    sampling: ClipSampling,
    on_progress: Callable[[str], None],
) -> tuple[Tensor, Audio, str]:
    """The whole video of an audio: IMAGE, the AUDIO cut to it, and one line on what was done.

    on_progress as in `ClipRun`. Raises ValueError where inputs do not fit, before anything is sampled."""
    models.check()
    waveform, rate = check_sound(inputs.audio)
    plan = inputs.plan(waveform.shape[-1] / rate)
    picture = _picture(inputs.reference_image, plan.size)

    def parts() -> identity.Parts:
        return _identity(models, inputs, picture, (waveform, rate))

    run = ClipRun(models.model, prompts, plan, sampling, parts, on_progress)
    encoded = models.audio_encoder.encode_audio(waveform, rate)
    frames = plan.clips * plan.frames_per_clip
    with without_progress():
        conditioner = SpeechConditioner(
            models.vae,
            picture,
            encoded=encoded,
            poses=inputs.poses(frames),
            frames=frames,
            frames_per_clip=plan.frames_per_clip,
        )

    def denoise(segment: SpeechSegment) -> Tensor:
        run.begin(segment.index)
        noise = replace(sampling.noise, seed=sampling.noise.seed + segment.index)
        clip = conditioner.clip(run.prompts(segment.index), segment.start, segment.motion)
        return run.sample(segment.index, *clip, noise)

    made = speech_clips(
        denoise,
        models.vae.encode,
        lambda z: models.vae.decode(z)[0],
        picture,
        frames_per_clip=plan.frames_per_clip,
        clips=plan.clips,
        from_reference=inputs.start_from_reference,
        done=run.done,
    )
    video = run.collect(made)
    seconds = video.shape[0] / FPS
    report = f"{replace(plan, frames=len(video)).summary}, {seconds:.2f} s"
    return video, encodable(waveform, rate, seconds), run.report(report)


def _identity(
    models: SpeechModels, inputs: SpeechVideoInputs, picture: Tensor, sound: tuple[Tensor, int]
) -> identity.Parts:
    values = {
        "audio": sound,
        "reference_image, width, height or fit": picture,
        "pose_video": inputs.pose_video,
        "pose_fps": None if inputs.pose_video is None else inputs.pose_fps,
        "start_from_reference": inputs.start_from_reference,
    }
    encoder = {"audio_encoder": identity.of_loaded(models.audio_encoder, "the audio encoder")}
    return identity.of_values(values) | identity.of_vae(models.vae) | encoder
