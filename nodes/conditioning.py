"""Images as beginning, end and keyframes of a video."""

from typing import Any

from comfy_api.latest import io, ui

from ..comfy_bridge.media import conditioning
from .schema import (
    NEGATIVE,
    POSITIVE,
    WanNode,
    advanced,
    conditioned_outputs,
    fit_input,
    schema,
    size_inputs,
    take,
)


def _shape(width: int, height: int, frames: int, multiple: int) -> list:
    return [
        *size_inputs(width, height, multiple),
        io.Int.Input("frames", default=frames, min=1, max=4097, step=4, tooltip="4n + 1 frames."),
        fit_input(
            "keep aspect: at most width x height pixels in the image's own aspect, as the official code does. "
            f"exact: this very width and height (multiples of {multiple}); the image is cropped at its centre.",
        ),
        io.Int.Input(
            "batch_size", default=1, min=1, max=64, optional=True, tooltip="How many videos at once."
        ),
    ]


def _keyframes() -> list:
    """Pictures inside of the video."""
    return [
        io.Image.Input(
            "keyframes",
            optional=True,
            tooltip="Pictures inside of the video, as one batch; their places are in positions. They work without a "
            "start image too.",
        ),
        io.String.Input(
            "positions",
            default="",
            optional=True,
            tooltip="A place for each keyframe, with commas between: frames from 0 on (40, 80), seconds (2.5s), "
            "percent (50%), -1 for the last frame. A keyframe stands at the last of its latent's frames: 4, 8, 12 ...",
        ),
        *advanced(
            *(
                io.Float.Input(
                    f"strength_{which}",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    tooltip=f"How much the {which}-noise expert is held to keyframes: 1 shows them, less leaves it "
                    "freer, 0 leaves them out.",
                )
                for which in ("high", "low")
            )
        ),
    ]


class WanI2VCondition(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanI2VCondition",
            "Wan Image to Video",
            ["i2v", "start image", "end image", "first last frame", "flf2v", "keyframes"],
            folder="conditioning",
            reports=True,
            description="A video that begins with an image, and ends with one, or shows others on the way, if you "
            "like. For the I2V models.",
            inputs=[
                io.Conditioning.Input("positive", tooltip=POSITIVE),
                io.Conditioning.Input("negative", tooltip=NEGATIVE),
                io.Vae.Input("vae", tooltip="The 2.1 VAE."),
                io.Image.Input(
                    "start_image", optional=True, tooltip="The first frame; several images: the first ones."
                ),
                io.Image.Input(
                    "end_image", optional=True, tooltip="The last frame; several images: the last ones."
                ),
                io.ClipVisionOutput.Input(
                    "clip_vision_output",
                    optional=True,
                    tooltip="Of the start image; only Wan2.1 I2V models use it.",
                ),
                *_shape(832, 480, 81, 16),
                *_keyframes(),
                *advanced(
                    io.Float.Input(
                        "motion_amplitude",
                        default=1.0,
                        min=0.0,
                        max=10.0,
                        step=0.05,
                        optional=True,
                        tooltip="More than 1 against slow motion of distilled models, 1.15 to 1.5 at first: what the "
                        "model is told of the frames to make differs more from the first one. 1: off.",
                    )
                ),
            ],
            outputs=[
                *conditioned_outputs(),
                io.Conditioning.Output(
                    display_name="positive_low",
                    tooltip="The positive of the low-noise expert: another one where the strengths differ.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        positive: io.Conditioning.Type,
        negative: io.Conditioning.Type,
        vae: io.Vae.Type,
        start_image: io.Image.Type | None = None,
        end_image: io.Image.Type | None = None,
        clip_vision_output: io.ClipVisionOutput.Type | None = None,
        motion_amplitude: float = 1.0,
        **inputs: Any,
    ) -> io.NodeOutput:
        keyframes, shape = take(conditioning.Keyframes, inputs)
        prompts, latent, positive_low, report = conditioning.image_to_video(
            conditioning.Prompts(positive, negative),
            vae,
            conditioning.VideoShape(**shape),
            start=start_image,
            end=end_image,
            keyframes=keyframes,
            clip_vision=clip_vision_output,
            motion_amplitude=motion_amplitude,
        )
        shown = ui.PreviewText(report) if report else None
        return io.NodeOutput(*prompts, latent, positive_low, ui=shown)


class WanTI2VLatent(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanTI2VLatent",
            "Wan TI2V Latent",
            ["ti2v", "5b", "start image", "empty latent video"],
            folder="latent",
            description="The video to make with TI2V-5B: from text alone, or beginning with an image.",
            inputs=[
                io.Vae.Input("vae", tooltip="The 2.2 VAE."),
                io.Image.Input(
                    "start_image", optional=True, tooltip="The first frame. Leave open for text to video."
                ),
                *_shape(1280, 704, 121, 32),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(
        cls, vae: io.Vae.Type, start_image: io.Image.Type | None = None, **shape: Any
    ) -> io.NodeOutput:
        return io.NodeOutput(
            conditioning.first_frame_latent(vae, conditioning.VideoShape(**shape), start_image)
        )
