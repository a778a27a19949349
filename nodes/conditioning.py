"""Images as the beginning, or beginning and end, of a video."""

from comfy_api.latest import io

from ..comfy_bridge.media import conditioning
from .schema import NEGATIVE, POSITIVE, schema


def _size(width: int, height: int, frames: int, multiple: int) -> list:
    return [
        io.Int.Input(
            "width", default=width, min=multiple, max=8192, step=multiple, tooltip="Pixels; see fit."
        ),
        io.Int.Input(
            "height", default=height, min=multiple, max=8192, step=multiple, tooltip="Pixels; see fit."
        ),
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
                *_size(832, 480, 81, 16),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
                io.Latent.Output(display_name="latent"),
            ],
        )

    @classmethod
    def execute(
        cls,
        positive: io.Conditioning.Type,
        negative: io.Conditioning.Type,
        vae: io.Vae.Type,
        width: int,
        height: int,
        frames: int,
        start_image: io.Image.Type | None = None,
        end_image: io.Image.Type | None = None,
        clip_vision_output: io.ClipVisionOutput.Type | None = None,
        fit: str = conditioning.FIT[0],
        batch_size: int = 1,
    ) -> io.NodeOutput:
        return io.NodeOutput(
            *conditioning.image_to_video(
                positive,
                negative,
                vae,
                start_image,
                end_image,
                width,
                height,
                frames,
                fit,
                batch_size,
                clip_vision_output,
            )
        )


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
                *_size(1280, 704, 121, 32),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(
        cls,
        vae: io.Vae.Type,
        width: int,
        height: int,
        frames: int,
        start_image: io.Image.Type | None = None,
        fit: str = conditioning.FIT[0],
        batch_size: int = 1,
    ) -> io.NodeOutput:
        return io.NodeOutput(
            conditioning.first_frame_latent(vae, start_image, width, height, frames, fit, batch_size)
        )
