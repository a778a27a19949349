"""Character animation: the conditioning of one clip in the host's own keys, and the whole video, clip after clip."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ...wan_models.config import FaceConfig
from ...wan_models.families import RELEASES
from ...wan_models.images.conditioning import reference_mask_channels, replaced_frames
from ...wan_models.images.pixels import rgb
from ...wan_models.images.resize import letterbox, resize_area
from ...wan_models.pipelines.driving import DrivingVideos, EmptyMaskError
from ...wan_models.sampling.clips import (
    REFERENCE_FRAMES,
    AnimateSegment,
    animate_clip_count,
    ping_pong,
)
from ...wan_models.wording import counted
from ..host_types import ClipVision, Latent, Vae
from ..media import latents
from ..media.conditioning import Prompts
from ..models import identity
from ..progress import without_progress
from . import preflight
from .clip_run import ClipPlan, ClipRun, ClipSampling
from .driven_clips import AnimateModels, collect_frames

RELEASE = "Animate-14B"
FPS = RELEASES[RELEASE].fps
FACE_SIZE = FaceConfig().size


@dataclass(frozen=True, kw_only=True)
class AnimateVideoInputs(DrivingVideos):
    """Inputs of an animated video: the character (IMAGE), and the videos that drive it.

    carried_frames: last frames of a clip that the next one begins with. face_strength: 1 is official, 0 leaves the face
    out."""

    reference_image: Tensor
    frames_per_clip: int
    carried_frames: int
    face_strength: float = 1.0

    def plan(self) -> ClipPlan:
        """The clips of a video as long as the driving one. ValueError where inputs do not fit."""
        clips = animate_clip_count(self.frames, self.frames_per_clip, self.carried_frames)
        try:
            self.check()
        except EmptyMaskError as error:
            raise ValueError(
                f"{error}. Look at what WanSubjectMask shows, and choose the person or draw a mask"
            ) from None
        return ClipPlan(self.frames, self.frames_per_clip, clips, *self.size)


@dataclass(frozen=True, kw_only=True)
class AnimateClipInputs(AnimateVideoInputs):
    """Inputs of one clip. motion_frames: IMAGE of the frames before it, None for a video's first clip.
    frame_offset: number of frames of the video so far."""

    frame_offset: int
    motion_frames: Tensor | None = None

    def carried(self) -> Tensor | None:
        """The frames that the clip begins with. ValueError where there are not enough."""
        past, count = self.motion_frames, self.carried_frames
        if past is None:
            return None
        if past.shape[0] < count or self.frame_offset < count:
            raise ValueError(
                f"a clip that carries {counted(count, 'frame')} needs as many before it, and motion_frames has "
                f"{past.shape[0]} at frame_offset {self.frame_offset}: connect the frames made so far, and the "
                "frame_offset of the clip before"
            )
        return past[-count:]


class AnimateConditioner:
    """Conditioning of the clips of one video, whose reference is encoded once. picture [1, H, W, 3]: the reference in
    the video's size."""

    def __init__(self, vae: Vae, clip_vision: ClipVision, inputs: AnimateVideoInputs) -> None:
        self._vae, self._inputs = vae, inputs
        self.picture = letterbox(rgb(inputs.reference_image)[:1], *inputs.size)
        self._features = clip_vision.encode_image(self.picture, crop=False)
        with without_progress():
            self._reference = vae.encode(self.picture)

    def clip(self, prompts: Prompts, segment: AnimateSegment) -> tuple[Prompts, Latent]:
        """Conditioning and empty LATENT of a clip, whose first frame is driven by frame `segment.start` of the driving
        video."""
        inputs, size, carried = self._inputs, self._inputs.size, segment.carried
        driving = inputs.driving(ping_pong(segment.start, inputs.frames_per_clip, inputs.frames), FACE_SIZE)
        if carried is not None:
            carried = resize_area(rgb(carried), *size)
        video, known = replaced_frames(
            inputs.frames_per_clip, size, carried, driving.background, driving.mask
        )
        encoded = torch.cat([self._reference, self._vae.encode(video)], dim=2)
        known = reference_mask_channels(known, *encoded.shape[-2:])
        shared: dict[str, Any] = {
            "concat_latent_image": encoded,
            "concat_mask": 1 - known[None].to(encoded),  # the host's is 1 where something is to be made
            "pose_video_latent": self._vae.encode(driving.pose),
            "clip_vision_output": self._features,
        }
        if inputs.face_strength != 1.0:
            shared["face_strength"] = inputs.face_strength
        face = rearrange(driving.face, "t h w c -> 1 c t h w") * 2 - 1
        black = face.new_tensor(-1.0).expand(face.shape)  # the neutral face of classifier-free guidance
        prompts = prompts.with_values(
            shared | {"face_video_pixels": face}, shared | {"face_video_pixels": black}
        )
        width, height = size
        return prompts, latents.empty(width, height, inputs.frames_per_clip + REFERENCE_FRAMES, 1, self._vae)


def one_clip(
    prompts: Prompts, vae: Vae, clip_vision: ClipVision, inputs: AnimateClipInputs
) -> tuple[Prompts, Latent, int, int, int]:
    """Conditioning and LATENT of one clip, the latent frames and the frames to trim from what is made of it, and how
    many frames the video then has. Raises ValueError where inputs do not fit."""
    preflight.check_vae_of(RELEASE, vae)
    inputs.plan()
    carried = inputs.carried()
    shared = 0 if carried is None else carried.shape[0]
    start = inputs.frame_offset - shared
    conditioner = AnimateConditioner(vae, clip_vision, inputs)
    clip = conditioner.clip(prompts, AnimateSegment(0, start, carried))
    return *clip, 1, shared, start + inputs.frames_per_clip


def animate_video(
    models: AnimateModels,
    prompts: Prompts,
    inputs: AnimateVideoInputs,
    sampling: ClipSampling,
    on_progress: Callable[[str], None],
) -> tuple[Tensor, str]:
    """The whole video, as long as the driving one: IMAGE and one line on what was done.

    on_progress as in `ClipRun`. Raises ValueError where inputs do not fit, before anything is sampled."""
    models.check()
    plan = inputs.plan()
    run = ClipRun(models.model, prompts, plan, sampling, lambda: _identity(models, inputs), on_progress)
    conditioner = AnimateConditioner(models.vae, models.clip_vision, inputs)
    video = collect_frames(run, conditioner, models.vae, plan, sampling, inputs.carried_frames)
    report = f"{plan.summary}, {inputs.carried_frames} carried, {plan.frames / FPS:.2f} s"
    return video, run.report(report)


def _identity(models: AnimateModels, inputs: AnimateVideoInputs) -> identity.Parts:
    names = ("reference_image", "pose_video", "face_video", "background_video", "mask", "face_strength",
             "carried_frames")  # fmt: skip
    values = {name: getattr(inputs, name) for name in names}
    return identity.of_values(values) | models.identity()
