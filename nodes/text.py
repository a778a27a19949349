"""Prompts -> CONDITIONING."""

from comfy_api.latest import io

from ..comfy_bridge.media import clip_prompts
from ..comfy_bridge.models.text_encoder import encode_prompt
from ..wan_models.config import NEGATIVE_PROMPT
from .schema import WanNode, schema


def clip_input() -> io.Clip.Input:
    """The text encoder."""
    return io.Clip.Input("clip", tooltip="From WanT5Loader, or the host's Load CLIP of type wan.")


def negative_input() -> io.String.Input:
    """The negative prompt."""
    return io.String.Input(
        "negative",
        multiline=True,
        default=NEGATIVE_PROMPT,
        optional=True,
        tooltip="What to keep out of it. The models were tuned with the default text.",
    )


class WanT5Encode(WanNode):
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
                clip_input(),
                io.String.Input(
                    "positive", multiline=True, dynamic_prompts=True, tooltip="What the video shows."
                ),
                negative_input(),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
            ],
        )

    @classmethod
    def execute(cls, clip: io.Clip.Type, positive: str, negative: str = NEGATIVE_PROMPT) -> io.NodeOutput:
        return io.NodeOutput(encode_prompt(clip, positive), encode_prompt(clip, negative))


class WanPrompts(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanPrompts",
            "Wan Prompts",
            ["prompt per clip", "prompt travel", "scenes", "long video"],
            folder="conditioning",
            description="A prompt for each clip of a long video: for Wan Long Video, Wan Speech to Video, Wan Pose "
            "Animate and Wan Animate 2. Other nodes take the first one.",
            inputs=[
                clip_input(),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="One prompt for each clip, with blank lines or | between them; the last one is that of all "
                    "clips after it.",
                ),
                negative_input(),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
                io.Int.Output(display_name="count"),
            ],
        )

    @classmethod
    def execute(cls, clip: io.Clip.Type, prompts: str, negative: str = NEGATIVE_PROMPT) -> io.NodeOutput:
        texts = clip_prompts.split(prompts)
        positive = clip_prompts.in_turn([encode_prompt(clip, text) for text in texts])
        return io.NodeOutput(positive, encode_prompt(clip, negative), len(texts))
