"""Videos of any length by image-to-video and text-to-video models, clip after clip."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import NamedTuple, Protocol

import comfy.model_management
import torch
from torch import Tensor

from ...wan_models.families import FAMILIES, RELEASES
from ...wan_models.images.conditioning import known_frames, mask_channels
from ...wan_models.images.pixels import rgb
from ...wan_models.images.resize import resize, resize_crop
from ...wan_models.images.sizes import check_video_size, size_for_i2v
from ...wan_models.sampling.long_clips import (
    COLOUR_MATCH,
    LongSegment,
    Overlap,
    long_clip_count,
    long_clips,
)
from ...wan_models.vae import wan21
from ..host_types import Latent, Vae
from ..media import latents
from ..media.conditioning import FIT, Prompts, VideoShape, begun_with, check_vae, image_to_video
from ..media.film import Film
from ..models import identity
from ..progress import without_progress
from . import preflight
from .clip_run import ClipPlan, ClipRun, ClipSampling, OutputChoice
from .experts import Experts, check_pair

FPS = RELEASES["I2V-A14B"].fps
RATE = Fraction(FPS)
MODES = FRAMES, SVI = "last frames", "SVI 2.0 Pro"
"""Input from the clip before: its last frames, encoded again, or its last latents, as the SVI 2.0 Pro
LoRAs are trained."""
MOST_OVERLAP = 4
_LATENTS = "latents"


@dataclass(frozen=True)
class LongModels:
    """The models that make a long video."""

    experts: Experts
    vae: Vae

    def check(self) -> None:
        """Raises ValueError where one is missing, or made for something else."""
        for model in (self.experts.high, self.experts.low):
            if (kind := preflight.family(model)) not in ("i2v", "t2v"):
                description = FAMILIES[kind].in_words() if kind else "none of those"
                raise ValueError(
                    "this is a node for I2V-A14B, or T2V-A14B for video from text alone; the connected model is "
                    f"{description}: load wan/I2V-A14B"
                )
        check_pair(self.experts)
        check_vae(self.vae, 16, "The 14B models work with the 2.1 VAE")

    @property
    def see_images(self) -> bool:
        """Whether they are image-to-video models."""
        return preflight.family(self.experts.high) == "i2v"


@dataclass(frozen=True, kw_only=True)
class LongVideoInputs:
    """Inputs of a long video. reference_image, end_image: IMAGE that it begins and ends with. width, height, fit: as in
    `VideoShape`. clips: 0 for as many as `seconds` need. overlap_latents: how much of a clip the next one begins with,
    in latent frames. mode: one of MODES. colour_match: one of COLOUR_MATCH."""

    reference_image: Tensor | None = None
    end_image: Tensor | None = None
    width: int
    height: int
    clips: int
    seconds: float
    frames_per_clip: int
    overlap_latents: int = 1
    mode: str = FRAMES
    colour_match: str = COLOUR_MATCH[0]
    fit: str = FIT[0]

    @property
    def overlap(self) -> Overlap:
        """Overlap of a clip with the one before."""
        kind = Overlap.of_latents if self.mode == SVI else Overlap.of_frames
        return kind(self.overlap_latents)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the video."""
        if self.reference_image is None or self.fit == "exact":
            return self.width, self.height
        rows, columns = self.reference_image.shape[1:3]
        return size_for_i2v(columns, rows, self.width * self.height)

    def plan(self) -> ClipPlan:
        """The clips of the video; whole ones where it has an end image. ValueError where they cannot be made."""
        per_clip, overlap = self.frames_per_clip, self.overlap
        check_video_size(*self.size, per_clip, 16, "frames_per_clip")
        if not self.clips and not self.seconds:
            raise ValueError("clips and seconds are both 0: say how many clips, or how many seconds, to make")
        frames = max(1, round(self.seconds * FPS))
        clips = self.clips or long_clip_count(frames, per_clip, overlap)
        if self.clips or self.end_image is not None:
            frames = per_clip + (clips - 1) * (per_clip - overlap.dropped)
        if clips > 1:
            long_clip_count(frames, per_clip, overlap)
        return ClipPlan(frames, per_clip, clips, *self.size)

    def check(self, see_images: bool, clips: int) -> None:
        """Raises ValueError where the models cannot make this; see_images: whether they take pictures."""
        if see_images and self.reference_image is None:
            raise ValueError(
                "no reference_image is connected, and image-to-video models make a video that begins with one: connect "
                "an image, or load a text-to-video model"
            )
        if not see_images and self.mode == SVI:
            raise ValueError(
                "the SVI LoRAs are for image-to-video models, and this is a text-to-video model: load wan/I2V-A14B, or "
                f"set mode to {FRAMES!r}"
            )
        if not see_images and self.end_image is not None:
            raise ValueError(
                "a text-to-video model cannot end with a picture: load wan/I2V-A14B, or disconnect end_image"
            )
        if clips > 1 and not self.overlap_latents:
            if not see_images:
                raise ValueError(
                    "with overlap_latents 0 each clip of a text-to-video model would be a video of its own: set 1 or "
                    "more"
                )
            if self.colour_match == "mean-std":
                raise ValueError(
                    "colour_match 'mean-std' compares the frames that two clips share, and with overlap_latents 0 they "
                    "share none: choose 'to clip 1', or set overlap_latents to 1 or more"
                )


class Conditioner(Protocol):
    """Conditioning of the clips of one video."""

    def clip(self, prompts: Prompts, segment: LongSegment) -> tuple[Prompts, Latent]: ...


class FramesConditioner:
    """Clips of image-to-video models: the first one begins with the reference, the others with the last frames before
    them, and the last one ends with the end image; each as Wan Image to Video does it."""

    def __init__(self, vae: Vae, inputs: LongVideoInputs, plan: ClipPlan) -> None:
        self._vae, self._inputs, self._plan = vae, inputs, plan

    def clip(self, prompts: Prompts, segment: LongSegment) -> tuple[Prompts, Latent]:
        """Conditioning and empty LATENT of a clip."""
        inputs, plan = self._inputs, self._plan
        start, shape = segment.past, VideoShape(*plan.size, plan.frames_per_clip, "exact")
        if start is None:
            start, shape = (
                inputs.reference_image,
                replace(shape, width=inputs.width, height=inputs.height, fit=inputs.fit),
            )
        end = inputs.end_image if segment.index == plan.clips - 1 else None
        return image_to_video(prompts, self._vae, shape, start=start, end=end)[:2]


class LatentsConditioner:
    """Clips of image-to-video models with the SVI 2.0 Pro LoRAs, whose reference is encoded once: after it stand the
    last latents of the clip before, then nothing. Only the reference is marked as known, and an end image."""

    def __init__(self, vae: Vae, inputs: LongVideoInputs, plan: ClipPlan) -> None:
        self._vae, self._plan = vae, plan
        fit = resize_crop if inputs.fit == "exact" else resize
        assert inputs.reference_image is not None
        self._picture = fit(rgb(inputs.reference_image)[:1], *plan.size)
        self._end = None if inputs.end_image is None else resize_crop(rgb(inputs.end_image)[-1:], *plan.size)
        with without_progress():
            self._reference = vae.encode(self._picture)

    def clip(self, prompts: Prompts, segment: LongSegment) -> tuple[Prompts, Latent]:
        """Conditioning and empty LATENT of a clip."""
        plan = self._plan
        latent = latents.empty(*plan.size, plan.frames_per_clip, 1, self._vae)
        end = self._end if segment.index == plan.clips - 1 else None
        video, known = known_frames(self._picture, end, plan.frames_per_clip)
        parts = [self._reference] if segment.latents is None else [self._reference, segment.latents]
        begin = torch.cat([part.to(self._reference) for part in parts], dim=2)
        # what the host normalises to zero
        encoded = wan21.denormalize(torch.zeros_like(latent["samples"], device=begin.device))
        encoded[:, :, : begin.shape[2]] = begin
        if end is not None:
            encoded[:, :, -1:] = self._vae.encode(video)[:, :, -1:]
        # the host's mask is 1 where something is to be made
        mask = 1 - mask_channels(known, *encoded.shape[-2:])[None]
        return prompts.with_values({"concat_latent_image": encoded, "concat_mask": mask}), latent


class TextConditioner:
    """Clips of text-to-video models, which are shown no pictures: the frames that a clip begins with, encoded, are held
    in its latent while the rest is made. The first clip begins with the reference, or with nothing."""

    def __init__(self, vae: Vae, inputs: LongVideoInputs, plan: ClipPlan) -> None:
        self._vae, self._plan, self._first = vae, plan, None
        if inputs.reference_image is not None:
            fit = resize_crop if inputs.fit == "exact" else resize
            self._first = fit(rgb(inputs.reference_image)[:1], *plan.size)

    def clip(self, prompts: Prompts, segment: LongSegment) -> tuple[Prompts, Latent]:
        """The prompts as they are, and the LATENT of a clip."""
        latent = latents.empty(*self._plan.size, self._plan.frames_per_clip, 1, self._vae)
        start = self._first if segment.past is None else segment.past
        if start is None:
            return prompts, latent
        # what the host normalises to zero
        unknown = wan21.denormalize(torch.zeros_like(latent["samples"]))
        return prompts, begun_with(self._vae.encode(start), unknown)


class LongVideo(NamedTuple):
    """A long video: its frames as IMAGE and as a film, of which one may be missing, and one line on what was done."""

    frames: Tensor | None
    film: Film | None
    report: str


def long_video(
    models: LongModels,
    prompts: Prompts,
    inputs: LongVideoInputs,
    sampling: ClipSampling,
    on_progress: Callable[[str], None],
    choice: OutputChoice,
) -> LongVideo:
    """The whole video. on_progress as in `ClipRun`. Raises ValueError where inputs do not fit, before anything is
    sampled."""
    models.check()
    plan = inputs.plan()
    inputs.check(models.see_images, plan.clips)
    output = choice.open(plan.size, FPS)
    run = ClipRun(
        models.experts,
        prompts,
        plan,
        sampling,
        lambda: _identity(models, inputs, plan),
        on_progress,
        of_clip=_end_of_clip(inputs, plan),
        output=output,
    )
    conditioner = _conditioner(models, inputs, plan)
    overlap = inputs.overlap

    def denoise(segment: LongSegment) -> Tensor:
        run.begin(segment.index)
        conditions, latent = conditioner.clip(run.prompts(segment.index), segment)
        noise = replace(sampling.noise, seed=sampling.noise.seed + segment.index)
        again = (overlap.dropped + 3) // 4 if segment.index else 0
        samples = run.sample(segment.index, conditions, latent, noise, unseen=again)
        if overlap.latents:
            run.keep_beside({_LATENTS: samples[:, :, -overlap.latents :]})
        return samples

    clips = long_clips(
        denoise,
        lambda z: models.vae.decode(z)[0],
        torch.zeros(1, plan.height, plan.width, 3, device=comfy.model_management.intermediate_device()),
        overlap,
        plan.clips,
        colour_match=inputs.colour_match,
        done=run.done,
        latents=run.done.beside(_LATENTS),
    )
    video = run.collect(clips)
    report = f"{plan.summary}, {plan.frames / FPS:.2f} s"
    return LongVideo(
        video if output.frames else None, output.film, run.report(report) + _without_lora(models, inputs)
    )


def _without_lora(models: LongModels, inputs: LongVideoInputs) -> str:
    """A sentence where the SVI LoRAs are missing."""
    if inputs.mode != SVI or (models.experts.high.patches and models.experts.low.patches):
        return ""
    return ". A model has no LoRA: this mode is for the pair of SVI 2.0 Pro LoRAs, one on each expert"


def _conditioner(models: LongModels, inputs: LongVideoInputs, plan: ClipPlan) -> Conditioner:
    if not models.see_images:
        return TextConditioner(models.vae, inputs, plan)
    kind = LatentsConditioner if inputs.mode == SVI else FramesConditioner
    return kind(models.vae, inputs, plan)


def _identity(models: LongModels, inputs: LongVideoInputs, plan: ClipPlan) -> identity.Parts:
    values = {
        name: getattr(inputs, name)
        for name in ("reference_image", "overlap_latents", "mode", "colour_match", "fit")
    }
    values |= {"width": plan.width, "height": plan.height}
    return identity.of_values(values) | identity.of_vae(models.vae)


def _end_of_clip(inputs: LongVideoInputs, plan: ClipPlan) -> Callable[[int], identity.Parts]:
    """Identity of the end image, in the clip that ends with it."""
    if inputs.end_image is None:
        return lambda index: {}
    end = identity.of_values({"end_image": inputs.end_image})
    return lambda index: end if index == plan.clips - 1 else {}
