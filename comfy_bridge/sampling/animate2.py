"""A character driven by a raw video (Animate-2): the conditioning of one clip in the keys of the host's
WanAnimate2ToVideo, and the whole video, clip after clip."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import node_helpers
import torch
from torch import Tensor

from ...wan_models.dit.kept_keys import PLACES, kept_bytes
from ...wan_models.families import DISTILLED_MODELS, RELEASES
from ...wan_models.images.conditioning import reference_mask_channels, replaced_frames
from ...wan_models.images.pixels import rgb
from ...wan_models.images.resize import resize_area
from ...wan_models.memory import tokens_of
from ...wan_models.pipelines.animate2 import CARRIED
from ...wan_models.pipelines.raw_video import RawVideo
from ...wan_models.sampling.clips import (
    REFERENCE_FRAMES,
    AnimateSegment,
    animate_clip_count,
    ping_pong,
)
from ..host_types import ClipVision, Conditioning, Latent, Model, Vae
from ..media import clip_prompts, latents
from ..media.conditioning import Prompts
from ..models import identity
from ..progress import without_progress
from . import preflight
from .clip_run import ClipPlan, ClipRun, ClipSampling
from .driven_clips import AnimateModels, collect_frames

RELEASE = "Animate-2-14B"
PRESETS = [RELEASE, *DISTILLED_MODELS]
FPS = RELEASES[RELEASE].fps


@dataclass(frozen=True)
class Strengths:
    """Weights of the driving video and the reference; 1 is official. The driving video counts from start_percent to
    end_percent of the steps, 0..1."""

    pose_strength: float = 1.0
    reference_strength: float = 1.0
    start_percent: float = 0.0
    end_percent: float = 1.0

    def check(self) -> None:
        """Raises ValueError where there is no such part of the steps."""
        start, end = self.start_percent, self.end_percent
        if start >= end:
            order = "after" if start > end else "the same as"
            raise ValueError(
                f"start_percent {start:g} is {order} end_percent {end:g}: the driving video would never count"
            )


@dataclass(frozen=True, kw_only=True)
class Animate2Inputs:
    """Inputs of a video. driving_prompt: CONDITIONING of what the driving video shows, one text for all clips or one
    for each, None for the prompt's. width and height: whose area a frame has, in the reference's aspect. driving_cache:
    one of PLACES."""

    reference_image: Tensor
    driving_video: Tensor
    width: int
    height: int
    frames_per_clip: int
    driving_prompt: Conditioning | None = None
    driving_cache: str = PLACES[0]
    strengths: Strengths = Strengths()

    @property
    def raw(self) -> RawVideo:
        """The two in one size."""
        return RawVideo(
            reference_image=self.reference_image,
            driving_video=self.driving_video,
            area=self.width * self.height,
        )

    def driving_prompt_of(self, index: int) -> Conditioning | None:
        """Prompt of the driving video in a clip, by its number from 0."""
        return None if self.driving_prompt is None else clip_prompts.of_clip(self.driving_prompt, index)

    def plan(self) -> ClipPlan:
        """The clips of a video as long as the driving one. ValueError where inputs do not fit."""
        self.raw.check()
        self.strengths.check()
        clips = animate_clip_count(self.raw.frames, self.frames_per_clip, CARRIED)
        return ClipPlan(self.raw.frames, self.frames_per_clip, clips, *self.raw.size)


class Animate2Conditioner:
    """Conditioning of the clips of one video, whose reference is encoded once. picture [1, H, W, 3]: the reference in
    the video's size."""

    def __init__(self, vae: Vae, clip_vision: ClipVision, inputs: Animate2Inputs) -> None:
        self._vae, self._clip_vision, self._inputs = vae, clip_vision, inputs
        self._raw = inputs.raw
        self.picture = self._raw.picture()
        self._features = clip_vision.encode_image(self.picture, crop=False)
        with without_progress():
            self._reference = vae.encode(self.picture)

    def clip(self, prompts: Prompts, segment: AnimateSegment) -> tuple[Prompts, Latent]:
        """Conditioning and empty LATENT of a clip, whose first frame is driven by frame `segment.start` of the driving
        video."""
        inputs, (width, height), carried = self._inputs, self._raw.size, segment.carried
        frames = self._raw.driving(ping_pong(segment.start, inputs.frames_per_clip, self._raw.frames))
        if carried is not None:
            carried = resize_area(rgb(carried), width, height)
        video, known = replaced_frames(inputs.frames_per_clip, (width, height), carried, None, None)
        encoded = torch.cat([self._reference, self._vae.encode(video)], dim=2)
        known = reference_mask_channels(known, *encoded.shape[-2:])
        strengths = inputs.strengths
        shared: dict[str, Any] = {
            "concat_latent_image": encoded,
            "concat_mask": 1 - known[None].to(encoded),  # the host's is 1 where something is to be made
            "clip_vision_output": self._features,
        }
        if strengths.reference_strength != 1.0:
            shared["reference_strength"] = strengths.reference_strength
        driving: dict[str, Any] = {
            "pose_video_latent": self._vae.encode(frames),
            "clip_vision_output_pose": self._clip_vision.encode_image(frames[:1], crop=False),
            "cross_attn_pose": (inputs.driving_prompt_of(segment.index) or prompts.positive)[0][0],
            "driving_cache": inputs.driving_cache,
        }
        if strengths.pose_strength != 1.0:
            driving["pose_strength"] = strengths.pose_strength
        prompts = Prompts(*(_windowed(prompt, driving, strengths) for prompt in prompts.with_values(shared)))
        return prompts, latents.empty(width, height, inputs.frames_per_clip + REFERENCE_FRAMES, 1, self._vae)


def _windowed(prompt: Conditioning, driving: dict[str, Any], strengths: Strengths) -> Conditioning:
    """A prompt with what drives it in its part of the steps, and without in the others."""
    start, end = strengths.start_percent, strengths.end_percent
    parts = [(0.0, start, {}), (start, end, driving), (end, 1.0, {})]
    found = []
    for begin, stop, values in parts:
        if begin < stop:
            window = {} if (begin, stop) == (0.0, 1.0) else {"start_percent": begin, "end_percent": stop}
            found += node_helpers.conditioning_set_values(prompt, values | window)
    return found


def one_clip(
    prompts: Prompts,
    vae: Vae,
    clip_vision: ClipVision,
    inputs: Animate2Inputs,
    *,
    motion_frames: Tensor | None = None,
    frame_offset: int = 0,
) -> tuple[Prompts, Latent, int, int, int]:
    """Conditioning and LATENT of one clip, the latent frames and the frames to trim from what is made of it, and how
    many frames the video then has.

    motion_frames: IMAGE of the frames before it, None for a video's first clip. frame_offset: number of frames of the
    video so far. Raises ValueError where inputs do not fit."""
    preflight.check_vae_of(RELEASE, vae)
    inputs.plan()
    carried, shared = None, 0
    if motion_frames is not None:
        if not len(motion_frames) or frame_offset < CARRIED:
            raise ValueError(
                f"a clip that goes on from another needs its last frame, and motion_frames has {len(motion_frames)} "
                f"at frame_offset {frame_offset}: connect the frames made so far, and the clip before's frame_offset"
            )
        carried, shared = motion_frames[-CARRIED:], CARRIED
    start = frame_offset - shared
    conditioner = Animate2Conditioner(vae, clip_vision, inputs)
    clip = conditioner.clip(prompts, AnimateSegment(0, start, carried))
    return *clip, 1, shared, start + inputs.frames_per_clip


def animate_video(
    models: AnimateModels,
    prompts: Prompts,
    inputs: Animate2Inputs,
    sampling: ClipSampling,
    on_progress: Callable[[str], None],
) -> tuple[Tensor, str]:
    """The whole video, as long as the driving one: IMAGE and one line on what was done.

    on_progress as in `ClipRun`. Raises ValueError where inputs do not fit, before anything is sampled."""
    models.check()
    plan = inputs.plan()
    run = ClipRun(
        models.model,
        prompts,
        plan,
        sampling,
        lambda: _identity(models, inputs),
        on_progress,
        of_clip=cache(lambda index: identity.of_values({"driving_prompt": inputs.driving_prompt_of(index)})),
    )
    conditioner = Animate2Conditioner(models.vae, models.clip_vision, inputs)
    video = inputs.raw.cropped(collect_frames(run, conditioner, models.vae, plan, sampling, CARRIED))
    report = f"{plan.summary}, {plan.frames / FPS:.2f} s{_cache(models.model, plan, inputs.driving_cache)}"
    return video, run.report(report) + _mismatch(models.model, sampling)


def _cache(model: Model, plan: ClipPlan, place: str) -> str:
    """Memory of the driving video's keys and values, where our model is told to keep them, in words."""
    config = getattr(model.model.diffusion_model, "config", None)
    if config is None or place == "off":
        return ""
    shape = (1, config.in_dim, (plan.frames_per_clip - 1) // 4 + 1, plan.height // 8, plan.width // 8)
    item = model.model.diffusion_model.compute_dtype.itemsize
    size = kept_bytes(config, tokens_of(config, shape), item, place)  # type: ignore[arg-type]
    return f"; driving cache {place}: {size / 2**30:.2f} GiB a clip"


def _mismatch(model: Model, sampling: ClipSampling) -> str:
    """A sentence where settings look meant for the other of the two released models."""
    driven = getattr(getattr(model.model.diffusion_model, "config", None), "driven", None)
    if driven is None:
        return ""
    settings = sampling.settings
    if driven.bias and settings.cfg_high != 1:
        return ". The model is the distilled one, which is made for CFG 1 and 10 steps: choose its preset"
    if not driven.bias and settings.cfg_high == 1 and settings.steps <= 10:
        return (
            ". These are settings of the distilled model, and this file says that it is the base model: choose its "
            "preset, or kind 'animate2 distilled' in WanDiTLoader"
        )
    return ""


def _identity(models: AnimateModels, inputs: Animate2Inputs) -> identity.Parts:
    names = ("reference_image", "driving_video", "width", "height", "driving_cache")
    values = {name: getattr(inputs, name) for name in names}
    # all ways to keep them in full give the same
    values["driving_cache"] = "int8" if "int8" in inputs.driving_cache else ""
    return identity.of_values(values) | identity.of_settings(inputs.strengths) | models.identity()
