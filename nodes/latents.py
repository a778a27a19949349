"""Pixels and latents."""

from comfy_api.latest import io

from ..comfy_bridge.media import latents
from .schema import WanNode, schema, size_inputs


class WanEmptyLatent(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanEmptyLatent",
            "Wan Empty Latent",
            ["empty latent video", "size", "frames"],
            folder="latent",
            description="The size and length of the video to make.",
            inputs=[
                *size_inputs(tooltip="Pixels; a multiple of 16."),
                io.Int.Input(
                    "frames",
                    default=81,
                    min=1,
                    max=4097,
                    step=4,
                    tooltip="4n + 1 frames; the 14B models are trained on 81 (5 s at 16 frames per second).",
                ),
                io.Int.Input(
                    "batch_size", default=1, min=1, max=64, optional=True, tooltip="How many videos at once."
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Only needed for models with another VAE than the 2.1: its channels and scale are taken.",
                ),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(
        cls, width: int, height: int, frames: int, batch_size: int = 1, vae: io.Vae.Type | None = None
    ) -> io.NodeOutput:
        return io.NodeOutput(latents.empty(width, height, frames, batch_size, vae))


class WanVAEEncode(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanVAEEncode",
            "Wan VAE Encode",
            ["video to latent"],
            folder="latent",
            description="Encodes frames as one video latent.",
            inputs=[
                io.Image.Input("frames", tooltip="4n + 1 frames; width and height multiples of 16."),
                io.Vae.Input("vae", tooltip="The VAE of the model that the latent is for."),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, frames: io.Image.Type, vae: io.Vae.Type) -> io.NodeOutput:
        return io.NodeOutput(latents.encode(frames, vae))


class WanVAEDecode(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanVAEDecode",
            "Wan VAE Decode",
            ["latent to video"],
            folder="latent",
            description="Decodes a video latent to frames. Falls back to tiles when memory runs out.",
            inputs=[
                io.Latent.Input("samples", tooltip="From a sampler."),
                io.Vae.Input("vae", tooltip="2.1 for the 14B models, 2.2 for TI2V-5B."),
                io.Int.Input(
                    "tile_size",
                    default=0,
                    min=0,
                    max=4096,
                    step=32,
                    optional=True,
                    tooltip="Pixels per tile side; 0 decodes whole frames (exact, and streaming in time).",
                ),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, samples: io.Latent.Type, vae: io.Vae.Type, tile_size: int = 0) -> io.NodeOutput:
        return io.NodeOutput(latents.decode(samples, vae, tile_size))
