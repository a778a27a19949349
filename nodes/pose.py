"""Preprocessing of a driving video for Animate-14B: keypoints, drawn skeletons, faces, masks, backgrounds."""

from typing import Any

from comfy_api.latest import io, ui

from ..comfy_bridge import folders
from ..comfy_bridge.media import pose, video
from .schema import FileInput, WanNode, advanced, schema, size_inputs

Keypoints = io.Custom("POSE_KEYPOINT")
_FOLDER = "preprocessing"


def _frames() -> io.Image.Input:
    return io.Image.Input("images", tooltip="The frames of the video, from WanLoadVideo.")


def _keypoints(tooltip: str, **options: bool) -> Any:
    return Keypoints.Input("keypoints", tooltip=tooltip, **options)


class WanPoseDetect(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        models = list(folders.detectors())
        return schema(
            "WanPoseDetect",
            "Wan Detect Pose",
            ["vitpose", "yolo", "openpose", "dwpose", "skeleton"],
            folder=_FOLDER,
            description="Keypoints of bodies, hands and faces in each frame, of one person or of all: YOLOv10 finds "
            "them, ViTPose looks at them.",
            reports=True,
            inputs=[
                _frames(),
                FileInput(
                    "detector",
                    options=[pose.WHOLE_FRAME, *models],
                    default=next((name for name in models if "yolo" in name.lower()), pose.WHOLE_FRAME),
                    tooltip="yolov10m.onnx, in process_checkpoint of the official release in models/wan, or in "
                    "models/detection.",
                ),
                FileInput(
                    "pose_model",
                    options=models,
                    default=next((name for name in models if "vitpose" in name.lower()), None),
                    tooltip="vitpose_h_wholebody.onnx of the official release; a folder of transformers' ViTPose gives "
                    "the body only.",
                ),
                io.Combo.Input(
                    "person",
                    options=pose.PEOPLE,
                    default=pose.PEOPLE[0],
                    tooltip="Who, where there are several. all: everybody, with a number for each that stays the same; "
                    "1 is the largest of the first frame.",
                ),
                io.Boolean.Input(
                    "follow",
                    default=True,
                    tooltip="Stay with the person of the frame before; off, each frame is judged for itself, as the "
                    "official code does. all follows everybody.",
                ),
                *advanced(
                    io.String.Input(
                        "numbers",
                        default="",
                        optional=True,
                        tooltip="With all: who stays, by number, such as 1, 3; the node says who there is. Empty: all.",
                    )
                ),
            ],
            outputs=[Keypoints.Output(display_name="keypoints")],
        )

    @classmethod
    def execute(
        cls,
        images: io.Image.Type,
        detector: str,
        pose_model: str,
        person: str,
        follow: bool,
        numbers: str = "",
    ) -> io.NodeOutput:
        keypoints, report = pose.detect(
            images, detector=detector, pose_model=pose_model, person=person, follow=follow, numbers=numbers
        )
        return io.NodeOutput(keypoints, ui=ui.PreviewText(report))


class WanPoseRetarget(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanPoseRetarget",
            "Wan Retarget Pose",
            ["skeleton", "proportions"],
            folder=_FOLDER,
            description="The driving skeleton in the reference's proportions, bone by bone, and in their picture's "
            "size. Measured in the first frame of both; several people go from left to right.",
            inputs=[
                _keypoints("Of the driving video."),
                Keypoints.Input("reference_keypoints", tooltip="Of the reference image."),
            ],
            outputs=[Keypoints.Output(display_name="keypoints")],
        )

    @classmethod
    def execute(cls, keypoints: Any, reference_keypoints: Any) -> io.NodeOutput:
        return io.NodeOutput(pose.retarget_pose(keypoints, reference_keypoints))


class WanDrawPose(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanDrawPose",
            "Wan Draw Pose",
            ["skeleton", "openpose"],
            folder=_FOLDER,
            description="Skeletons of all people in the keypoints, in the official colours and widths on black: the "
            "pose video of Animate-14B.",
            inputs=[
                _keypoints("Of WanPoseDetect or WanPoseRetarget, or of other nodes in OpenPose's form."),
                *size_inputs(1280, 720),
                io.Combo.Input(
                    "fit",
                    options=video.FIT,
                    default=video.FIT[0],
                    tooltip="keep aspect: at most width x height pixels in the aspect of the keypoints' picture, the "
                    "size of the finished video. exact: fitted into this very width and height. original: as it is.",
                ),
                io.Boolean.Input("hands", default=True, optional=True, tooltip="Draw the fingers."),
                io.Boolean.Input("head", default=True, optional=True, tooltip="Draw nose, eyes and ears."),
                io.Float.Input(
                    "threshold",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    tooltip="Points that are less sure are left out.",
                ),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(
        cls,
        keypoints: Any,
        width: int,
        height: int,
        fit: str,
        hands: bool = True,
        head: bool = True,
        threshold: float = 0.5,
    ) -> io.NodeOutput:
        return io.NodeOutput(
            pose.draw(keypoints, width, height, fit_as=fit, hands=hands, head=head, threshold=threshold)
        )


class WanFaceCrop(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanFaceCrop",
            "Wan Crop Face",
            ["face", "crop"],
            folder=_FOLDER,
            description="The driving face in each frame, 512x512; black, the neutral face, where none is seen.",
            inputs=[
                _frames(),
                _keypoints("Detected in these very frames."),
                io.Float.Input(
                    "scale",
                    default=1.3,
                    min=1.0,
                    max=5.0,
                    step=0.05,
                    optional=True,
                    tooltip="Area of the crop, in areas of the face; 1.3 is official.",
                ),
                io.Int.Input(
                    "steady",
                    default=0,
                    min=0,
                    max=30,
                    optional=True,
                    tooltip="Frames to either side that the crop's place is averaged over; 0 is official, more for "
                    "keypoints that tremble.",
                ),
                *advanced(
                    io.Int.Input(
                        "person",
                        default=0,
                        min=0,
                        max=9999,
                        optional=True,
                        tooltip="Whose face, where the keypoints are of several people: their number; 0 is the lowest.",
                    )
                ),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(
        cls, images: io.Image.Type, keypoints: Any, scale: float = 1.3, steady: int = 0, person: int = 0
    ) -> io.NodeOutput:
        return io.NodeOutput(pose.crop_faces(images, keypoints, scale, steady, person))


class WanSubjectMask(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanSubjectMask",
            "Wan Subject Mask",
            ["sam2", "segment", "replace"],
            folder=_FOLDER,
            description="Where the person to be replaced is, or all that the keypoints are of, grown and in blocks so "
            "that nothing of their outline shows: SAM2 shown the keypoints, or a mask of your own.",
            inputs=[
                _frames(),
                FileInput(
                    "sam2_model",
                    options=[pose.NO_MODEL, *folders.segmenters()],
                    default=next(iter(folders.segmenters()), pose.NO_MODEL),
                    tooltip="The folder of facebook/sam2.1-hiera-large in models/sam2.",
                ),
                io.Int.Input(
                    "grow",
                    default=7,
                    min=1,
                    max=255,
                    step=2,
                    tooltip="Pixels that the mask grows by at a time, odd.",
                ),
                io.Int.Input("grow_times", default=3, min=0, max=100, tooltip="How often it grows."),
                io.Int.Input(
                    "blocks_wide",
                    default=1,
                    min=0,
                    max=1000,
                    tooltip="Blocks that the mask's box is cut into; 1 is a plain box, 0 keeps the outline.",
                ),
                io.Int.Input(
                    "blocks_high",
                    default=1,
                    min=0,
                    max=1000,
                    tooltip="Blocks that the mask's box is cut into; 1 is a plain box, 0 keeps the outline.",
                ),
                _keypoints("Detected in these very frames; for SAM2.", optional=True),
                io.Mask.Input(
                    "mask", optional=True, tooltip="In the place of SAM2: of all frames, or one for all."
                ),
            ],
            outputs=[io.Mask.Output()],
        )

    @classmethod
    def execute(
        cls,
        images: io.Image.Type,
        keypoints: Any = None,
        mask: io.Mask.Type | None = None,
        **inputs: Any,
    ) -> io.NodeOutput:
        return io.NodeOutput(pose.subject_mask(images, keypoints, mask, **inputs))


class WanBackground(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanBackground",
            "Wan Background",
            ["remove subject", "replace"],
            folder=_FOLDER,
            description="The video with the masked person in black: the background video of WanPoseAnimate.",
            inputs=[_frames(), io.Mask.Input("mask", tooltip="From WanSubjectMask.")],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, images: io.Image.Type, mask: io.Mask.Type) -> io.NodeOutput:
        return io.NodeOutput(pose.background(images, mask))
