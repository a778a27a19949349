"""Speech to video: one clip's conditioning, and the whole video."""

from typing import Any

from comfy_api.latest import io, ui

from ..comfy_bridge import compat
from ..comfy_bridge.media.conditioning import Prompts
from ..comfy_bridge.sampling import speech
from ..comfy_bridge.sampling.settings import Settings
from .schema import (
    NEGATIVE,
    POSITIVE,
    WanNode,
    conditioned_outputs,
    fit_input,
    frame_offset_input,
    schema,
    size_inputs,
)
from .settings import clip_preset_input, clip_setting_inputs, seed_input, take_clip_sampling

_OFFICIAL = Settings.of_release(speech.RELEASE)


def _fit() -> io.Combo.Input:
    return fit_input(
        "keep aspect: at most width x height pixels in the image's own aspect, never enlarged, as the official "
        "code does. exact: this very width and height; the image is cropped at its centre.",
    )


class WanS2VCondition(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanS2VCondition",
            "Wan Speech to Video Clip",
            ["s2v", "audio", "lip sync"],
            folder="conditioning",
            description="The conditioning of one clip of S2V-14B, for graphs of your own. The whole video in one node: "
            "Wan Speech to Video.",
            inputs=[
                io.Conditioning.Input("positive", tooltip=POSITIVE),
                io.Conditioning.Input("negative", tooltip=NEGATIVE),
                io.Vae.Input("vae", tooltip="The 2.1 VAE."),
                io.AudioEncoderOutput.Input("audio_encoder_output", tooltip="Of the whole audio."),
                io.Image.Input("reference_image", tooltip="Who speaks."),
                io.Image.Input(
                    "pose_video", optional=True, tooltip="Poses of the whole video, at 16 frames per second."
                ),
                io.Image.Input(
                    "motion_frames",
                    optional=True,
                    tooltip="The video so far (its last 73 frames count); open for clip 1.",
                ),
                *size_inputs(),
                io.Int.Input("frames", default=80, min=4, max=4096, step=4, tooltip="A multiple of 4."),
                frame_offset_input("The first frame of this clip in the audio."),
                _fit(),
            ],
            outputs=[
                *conditioned_outputs(),
            ],
        )

    @classmethod
    def execute(
        cls,
        positive: io.Conditioning.Type,
        negative: io.Conditioning.Type,
        vae: io.Vae.Type,
        audio_encoder_output: io.AudioEncoderOutput.Type,
        **inputs: Any,
    ) -> io.NodeOutput:
        prompts, latent = speech.one_clip(
            Prompts(positive, negative), vae, audio_encoder_output, speech.SpeechClipInputs(**inputs)
        )
        return io.NodeOutput(*prompts, latent)


class WanSpeechToVideo(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanSpeechToVideo",
            "Wan Speech to Video",
            ["s2v", "talking head", "lip sync", "audio"],
            folder="sampling",
            reports=True,
            description="A picture and a voice -> a whole talking video, clip after clip, as long as the audio.",
            inputs=[
                io.Model.Input("model", tooltip="S2V-14B."),
                io.Conditioning.Input("positive", tooltip=POSITIVE),
                io.Conditioning.Input("negative", tooltip=NEGATIVE),
                io.Vae.Input("vae", tooltip="The 2.1 VAE."),
                io.AudioEncoder.Input("audio_encoder", tooltip="From WanAudioEncoderLoader."),
                io.Audio.Input("audio", tooltip="The speech; any rate and channels."),
                io.Image.Input("reference_image", tooltip="Who speaks."),
                io.Image.Input(
                    "pose_video", optional=True, tooltip="Poses (DWPose) to follow; black where it ends."
                ),
                *size_inputs(),
                io.Int.Input(
                    "frames_per_clip",
                    default=80,
                    min=4,
                    max=4096,
                    step=4,
                    tooltip="A multiple of 4; 80 is official.",
                ),
                io.Int.Input("clips", default=0, min=0, max=10_000, tooltip="0: as many as the audio needs."),
                clip_preset_input(speech.RELEASE),
                seed_input("Clip n uses seed + n."),
                io.Boolean.Input(
                    "start_from_reference",
                    default=False,
                    optional=True,
                    tooltip="The video begins with the reference image itself, as in image to video.",
                ),
                io.Float.Input(
                    "pose_fps",
                    default=16.0,
                    min=1.0,
                    max=240.0,
                    step=0.01,
                    optional=True,
                    tooltip="Frames per second of pose_video. Every round(pose_fps / 16)-th is taken, which is exact "
                    "for 16, 32 and 48: load a video of another rate with WanLoadVideo at fps 16.",
                ),
                _fit(),
                *clip_setting_inputs(_OFFICIAL),
            ],
            outputs=[io.Image.Output(), io.Audio.Output()],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        positive: io.Conditioning.Type,
        negative: io.Conditioning.Type,
        vae: io.Vae.Type,
        audio_encoder: io.AudioEncoder.Type,
        **inputs: Any,
    ) -> io.NodeOutput:
        sampling, inputs = take_clip_sampling(inputs, _OFFICIAL)
        video, sound, report = speech.speech_video(
            speech.SpeechModels(model, vae, audio_encoder),
            Prompts(positive, negative),
            speech.SpeechVideoInputs(**inputs),
            sampling,
            on_progress=compat.progress_text(getattr(cls.hidden, "unique_id", None)),
        )
        return io.NodeOutput(video, sound, ui=ui.PreviewText(report))
