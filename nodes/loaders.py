"""Loaders: a file or official release folder -> MODEL, CLIP, VAE or CLIP_VISION."""

from comfy_api.latest import io, ui

from ..comfy_bridge import folders
from ..comfy_bridge.models import autoencoder, diffusion, loaded_files, model_info, text_encoder, vision
from ..comfy_bridge.multi_gpu import text_encoder as shared_text_encoder
from ..comfy_bridge.multi_gpu import vae as shared_vae
from ..wan_models.checkpoints.animate2 import KINDS
from .schema import FileInput, WanNode, schema, size_inputs


class WanDiTLoader(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanDiTLoader",
            "Wan Load Diffusion Model",
            ["unet", "checkpoint", "wan model"],
            folder="loaders",
            description="Loads one expert (or the only model) of a Wan2.2 release as a MODEL.",
            inputs=[
                FileInput(
                    "model_name",
                    options=folders.options("diffusion_models"),
                    tooltip="A folder of an official or diffusers release in models/wan "
                    "(wan/<release>/high_noise_model), or a file in models/diffusion_models: safetensors, GGUF, .pth.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(diffusion.DTYPES),
                    default="default",
                    optional=True,
                    tooltip="Precision the weights are kept in. default: as in the file where it has 16 bits or less "
                    "(fp8 and GGUF stay packed), else what suits this device.",
                ),
                io.Combo.Input(
                    "kind",
                    options=list(KINDS),
                    default="auto",
                    optional=True,
                    tooltip="Animate-2 has the weights' names and shapes of Wan2.1-I2V. auto: told by the file and its "
                    "name; else what you know it to be.",
                ),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def fingerprint_inputs(cls, model_name: str, **_: object) -> str:
        return loaded_files.fingerprint(model_name, "diffusion_models")

    @classmethod
    def execute(cls, model_name: str, weight_dtype: str = "default", kind: str = "auto") -> io.NodeOutput:
        path = folders.resolve(model_name, "diffusion_models")
        return io.NodeOutput(diffusion.load_diffusion_model(path, weight_dtype, kind))


class WanT5Loader(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanT5Loader",
            "Wan Load Text Encoder",
            ["clip", "umt5", "text encoder"],
            folder="loaders",
            description="Loads the UMT5 text encoder of the Wan models as a CLIP.",
            inputs=[
                FileInput(
                    "t5_name",
                    options=folders.options("text_encoders"),
                    tooltip="models_t5_umt5-xxl-enc-bf16.pth of an official release in models/wan, or a file in "
                    "models/text_encoders that holds its tokenizer (spiece_model, GGUF) or has the folder "
                    "google/umt5-xxl beside it.",
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
                    options=["default", "cpu", "multi gpu"],
                    default="default",
                    optional=True,
                    tooltip="cpu keeps the encoder out of GPU memory; a prompt then takes some seconds. "
                    "multi gpu: each GPU holds a part of it (see WanMultiGPU).",
                ),
            ],
            outputs=[io.Clip.Output()],
        )

    @classmethod
    def fingerprint_inputs(cls, t5_name: str, **_: object) -> str:
        return loaded_files.fingerprint(t5_name, "text_encoders")

    @classmethod
    def execute(cls, t5_name: str, weight_dtype: str = "default", device: str = "default") -> io.NodeOutput:
        path = folders.resolve(t5_name, "text_encoders")
        if device == "multi gpu":
            return io.NodeOutput(shared_text_encoder.load_text_encoder(path, weight_dtype))
        return io.NodeOutput(text_encoder.load_text_encoder(path, weight_dtype, device))


class WanVAELoader(WanNode):
    CATEGORIES = ("vae", folders.APPROXIMATE)

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanVAELoader",
            "Wan Load VAE",
            ["vae", "autoencoder"],
            folder="loaders",
            description="Loads a Wan video autoencoder as a VAE.",
            inputs=[
                FileInput(
                    "vae_name",
                    options=list(dict.fromkeys([*folders.options("vae"), *folders.tiny_vaes()])),
                    tooltip="Wan2.1_VAE.pth or Wan2.2_VAE.pth of an official release in models/wan, or a file in "
                    "models/vae. The 14B models use the 2.1 VAE, TI2V-5B the 2.2. For drafts also LightX2V's light VAE "
                    "(lightvaew2_1), and tiny autoencoders in models/vae_approx (taew2_1, lighttaew2_1, "
                    "taew2_2, lighttaew2_2).",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(autoencoder.DTYPES),
                    default="fp32",
                    optional=True,
                    tooltip="fp32 as the official code; bf16 halves memory and is faster on GPUs.",
                ),
                io.Combo.Input(
                    "device",
                    options=["default", "multi gpu"],
                    default="default",
                    optional=True,
                    tooltip="multi gpu: decoding is split over the GPUs by strips of the picture (see WanMultiGPU); "
                    "the result is the same.",
                ),
            ],
            outputs=[io.Vae.Output()],
        )

    @classmethod
    def fingerprint_inputs(cls, vae_name: str, **_: object) -> str:
        return loaded_files.fingerprint(vae_name, *cls.CATEGORIES)

    @classmethod
    def execute(cls, vae_name: str, weight_dtype: str = "fp32", device: str = "default") -> io.NodeOutput:
        load = shared_vae.load_vae if device == "multi gpu" else autoencoder.load_vae
        return io.NodeOutput(load(folders.resolve(vae_name, *cls.CATEGORIES), weight_dtype))


class WanCLIPVisionLoader(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanCLIPVisionLoader",
            "Wan Load CLIP Vision",
            ["clip vision", "image encoder"],
            folder="loaders",
            description="Loads CLIP ViT-H/14, through which Animate-14B, Animate-2-14B and Wan2.1's image-to-video "
            "models see a picture, as a CLIP_VISION.",
            inputs=[
                FileInput(
                    "clip_name",
                    options=folders.options("clip_vision"),
                    tooltip="models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth of an official release in "
                    "models/wan, or clip_vision_h.safetensors in models/clip_vision.",
                )
            ],
            outputs=[io.ClipVision.Output()],
        )

    @classmethod
    def fingerprint_inputs(cls, clip_name: str, **_: object) -> str:
        return loaded_files.fingerprint(clip_name, "clip_vision")

    @classmethod
    def execute(cls, clip_name: str) -> io.NodeOutput:
        return io.NodeOutput(vision.load_clip_vision(folders.resolve(clip_name, "clip_vision")))


class WanModelInfo(WanNode):
    CATEGORIES = ("diffusion_models", "vae", "text_encoders", "clip_vision", folders.APPROXIMATE)

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanModelInfo",
            "Wan Model Info",
            ["which vae", "gguf", "checkpoint", "memory"],
            folder="loaders",
            description="What a model file is, what it goes with, and the memory it needs. Reads the header only.",
            is_output_node=True,
            inputs=[
                FileInput(
                    "file_name",
                    options=list(dict.fromkeys(name for c in cls.CATEGORIES for name in folders.options(c))),
                    tooltip="A diffusion model, VAE, text encoder or CLIP image encoder.",
                ),
                *size_inputs(tooltip="Of the video to estimate for."),
                io.Int.Input(
                    "frames", default=81, min=1, max=4097, step=4, tooltip="Of the video to estimate for."
                ),
            ],
            outputs=[io.String.Output(display_name="report")],
        )

    @classmethod
    def fingerprint_inputs(cls, file_name: str, **_: object) -> str:
        return loaded_files.fingerprint(file_name, *cls.CATEGORIES)

    @classmethod
    def execute(cls, file_name: str, width: int, height: int, frames: int) -> io.NodeOutput:
        report = model_info.describe(folders.resolve(file_name, *cls.CATEGORIES), width, height, frames)
        return io.NodeOutput(report, ui=ui.PreviewText(report))
