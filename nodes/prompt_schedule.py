"""Texts for parts of one clip -> CONDITIONING."""

from comfy_api.latest import io, ui

from ..comfy_bridge.models.prompt_schedule import encode_schedule
from ..comfy_bridge.models.text_encoder import encode_prompt
from ..wan_models.config import NEGATIVE_PROMPT
from .schema import WanNode, advanced, schema
from .text import clip_input, negative_input

_LINES = "A kitchen in warm light.\n0-50%: A cat sits on the table.\n50-100%: The cat jumps down."


class WanPromptSchedule(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        strength = io.Float.Input(
            "strength",
            default=1.0,
            min=0.0,
            max=100.0,
            step=0.05,
            optional=True,
            tooltip="How sharply a text ends where its range ends; 1 is published, 0 holds all texts everywhere.",
        )
        return schema(
            "WanPromptSchedule",
            "Wan Prompt Schedule",
            ["prompt relay", "prompt travel", "timeline", "storyboard"],
            folder="conditioning",
            reports=True,
            description="A prompt with a text for each part of one clip: what happens when.",
            inputs=[
                clip_input(),
                io.String.Input(
                    "lines",
                    multiline=True,
                    dynamic_prompts=True,
                    default=_LINES,
                    tooltip="A line each: 0-40: text (frames), 0-2.5s: text, or 0-50%: text. A line without a range "
                    "is for the whole clip.",
                ),
                io.Int.Input(
                    "frames",
                    default=81,
                    min=1,
                    max=4097,
                    tooltip="Of the clip, as in the node that makes its latent: 4n + 1 (S2V: 4n).",
                ),
                io.Float.Input(
                    "fps",
                    default=16.0,
                    min=1.0,
                    max=240.0,
                    step=0.01,
                    optional=True,
                    tooltip="Of the video, for ranges in seconds: 16, TI2V-5B and Animate 2 24, Animate 30.",
                ),
                *advanced(strength),
                negative_input(),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
            ],
        )

    @classmethod
    def execute(
        cls,
        clip: io.Clip.Type,
        lines: str,
        frames: int,
        fps: float = 16.0,
        strength: float = 1.0,
        negative: str = NEGATIVE_PROMPT,
    ) -> io.NodeOutput:
        positive, report = encode_schedule(clip, lines, frames, fps, strength)
        return io.NodeOutput(positive, encode_prompt(clip, negative), ui=ui.PreviewText(report))
