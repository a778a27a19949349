"""Videos of any length by image-to-video and text-to-video models."""

from typing import Any

from comfy_api.latest import InputImpl, Types, io, ui

from ..comfy_bridge import compat
from ..comfy_bridge.media.conditioning import Prompts
from ..comfy_bridge.sampling import long_video, preflight
from ..comfy_bridge.sampling.clip_run import OUTPUTS, OutputChoice
from ..comfy_bridge.sampling.experts import Experts
from ..comfy_bridge.sampling.settings import PRESETS, Settings
from ..wan_models.families import DISTILLED
from ..wan_models.sampling.long_clips import COLOUR_MATCH
from .schema import NEGATIVE, POSITIVE, WanNode, advanced, fit_input, schema, size_inputs, split
from .settings import (
    BASE,
    base_inputs,
    base_of,
    boundary_input,
    cfg_input,
    checkpoint_folder_input,
    custom_only,
    experts_preset_input,
    noise_source_input,
    seed_input,
    shift_input,
    solver_inputs,
    steps_input,
    take_clip_sampling,
)

_RELEASES = ("I2V-A14B", "T2V-A14B")
_PRESETS = [*_RELEASES, *DISTILLED]
_OFFICIAL = Settings.of_release(_RELEASES[0])
_GUIDANCE = ("cfg_high", "cfg_low", "boundary")


def _models() -> list:
    return [
        io.Model.Input(
            "model_high", tooltip="The high-noise expert of I2V-A14B, or of T2V-A14B for text alone."
        ),
        io.Model.Input(
            "model_low", optional=True, tooltip="The low-noise expert. Leave open for models with one expert."
        ),
        io.Conditioning.Input("positive", tooltip=f"{POSITIVE} WanPrompts holds one for each clip."),
        io.Conditioning.Input("negative", tooltip=NEGATIVE),
        io.Vae.Input("vae", tooltip="The 2.1 VAE."),
        io.Image.Input(
            "reference_image",
            optional=True,
            tooltip="The first frame. Text-to-video models can go without.",
        ),
        io.Image.Input(
            "end_image", optional=True, tooltip="The last frame of the last clip. For image-to-video models."
        ),
    ]


def _length() -> list:
    return [
        *size_inputs(),
        io.Int.Input("clips", default=3, min=0, max=10_000, tooltip="0: as many as seconds need."),
        io.Float.Input(
            "seconds",
            default=10.0,
            min=0.0,
            max=36_000.0,
            step=0.1,
            tooltip="Length of the video where clips is 0; whole clips where there is an end image.",
        ),
        io.Int.Input(
            "frames_per_clip",
            default=81,
            min=5,
            max=4097,
            step=4,
            tooltip="A multiple of 4, plus 1; the models, and the SVI LoRAs, are trained on 81.",
        ),
    ]


def _joints() -> list:
    return [
        io.Combo.Input(
            "mode",
            options=list(long_video.MODES),
            default=long_video.MODES[0],
            tooltip="What a clip goes on from. last frames: those of the clip before, encoded again. SVI 2.0 Pro: its "
            "latents, and the reference in every clip; needs the pair of SVI 2.0 Pro LoRAs.",
        ),
        io.Int.Input(
            "overlap_latents",
            default=1,
            min=0,
            max=long_video.MOST_OVERLAP,
            tooltip="What a clip repeats of the one before, and is cut off again. last frames: 1, 5, 9 or 13 frames. "
            "SVI 2.0 Pro: so many latents of 4 frames, 1 is official. 0: each clip begins with the reference anew.",
        ),
        io.Combo.Input(
            "colour_match",
            options=list(COLOUR_MATCH),
            default=COLOUR_MATCH[0],
            tooltip="mean-std: a clip gets the colours of the clip before, by the frames that both show. to clip 1: "
            "those of the first clip as a whole.",
        ),
    ]


def _output() -> list:
    return [
        io.Combo.Input(
            "output",
            options=list(OUTPUTS),
            default=OUTPUTS[0],
            tooltip="film: frames are written to a film as they are made, and not kept; memory does not grow with the "
            "length, and there is no IMAGE. frames: no file.",
        ),
        io.String.Input(
            "filename_prefix", default="video/wan_long", tooltip="Name of the film in the output folder."
        ),
    ]


class WanLongVideo(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanLongVideo",
            "Wan Long Video",
            ["long video", "svi", "stable video infinity", "extend", "continue", "clips"],
            folder="sampling",
            reports=True,
            description="A video of any length from an image or from text: each clip goes on from the one before.",
            inputs=[
                *_models(),
                *_length(),
                *_joints(),
                experts_preset_input(_PRESETS),
                seed_input("Clip n uses seed + n, counted from 0."),
                *_output(),
                *custom_only(
                    steps_input(_OFFICIAL, "Per clip."),
                    shift_input(_OFFICIAL, "5 is official for I2V, 12 for T2V."),
                    cfg_input("cfg_high", _OFFICIAL.cfg_high, "CFG scale of the high-noise expert."),
                    cfg_input("cfg_low", _OFFICIAL.cfg_low, "CFG scale of the low-noise expert."),
                    boundary_input(
                        _OFFICIAL,
                        "Noise level from which the high-noise expert works: 0.9 for I2V, 0.875 for T2V.",
                    ),
                    *solver_inputs(_OFFICIAL),
                ),
                *advanced(
                    fit_input(
                        "keep aspect: at most width x height pixels in the reference's own aspect. exact: this very "
                        "width and height; pictures are cropped at their centre."
                    ),
                    noise_source_input(),
                ),
                checkpoint_folder_input(),
                *advanced(*base_inputs()),
            ],
            outputs=[io.Image.Output(), io.Video.Output()],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model_high: io.Model.Type,
        positive: io.Conditioning.Type,
        negative: io.Conditioning.Type,
        vae: io.Vae.Type,
        model_low: io.Model.Type | None = None,
        **inputs: Any,
    ) -> io.NodeOutput:
        base, inputs = split(inputs, BASE)
        experts = Experts.of(model_high, model_low, base_of(**base))
        preset = inputs["preset"]
        sampling, inputs = take_clip_sampling(inputs, _OFFICIAL, _GUIDANCE)
        choice, inputs = split(inputs, ("output", "filename_prefix"))
        video = long_video.long_video(
            long_video.LongModels(experts, vae),
            Prompts(positive, negative),
            long_video.LongVideoInputs(**inputs),
            sampling,
            on_progress=compat.progress_text(getattr(cls.hidden, "unique_id", None)),
            choice=OutputChoice(**choice, tags=_tags(cls.hidden)),
        )
        report = "\n".join([*preflight.warnings(experts, PRESETS.get(preset)), video.report])
        return _node_output(video, report)


def _tags(hidden: Any) -> dict[str, Any]:
    """Metadata of the films that the host saves: the workflow."""
    prompt = getattr(hidden, "prompt", None)
    return {
        **(getattr(hidden, "extra_pnginfo", None) or {}),
        **({} if prompt is None else {"prompt": prompt}),
    }


def _node_output(video: long_video.LongVideo, report: str) -> io.NodeOutput:
    """IMAGE and VIDEO of what was made, the film on the node, and the report."""
    shown: dict[str, Any] = ui.PreviewText(report).as_dict()
    frames: Any = video.frames
    if frames is None:
        frames = compat.nothing("Wan Long Video made a film alone: set output to 'film and frames' for IMAGE")
    if video.film is None:
        parts = Types.VideoComponents(images=video.frames, audio=None, frame_rate=long_video.RATE)
        return io.NodeOutput(frames, InputImpl.VideoFromComponents(parts), ui=shown)
    saved = ui.SavedResult(video.film.path.name, video.film.subfolder, io.FolderType.output)
    shown |= ui.PreviewVideo([saved]).as_dict()
    return io.NodeOutput(frames, InputImpl.VideoFromFile(str(video.film.path)), ui=shown)
