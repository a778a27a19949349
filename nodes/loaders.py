"""Loaders: a file or official release folder -> MODEL, CLIP or VAE."""

from comfy_api.latest import io

from ..comfy_bridge import autoencoder, diffusion, folders, text_encoder
from .schema import schema


class WanDiTLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanDiTLoader",
            "Wan Load Diffusion Model",
            ["unet", "checkpoint", "wan model"],
            folder="loaders",
            description="Loads one expert (or the only model) of a Wan2.2 release as a MODEL.",
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=folders.options("diffusion_models"),
                    tooltip="A folder of an official release in models/wan (wan/<release>/high_noise_model) or a file "
                    "in models/diffusion_models.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(diffusion.DTYPES),
                    default="default",
                    optional=True,
                    tooltip="Precision the weights are kept in. default: what suits this device.",
                ),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model_name: str, weight_dtype: str = "default") -> io.NodeOutput:
        return io.NodeOutput(
            diffusion.load_diffusion_model(folders.resolve(model_name, "diffusion_models"), weight_dtype)
        )


class WanT5Loader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanT5Loader",
            "Wan Load Text Encoder",
            ["clip", "umt5", "text encoder"],
            folder="loaders",
            description="Loads the UMT5 text encoder of the Wan models as a CLIP.",
            inputs=[
                io.Combo.Input(
                    "t5_name",
                    options=folders.options("text_encoders"),
                    tooltip="models_t5_umt5-xxl-enc-bf16.pth of an official release in models/wan, or a file in "
                    "models/text_encoders with the google/umt5-xxl tokenizer folder beside it.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(text_encoder.DTYPES),
                    default="default",
                    optional=True,
                    tooltip="Precision of weights and computation. default: the file's own (bf16 in the official one).",
                ),
                io.Combo.Input(
                    "device",
                    options=["default", "cpu"],
                    default="default",
                    optional=True,
                    tooltip="cpu keeps the encoder out of GPU memory; a prompt then takes some seconds.",
                ),
            ],
            outputs=[io.Clip.Output()],
        )

    @classmethod
    def execute(cls, t5_name: str, weight_dtype: str = "default", device: str = "default") -> io.NodeOutput:
        path = folders.resolve(t5_name, "text_encoders")
        return io.NodeOutput(text_encoder.load_text_encoder(path, weight_dtype, device))


class WanVAELoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanVAELoader",
            "Wan Load VAE",
            ["vae", "autoencoder"],
            folder="loaders",
            description="Loads a Wan video autoencoder as a VAE.",
            inputs=[
                io.Combo.Input(
                    "vae_name",
                    options=folders.options("vae"),
                    tooltip="Wan2.1_VAE.pth of an official release in models/wan, or a file in models/vae. The 14B "
                    "models use the 2.1 VAE.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(autoencoder.DTYPES),
                    default="fp32",
                    optional=True,
                    tooltip="fp32 as the official code; bf16 halves memory and is faster on GPUs.",
                ),
            ],
            outputs=[io.Vae.Output()],
        )

    @classmethod
    def execute(cls, vae_name: str, weight_dtype: str = "fp32") -> io.NodeOutput:
        return io.NodeOutput(autoencoder.load_vae(folders.resolve(vae_name, "vae"), weight_dtype))
