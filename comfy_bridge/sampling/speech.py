"""Speech to video: the conditioning of one clip in the host's own keys, and the whole video, clip after clip."""

from collections.abc import Callable
from functools import cache
from typing import Any

import node_helpers
import torch
from torch import Tensor

from ...wan_models.audio.buckets import per_frame
from ...wan_models.config import MOTION_FRAMES
from ...wan_models.families import RELEASES
from ...wan_models.images.pixels import rgb
from ...wan_models.images.resize import shortest_side_crop, shortest_side_crop_float
from ...wan_models.images.sizes import size_for_s2v
from ...wan_models.sampling.clips import SpeechSegment, pose_clip, speech_clip_count, speech_clips
from ..media import conditioning, latents
from ..media.audio import check_sound, encodable
from ..models import identity
from ..progress import without_progress
from . import preflight, run
from .clip_run import ClipRun

FPS = RELEASES["S2V-14B"].fps


_VAE = "S2V-14B works with the 2.1 VAE"


def _check(vae: Any, encoded: Any) -> None:
    conditioning.check_vae(vae, 16, _VAE)
    if not encoded or "encoded_audio_all_layers" not in encoded:
        raise ValueError("no encoded audio is connected: load an audio encoder, and encode the audio with it")


def audio_steps(encoded: dict, frames_per_clip: int, frames: int) -> Tensor:
    """AUDIO_ENCODER_OUTPUT -> [1, layers, C, N], one step per frame, at least `frames` of them; silence at the end."""
    steps = per_frame(torch.cat(list(encoded["encoded_audio_all_layers"])).float(), frames_per_clip, FPS)[
        None
    ]
    return torch.nn.functional.pad(steps, (0, max(0, frames - steps.shape[-1])))


def video_size(reference: Tensor, width: int, height: int, fit: str) -> tuple[int, int]:
    """Width and height of the video: by the official rule in the area of width x height, or exactly these."""
    if fit == "exact":
        latents.check_size(width, height, 1, 16)
        return width, height
    return size_for_s2v(reference.shape[2], reference.shape[1], width * height)


def clip_condition(
    conditioning: Any,
    reference: Tensor | None,
    audio: Tensor | None,
    pose: Tensor | None,
    motion: Tensor | None,
) -> Any:
    """CONDITIONING with the host's keys of one clip. Latents are raw; audio [1, layers, C, frames]."""
    values = {"audio_embed": audio, "control_video": pose, "reference_motion": motion}
    values = {name: value for name, value in values.items() if value is not None}
    if reference is not None:
        values["reference_latents"] = [reference]
    return node_helpers.conditioning_set_values(conditioning, values)


def _pair(positive: Any, negative: Any, audio: Tensor, *given: Tensor | None) -> tuple[Any, Any]:
    """The negative prompt goes with silence, as in the official code."""
    reference, pose, motion = given
    return (
        clip_condition(positive, reference, audio, pose, motion),
        clip_condition(negative, reference, audio * 0.0, pose, motion),
    )


def one_clip(
    positive: Any,
    negative: Any,
    vae: Any,
    encoded: dict,
    reference: Tensor,
    width: int,
    height: int,
    frames: int,
    fit: str,
    start: int = 0,
    pose: Tensor | None = None,
    motion: Tensor | None = None,
) -> tuple[Any, Any, dict]:
    """Conditioning (positive, negative) and empty LATENT of the clip of `frames` frames from frame `start` on.

    motion: the frames before the clip, IMAGE; None for a video's first clip. Raises ValueError where a clip's
    length or size cannot be made."""
    _check(vae, encoded)
    speech_clip_count(frames, frames, True)
    reference = rgb(reference)[:1]
    size = video_size(reference, width, height, fit)
    steps = audio_steps(encoded, frames, start + frames)[..., start : start + frames]
    pose_latents = motion_latents = None
    if pose is not None:
        pose_latents = vae.encode(pose_clip(shortest_side_crop_float(rgb(pose), *size), start, frames))[
            :, :, 1:
        ]
    if motion is not None:
        past = shortest_side_crop(rgb(motion)[-MOTION_FRAMES:], *size)
        motion_latents = vae.encode(
            torch.cat([past.new_full((MOTION_FRAMES - past.shape[0], *past.shape[1:]), 0.5), past])
        )
    picture = vae.encode(shortest_side_crop(reference, *size))
    out = _pair(positive, negative, steps, picture, pose_latents, motion_latents)
    return *out, latents.empty(*size, frames - 3, 1, vae)


def speech_video(
    model: Any,
    positive: Any,
    negative: Any,
    vae: Any,
    audio_encoder: Any,
    audio: dict,
    reference: Tensor,
    pose_video: Tensor | None,
    pose_fps: float,
    width: int,
    height: int,
    fit: str,
    frames_per_clip: int,
    clips: int,
    from_reference: bool,
    settings: run.Settings,
    seed: int,
    noise_source: str,
    folder: str,
    tell: Callable[[str], None],
) -> tuple[Tensor, dict, str]:
    """The whole video of an audio: IMAGE, the AUDIO cut to it, and one line on what was done.

    clips: 0 for as many as the audio needs. folder: below the host's output folder, where finished clips are kept so
    that a run that ended early goes on; empty for none. tell(text) is called as clips begin.
    Raises ValueError where inputs do not fit, before anything is sampled."""
    preflight.check_family(model, "s2v")
    if audio_encoder is None:
        raise ValueError(
            "no audio encoder is connected: load wav2vec2-large-xlsr-53-english with WanAudioEncoderLoader"
        )
    conditioning.check_vae(vae, 16, _VAE)
    waveform, rate = check_sound(audio)
    wanted = max(1, round(waveform.shape[-1] / rate * FPS))
    needed = speech_clip_count(wanted, frames_per_clip, from_reference)
    clips = min(clips, needed) if clips else needed
    frames = min(wanted, clips * frames_per_clip)
    reference = rgb(reference)[:1]
    size = video_size(reference, width, height, fit)
    picture = shortest_side_crop(reference, *size)

    @cache
    def inputs() -> identity.Parts:
        given = {
            "audio": (waveform, rate),
            "reference_image, width, height or fit": picture,
            "pose_video": pose_video,
            "pose_fps": None if pose_video is None else pose_fps,
            "seed": seed,
            "noise_source": noise_source,
            "frames_per_clip": frames_per_clip,
            "start_from_reference": from_reference,
        }
        seen = {"audio_encoder": identity.of_loaded(audio_encoder, "the audio encoder")}
        return identity.of_inputs(given, vae, settings) | seen

    def described() -> identity.Parts:
        return inputs() | identity.of_prompts(positive, negative)

    whole = ClipRun(model, settings.steps, clips, frames, size, folder, described, tell)
    encoded = audio_encoder.encode_audio(waveform, rate)
    _check(vae, encoded)
    with without_progress():
        reference_latent = vae.encode(picture)
    steps = audio_steps(encoded, frames_per_clip, clips * frames_per_clip)
    pose = None
    if pose_video is not None:
        every = max(1, round(pose_fps / FPS))
        pose = shortest_side_crop_float(rgb(pose_video[::every][: clips * frames_per_clip]), *size)

    def denoise(clip: SpeechSegment) -> Tensor:
        whole.begin(clip.index)
        part = slice(clip.start, clip.start + frames_per_clip)
        pose_latents = (
            None if pose is None else vae.encode(pose_clip(pose, clip.start, frames_per_clip))[:, :, 1:]
        )
        conditions = _pair(positive, negative, steps[..., part], reference_latent, pose_latents, clip.motion)
        latent = latents.empty(*size, frames_per_clip - 3, 1, vae)
        out, _ = run.run(
            model,
            model,
            *conditions,
            latent,
            settings,
            seed + clip.index,
            noise_source,
            callback=whole.step,
        )
        return out["samples"]

    made = speech_clips(
        denoise,
        vae.encode,
        lambda z: vae.decode(z)[0],
        picture,
        frames_per_clip,
        clips,
        from_reference,
        whole.done,
    )
    video = whole.collect(made)
    sound = encodable(waveform, rate, video.shape[0] / FPS)
    report = f"{video.shape[0]} frames in {clips} clips of {frames_per_clip}, {video.shape[0] / FPS:.2f} s"
    return video, sound, whole.report(report)
