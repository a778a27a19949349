"""Prompts -> CONDITIONING."""

from comfy_api.latest import io

from ..comfy_bridge.models.text_encoder import encode_prompt
from ..wan_models.config import NEGATIVE_PROMPT
from .schema import schema


class WanT5Encode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanT5Encode",
            "Wan Text Encode",
            ["prompt", "clip text encode", "negative"],
            folder="conditioning",
            description="Encodes a prompt and a negative prompt officially: cleaned, cut at 512 tokens, no "
            "(word:1.2) weights.",
            inputs=[
                io.Clip.Input("clip", tooltip="From WanT5Loader, or the host's Load CLIP of type wan."),
                io.String.Input(
                    "positive", multiline=True, dynamic_prompts=True, tooltip="What the video shows."
                ),
                io.String.Input(
                    "negative",
                    multiline=True,
                    default=NEGATIVE_PROMPT,
                    optional=True,
                    tooltip="What to keep out of it. The models were tuned with the default text.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
            ],
        )

    @classmethod
    def execute(cls, clip: io.Clip.Type, positive: str, negative: str = NEGATIVE_PROMPT) -> io.NodeOutput:
        return io.NodeOutput(encode_prompt(clip, positive), encode_prompt(clip, negative))
