"""The whole video of a character that is driven by another one, clip after clip, for all models that do it."""

from dataclasses import dataclass
from typing import Protocol

import comfy.model_management
from torch import Tensor

from ...wan_models.families import RELEASES
from ...wan_models.sampling.clips import AnimateSegment, animate_clips
from ..host_types import ClipVision, Latent, Model, Vae
from ..media.conditioning import Prompts
from ..models import identity
from . import preflight
from .clip_run import ClipPlan, ClipRun, ClipSampling


@dataclass(frozen=True)
class AnimateModels:
    """The models that animate a character, of a release that does it."""

    model: Model
    vae: Vae
    clip_vision: ClipVision
    release: str

    def check(self) -> None:
        """Raises ValueError where one is missing, or made for something else."""
        preflight.check_family(self.model, RELEASES[self.release].family)
        preflight.check_vae_of(self.release, self.vae)

    def identity(self) -> identity.Parts:
        """Identity of the VAE and the image encoder of a run."""
        vision = identity.of_loaded(self.clip_vision, "the CLIP vision model")
        return identity.of_vae(self.vae) | {"clip_vision": vision}


class Conditioner(Protocol):
    """Conditioning of the clips of one video. picture [1, H, W, 3]: the reference in the video's size."""

    picture: Tensor

    def clip(self, prompts: Prompts, segment: AnimateSegment) -> tuple[Prompts, Latent]: ...


def collect_frames(
    run: ClipRun, conditioner: Conditioner, vae: Vae, plan: ClipPlan, sampling: ClipSampling, carried: int
) -> Tensor:
    """Frames [T, H, W, 3] of all clips of a run, those of a run before among them. carried: last frames of a clip that
    the next one begins with."""

    def denoise(segment: AnimateSegment) -> Tensor:
        run.begin(segment.index)
        conditions, latent = conditioner.clip(run.prompts(segment.index), segment)
        # clips take their noise from one generator, one after the other
        latent["batch_index"] = [segment.index]
        # what comes first is the reference
        return run.sample(segment.index, conditions, latent, sampling.noise, unseen=1)

    made = animate_clips(
        denoise,
        lambda z: vae.decode(z)[0],
        conditioner.picture.to(comfy.model_management.intermediate_device()),
        frames_per_clip=plan.frames_per_clip,
        carried=carried,
        clips=plan.clips,
        done=run.done,
    )
    return run.collect(made)
