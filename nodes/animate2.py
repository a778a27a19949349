"""Animate-2: a character moves like a raw video. One clip's conditioning, and the whole video."""

from typing import Any

from comfy_api.latest import io, ui

from ..comfy_bridge import compat
from ..comfy_bridge.media.conditioning import Prompts
from ..comfy_bridge.sampling import animate2
from ..comfy_bridge.sampling.driven_clips import AnimateModels
from ..comfy_bridge.sampling.settings import Settings
from ..wan_models.dit.kept_keys import PLACES
from ..wan_models.pipelines.animate2 import DRIVING_PROMPT
from .schema import (
    NEGATIVE,
    POSITIVE,
    WanNode,
    conditioned_outputs,
    frame_offset_input,
    schema,
    size_inputs,
    take,
)
from .settings import clip_setting_inputs, preset_input, seed_input, take_clip_sampling

_OFFICIAL = Settings.of_release(animate2.RELEASE)


def _scene() -> list:
    return [
        io.Conditioning.Input("positive", tooltip=f"{POSITIVE} Describe the character and the background."),
        io.Conditioning.Input("negative", tooltip=NEGATIVE),
        io.Vae.Input("vae", tooltip="The 2.1 VAE."),
        io.ClipVision.Input("clip_vision", tooltip="CLIP ViT-H/14, from WanCLIPVisionLoader."),
        io.Image.Input("reference_image", tooltip="The character. The video has its aspect."),
        io.Image.Input(
            "driving_video",
            tooltip="The raw video that the character moves like, at 24 frames per second. The video has its length.",
        ),
        io.Conditioning.Input(
            "driving_prompt",
            optional=True,
            tooltip="What the driving video shows: its movement, not the character. The official text: "
            f"{DRIVING_PROMPT}. Open: positive.",
        ),
        *size_inputs(640, 800, tooltip="Width x height is the area of a frame, in the reference's aspect; 640 x 800 "
                     "and 720 x 1280 are official."),
        io.Int.Input(
            "frames_per_clip", default=81, min=5, max=4097, step=4, tooltip="A multiple of 4, plus 1; 81 is official."
        ),
    ]  # fmt: skip


def _strengths() -> list:
    share = {"min": 0.0, "max": 1.0, "step": 0.01, "optional": True}
    strength = {"default": 1.0, "min": 0.0, "max": 10.0, "step": 0.05, "optional": True}
    return [
        io.Float.Input(
            "pose_strength",
            tooltip="How much the driving video counts; 1 is official, 0 mutes it and takes as long.",
            **strength,
        ),
        io.Float.Input(
            "reference_strength",
            tooltip="How much the reference picture counts; 1 is official, less leaves more to the prompt.",
            **strength,
        ),
        io.Float.Input(
            "start_percent",
            default=0.0,
            tooltip="Share of the steps from which the driving video counts; steps without it are quicker.",
            **share,
        ),
        io.Float.Input(
            "end_percent",
            default=1.0,
            tooltip="Share of the steps up to which the driving video counts.",
            **share,
        ),
        io.Combo.Input(
            "driving_cache",
            options=list(PLACES),
            default=PLACES[0],
            optional=True,
            tooltip="Where the driving video's keys and values are kept for all steps of a clip: 25 GiB at 832x480, 81 "
            "frames, 58 GiB at 1280x720; int8 takes half. off: made anew at every step. auto: gpu, ram or off, by the "
            "room there is.",
        ),
    ]


class WanAnimate2Condition(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanAnimate2Condition",
            "Wan Animate 2 Clip",
            ["animate 2", "driving video", "character"],
            folder="conditioning",
            description="The conditioning of one clip of Animate-2-14B, for graphs of your own. The whole video in one "
            "node: Wan Animate 2.",
            inputs=[
                *_scene(),
                io.Image.Input(
                    "motion_frames",
                    optional=True,
                    tooltip="The video so far (its last frame counts); open for clip 1.",
                ),
                frame_offset_input(),
                *_strengths(),
            ],
            outputs=[
                *conditioned_outputs(),
                io.Int.Output(display_name="trim_latent"),
                io.Int.Output(display_name="trim_image"),
                io.Int.Output(display_name="frame_offset"),
            ],
        )

    @classmethod
    def execute(
        cls,
        positive: io.Conditioning.Type,
        negative: io.Conditioning.Type,
        vae: io.Vae.Type,
        clip_vision: io.ClipVision.Type,
        frame_offset: int,
        motion_frames: io.Image.Type | None = None,
        **inputs: Any,
    ) -> io.NodeOutput:
        strengths, inputs = take(animate2.Strengths, inputs)
        prompts, *others = animate2.one_clip(
            Prompts(positive, negative),
            vae,
            clip_vision,
            animate2.Animate2Inputs(strengths=strengths, **inputs),
            motion_frames=motion_frames,
            frame_offset=frame_offset,
        )
        return io.NodeOutput(*prompts, *others)


class WanAnimate2(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanAnimate2",
            "Wan Animate 2",
            ["animate 2", "driving video", "character", "motion transfer"],
            folder="sampling",
            reports=True,
            description="A character moves like a raw video, without skeletons or face crops: the whole video, clip "
            "after clip, as long as the driving one.",
            inputs=[
                io.Model.Input("model", tooltip="Animate-2-14B, base or distilled."),
                *_scene(),
                preset_input(
                    animate2.PRESETS,
                    "The official steps, shift, CFG, solver and schedule; custom: the settings below.",
                ),
                seed_input("Clips draw their noise from it, one after the other."),
                *_strengths(),
                *clip_setting_inputs(_OFFICIAL),
            ],
            outputs=[io.Image.Output()],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        positive: io.Conditioning.Type,
        negative: io.Conditioning.Type,
        vae: io.Vae.Type,
        clip_vision: io.ClipVision.Type,
        **inputs: Any,
    ) -> io.NodeOutput:
        sampling, inputs = take_clip_sampling(inputs, _OFFICIAL)
        strengths, inputs = take(animate2.Strengths, inputs)
        video, report = animate2.animate_video(
            AnimateModels(model, vae, clip_vision, animate2.RELEASE),
            Prompts(positive, negative),
            animate2.Animate2Inputs(strengths=strengths, **inputs),
            sampling,
            on_progress=compat.progress_text(getattr(cls.hidden, "unique_id", None)),
        )
        return io.NodeOutput(video, ui=ui.PreviewText(report))
