"""Character animation: one clip's conditioning, and the whole video."""

from typing import Any

from comfy_api.latest import io, ui

from ..comfy_bridge import compat
from ..comfy_bridge.media.conditioning import Prompts
from ..comfy_bridge.sampling import animate
from ..comfy_bridge.sampling.driven_clips import AnimateModels
from ..comfy_bridge.sampling.settings import Settings
from .schema import NEGATIVE, POSITIVE, WanNode, conditioned_outputs, frame_offset_input, schema
from .settings import clip_preset_input, clip_setting_inputs, seed_input, take_clip_sampling

_OFFICIAL = Settings.of_release(animate.RELEASE)


def _scene() -> list:
    return [
        io.Conditioning.Input("positive", tooltip=POSITIVE),
        io.Conditioning.Input("negative", tooltip=NEGATIVE),
        io.Vae.Input("vae", tooltip="The 2.1 VAE."),
        io.ClipVision.Input("clip_vision", tooltip="CLIP ViT-H/14, from WanCLIPVisionLoader."),
        io.Image.Input(
            "reference_image", tooltip="The character. Fitted into the video's size, black around it."
        ),
        io.Image.Input(
            "pose_video", tooltip="Drawn skeletons, from WanDrawPose. The video gets its size and length."
        ),
        io.Image.Input(
            "face_video",
            tooltip="The driving face, from WanFaceCrop, frame by frame; or one picture, for a still face.",
        ),
        io.Image.Input(
            "background_video",
            optional=True,
            tooltip="To take somebody's place: the video without them, from WanBackground. Needs mask.",
        ),
        io.Mask.Input(
            "mask", optional=True, tooltip="To take somebody's place: where they are, from WanSubjectMask."
        ),
    ]


def _clip() -> list:
    return [
        io.Int.Input(
            "frames_per_clip",
            default=77,
            min=5,
            max=4097,
            step=4,
            tooltip="A multiple of 4, plus 1; 77 is official.",
        ),
        io.Combo.Input(
            "carried_frames",
            options=["1", "5"],
            default="1",
            tooltip="Last frames of a clip that the next one begins with: 1 or 5.",
        ),
    ]


def _face_strength() -> io.Float.Input:
    return io.Float.Input(
        "face_strength",
        default=1.0,
        min=0.0,
        max=10.0,
        step=0.05,
        optional=True,
        tooltip="How much the driving face's expression counts; 1 is official, 0 leaves it out.",
    )


class WanAnimateCondition(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanAnimateCondition",
            "Wan Animate Clip",
            ["animate", "pose", "character"],
            folder="conditioning",
            description="The conditioning of one clip of Animate-14B, for graphs of your own. The whole video in one "
            "node: Wan Pose Animate.",
            inputs=[
                *_scene(),
                io.Image.Input(
                    "motion_frames",
                    optional=True,
                    tooltip="The video so far (its last carried_frames count); open for clip 1.",
                ),
                *_clip(),
                frame_offset_input(),
                _face_strength(),
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
        carried_frames: str,
        **inputs: Any,
    ) -> io.NodeOutput:
        clip = animate.AnimateClipInputs(carried_frames=int(carried_frames), **inputs)
        prompts, *others = animate.one_clip(Prompts(positive, negative), vae, clip_vision, clip)
        return io.NodeOutput(*prompts, *others)


class WanPoseAnimate(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanPoseAnimate",
            "Wan Pose Animate",
            ["animate", "character", "replace", "motion transfer"],
            folder="sampling",
            reports=True,
            description="A character moves like the person in a video, or takes their place: the whole video, clip "
            "after clip, as long as the driving one.",
            inputs=[
                io.Model.Input("model", tooltip="Animate-14B."),
                *_scene(),
                *_clip(),
                clip_preset_input(animate.RELEASE),
                seed_input("Clips draw their noise from it, one after the other."),
                _face_strength(),
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
        carried_frames: str,
        **inputs: Any,
    ) -> io.NodeOutput:
        sampling, inputs = take_clip_sampling(inputs, _OFFICIAL)
        video, report = animate.animate_video(
            AnimateModels(model, vae, clip_vision, animate.RELEASE),
            Prompts(positive, negative),
            animate.AnimateVideoInputs(carried_frames=int(carried_frames), **inputs),
            sampling,
            on_progress=compat.progress_text(getattr(cls.hidden, "unique_id", None)),
        )
        return io.NodeOutput(video, ui=ui.PreviewText(report))
