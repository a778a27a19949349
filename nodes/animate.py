"""Character animation: one clip's conditioning, and the whole video."""

from comfy_api.latest import io, ui

from ..comfy_bridge import compat
from ..comfy_bridge.sampling import animate, run
from .schema import NEGATIVE, POSITIVE, schema
from .settings import preset_input, seed_input, setting_inputs

_RELEASE = "Animate-14B"
_DEFAULT = run.Settings.of_release(_RELEASE)


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


class WanAnimateCondition(io.ComfyNode):
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
                io.Int.Input(
                    "frame_offset",
                    default=0,
                    min=0,
                    max=1_000_000,
                    tooltip="Frames of the video so far; the clip before gives it.",
                ),
                _face_strength(),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
                io.Latent.Output(display_name="latent"),
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
        reference_image: io.Image.Type,
        pose_video: io.Image.Type,
        face_video: io.Image.Type,
        frames_per_clip: int,
        carried_frames: str,
        frame_offset: int,
        background_video: io.Image.Type | None = None,
        mask: io.Mask.Type | None = None,
        motion_frames: io.Image.Type | None = None,
        face_strength: float = 1.0,
    ) -> io.NodeOutput:
        return io.NodeOutput(
            *animate.one_clip(
                positive,
                negative,
                vae,
                clip_vision,
                reference_image,
                animate.Driving(pose_video, face_video, background_video, mask),
                frames_per_clip,
                frame_offset,
                motion_frames,
                int(carried_frames),
                face_strength,
            )
        )


class WanPoseAnimate(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanPoseAnimate",
            "Wan Pose Animate",
            ["animate", "character", "replace", "motion transfer"],
            folder="sampling",
            description="A character moves like the person in a video, or takes their place: the whole video, clip "
            "after clip, as long as the driving one.",
            inputs=[
                io.Model.Input("model", tooltip="Animate-14B."),
                *_scene(),
                *_clip(),
                preset_input(_RELEASE),
                seed_input("Clips draw their noise from it, one after the other."),
                _face_strength(),
                *setting_inputs(_DEFAULT),
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
        reference_image: io.Image.Type,
        pose_video: io.Image.Type,
        face_video: io.Image.Type,
        frames_per_clip: int,
        carried_frames: str,
        preset: str,
        seed: int,
        background_video: io.Image.Type | None = None,
        mask: io.Mask.Type | None = None,
        face_strength: float = 1.0,
        steps: int = _DEFAULT.steps,
        shift: float = _DEFAULT.shift,
        cfg: float = _DEFAULT.cfg_high,
        sampler: str = _DEFAULT.sampler,
        scheduler: str = _DEFAULT.scheduler,
        noise_source: str = "cpu",
        checkpoint_folder: str = "",
    ) -> io.NodeOutput:
        settings = run.Settings(steps, shift, cfg, cfg, 0.0, sampler, scheduler)
        video, report = animate.animate_video(
            model,
            positive,
            negative,
            vae,
            clip_vision,
            reference_image,
            animate.Driving(pose_video, face_video, background_video, mask),
            frames_per_clip,
            int(carried_frames),
            face_strength,
            settings if preset == run.CUSTOM else _DEFAULT,
            seed,
            noise_source,
            checkpoint_folder.strip(),
            compat.progress_text(getattr(cls.hidden, "unique_id", None)),
        )
        return io.NodeOutput(video, ui=ui.PreviewText(report))
