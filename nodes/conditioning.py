"""Images as the beginning, or beginning and end, of a video."""

from typing import Any

from comfy_api.latest import io

from ..comfy_bridge.media import conditioning
from .schema import NEGATIVE, POSITIVE, conditioned_outputs, schema, size_inputs


def _shape(width: int, height: int, frames: int, multiple: int) -> list:
    return [
        *size_inputs(width, height, multiple),
        io.Int.Input("frames", default=frames, min=1, max=4097, step=4, tooltip="4n + 1 frames."),
        io.Combo.Input(
            "fit",
            options=conditioning.FIT,
            default=conditioning.FIT[0],
            optional=True,
            tooltip="keep aspect: about width x height pixels in the image's own aspect, as the official code does. "
            f"exact: this very width and height (multiples of {multiple}); the image is cropped at its centre.",
        ),
        io.Int.Input(
            "batch_size", default=1, min=1, max=64, optional=True, tooltip="How many videos at once."
        ),
    ]


class WanI2VCondition(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanI2VCondition",
            "Wan Image to Video",
            ["i2v", "start image", "end image", "first last frame", "flf2v"],
            folder="conditioning",
            description="A video that begins with an image, and ends with one if you like. For the I2V models.",
            inputs=[
                io.Conditioning.Input("positive", tooltip=POSITIVE),
                io.Conditioning.Input("negative", tooltip=NEGATIVE),
                io.Vae.Input("vae", tooltip="The 2.1 VAE."),
                io.Image.Input(
                    "start_image", optional=True, tooltip="The first frame; several images: the first ones."
                ),
                io.Image.Input("end_image", optional=True, tooltip="The last frame. Needs a start image."),
                io.ClipVisionOutput.Input(
                    "clip_vision_output",
                    optional=True,
                    tooltip="Of the start image; only Wan2.1 I2V models use it.",
                ),
                *_shape(832, 480, 81, 16),
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
        start_image: io.Image.Type | None = None,
        end_image: io.Image.Type | None = None,
        clip_vision_output: io.ClipVisionOutput.Type | None = None,
        **shape: Any,
    ) -> io.NodeOutput:
        prompts, latent = conditioning.image_to_video(
            conditioning.Prompts(positive, negative),
            vae,
            conditioning.VideoShape(**shape),
            start=start_image,
            end=end_image,
            clip_vision=clip_vision_output,
        )
        return io.NodeOutput(*prompts, latent)


class WanTI2VLatent(io.ComfyNode):
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
