"""A video file as frames."""

from typing import Any

from comfy_api.latest import io, ui

from ..comfy_bridge.media import video
from .schema import FileInput, WanNode, schema, size_inputs


class WanLoadVideo(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanLoadVideo",
            "Wan Load Video",
            ["video", "frames", "fps"],
            folder="preprocessing",
            reports=True,
            description="Frames of a video file at another rate, exact to the frame, and its sound.",
            inputs=[
                FileInput(
                    "file", options=video.files(), upload=io.UploadType.video, tooltip="In the input folder."
                ),
                io.Float.Input(
                    "fps",
                    default=30.0,
                    min=0.0,
                    max=240.0,
                    step=0.01,
                    tooltip="Frames per second to take; 30 is Animate-14B's. 0: the video's own.",
                ),
                io.Float.Input(
                    "start", default=0.0, min=0.0, max=1e6, step=0.01, tooltip="Seconds; the first frame."
                ),
                io.Int.Input(
                    "length", default=0, min=0, max=1_000_000, tooltip="Frames; 0: to the end of the video."
                ),
                *size_inputs(1280, 720),
                io.Combo.Input(
                    "fit",
                    options=video.FIT,
                    default=video.FIT[0],
                    tooltip="keep aspect: at most width x height pixels in the video's own aspect, as the official "
                    "preprocessing does. exact: this very width and height, cropped at the centre. original: as it is.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="frames"),
                io.Audio.Output(display_name="audio"),
                io.Float.Output(display_name="fps"),
                io.Int.Output(display_name="frame_count"),
            ],
        )

    @classmethod
    def execute(cls, file: str, **inputs: Any) -> io.NodeOutput:
        film = video.load(file, **inputs)
        report = ui.PreviewText("\n".join(film.notes)) if film.notes else None
        return io.NodeOutput(film.frames, film.sound, film.fps, len(film.frames), ui=report)

    @classmethod
    def fingerprint_inputs(cls, file: str, **_: object) -> float:
        return video.changed(file)

    @classmethod
    def validate_inputs(cls, file: str) -> bool | str:
        return video.problem(file)
