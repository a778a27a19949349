"""Character animation: the conditioning of one clip in the host's own keys, and the whole video, clip after clip."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import comfy.model_management
import node_helpers
import torch
from einops import rearrange
from torch import Tensor

from ...wan_models.config import FaceConfig
from ...wan_models.families import RELEASES
from ...wan_models.images.conditioning import mask_channels, replaced_frames
from ...wan_models.images.pixels import rgb
from ...wan_models.images.resize import centre_square, letterbox, resize_area
from ...wan_models.sampling.clips import AnimateSegment, animate_clip_count, animate_clips, ping_pong
from ..media import conditioning, latents
from ..models import identity
from ..progress import without_progress
from . import preflight, run
from .clip_run import ClipRun

FPS = RELEASES["Animate-14B"].fps
FACE_SIZE = FaceConfig().size
_MULTIPLE = 16
_VAE = "Animate-14B works with the 2.1 VAE"
_REFERENCE_FRAMES = 4  # as many more frames as the reference's latent frame stands for


@dataclass(frozen=True)
class Driving:
    """What leads the character, frame by frame, as IMAGE and MASK of `frames` frames each; a face, background or mask
    of a single frame stands for all frames."""

    pose: Tensor
    face: Tensor
    background: Tensor | None
    mask: Tensor | None

    def check(self) -> None:
        """ValueError where these do not belong together."""
        frames = self.pose.shape[0]
        given = (("face_video", self.face), ("background_video", self.background), ("mask", self.mask))
        for name, video in given:
            if video is not None and video.shape[0] not in (1, frames):
                raise ValueError(
                    f"{name} has {video.shape[0]} frames and pose_video {frames}: make both of the same frames of the "
                    "driving video, or give one frame that stands for all"
                )
        if (self.background is None) != (self.mask is None):
            there, missing = ("mask", "background_video")[:: 1 if self.background is None else -1]
            raise ValueError(
                f"there is a {there} but no {missing}: connect both to put the character into a video, neither to "
                "animate the reference image"
            )
        if self.mask is not None and not bool((self.mask > 0).any()):
            raise ValueError(
                "the mask is empty in every frame: there is nobody to take the place of. Look at what WanSubjectMask "
                "shows, and choose the person or draw a mask"
            )

    @property
    def frames(self) -> int:
        return self.pose.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the video: the pose video's, to the nearest that the model can make."""
        height, width = (max(_MULTIPLE, round(n / _MULTIPLE) * _MULTIPLE) for n in self.pose.shape[1:3])
        return width, height

    def part(self, rows: list[int]) -> "Driving":
        """These frames, the pictures of the size they are needed in."""
        width, height = self.size

        def pick(video: Tensor) -> Tensor:
            return video[:1].expand(len(rows), *video.shape[1:]) if video.shape[0] == 1 else video[rows]

        face = self.face if self.face.shape[0] == 1 else self.face[rows]
        face = resize_area(centre_square(rgb(face)), FACE_SIZE, FACE_SIZE)
        background, mask = (None if x is None else pick(x) for x in (self.background, self.mask))
        return Driving(
            resize_area(rgb(pick(self.pose)), width, height),
            face.expand(len(rows), -1, -1, -1),
            None if background is None else resize_area(rgb(background), width, height),
            mask,
        )


class Scene:
    """The reference and what leads it, of which each clip's conditioning is made."""

    def __init__(self, vae: Any, clip_vision: Any, reference: Tensor, driving: Driving) -> None:
        conditioning.check_vae(vae, 16, _VAE)
        driving.check()
        self.vae, self.driving = vae, driving
        self.picture = letterbox(rgb(reference)[:1], *driving.size)
        self._seen = clip_vision.encode_image(self.picture, crop=False)
        with without_progress():
            self._reference = vae.encode(self.picture)

    def clip(
        self,
        positive: Any,
        negative: Any,
        rows: list[int],
        carried: Tensor | None,
        strength: float = 1.0,
    ) -> tuple[Any, Any, dict]:
        """Conditioning (positive, negative) and empty LATENT of the clip of these frames of the driving video;
        carried [n, H, W, 3]: the frames it begins with."""
        lead, (width, height) = self.driving.part(rows), self.driving.size
        if carried is not None:
            carried = resize_area(rgb(carried), width, height)
        video, known = replaced_frames(len(rows), (width, height), carried, lead.background, lead.mask)
        encoded = torch.cat([self._reference, self.vae.encode(video)], dim=2)
        rows_known = mask_channels(known, *encoded.shape[-2:])
        known = torch.cat([torch.ones_like(rows_known[:, :1]), rows_known], dim=1)
        face = rearrange(lead.face, "t h w c -> 1 c t h w") * 2 - 1
        shared = {
            "concat_latent_image": encoded,
            "concat_mask": 1 - known[None].to(encoded),  # the host's is 1 where something is to be made
            "pose_video_latent": self.vae.encode(lead.pose),
            "clip_vision_output": self._seen,
        }
        if strength != 1.0:
            shared["face_strength"] = strength
        positive, negative = (
            node_helpers.conditioning_set_values(given, {**shared, "face_video_pixels": pixels})
            # the neutral face of classifier-free guidance is black
            for given, pixels in ((positive, face), (negative, face.new_tensor(-1.0).expand(face.shape)))
        )
        return positive, negative, latents.empty(width, height, len(rows) + _REFERENCE_FRAMES, 1, self.vae)


def one_clip(
    positive: Any,
    negative: Any,
    vae: Any,
    clip_vision: Any,
    reference: Tensor,
    driving: Driving,
    frames: int,
    offset: int,
    past: Tensor | None,
    carried: int,
    strength: float,
) -> tuple[Any, Any, dict, int, int, int]:
    """Conditioning and LATENT of one clip of `frames` frames, the latent frames and the frames to trim from what is
    made of it, and how many frames the video then has.

    offset: frames of the video so far, whose last ones are `past`."""
    animate_clip_count(driving.frames, frames, carried)
    kept = None if past is None else past[-carried:]
    shared = 0 if kept is None else kept.shape[0]
    if kept is not None and (shared != carried or offset < shared):
        raise ValueError(
            f"a clip that carries {carried} frames needs the {carried} frames before it, and motion_frames has "
            f"{past.shape[0]} at frame_offset {offset}: connect the frames made so far, and the frame_offset of the "
            "clip before"
        )
    start = offset - shared
    rows = ping_pong(start, frames, driving.frames)
    scene = Scene(vae, clip_vision, reference, driving)
    positive, negative, latent = scene.clip(positive, negative, rows, kept, strength)
    return positive, negative, latent, 1, shared, start + frames


def animate_video(
    model: Any,
    positive: Any,
    negative: Any,
    vae: Any,
    clip_vision: Any,
    reference: Tensor,
    driving: Driving,
    frames_per_clip: int,
    carried: int,
    strength: float,
    settings: run.Settings,
    seed: int,
    noise_source: str,
    folder: str,
    tell: Callable[[str], None],
) -> tuple[Tensor, str]:
    """The whole video, as long as the driving one: IMAGE and one line on what was done.

    folder and tell as in `ClipRun`. Raises ValueError where inputs do not fit, before anything is sampled."""
    preflight.check_family(model, "animate")
    frames = driving.frames
    clips = animate_clip_count(frames, frames_per_clip, carried)
    conditioning.check_vae(vae, 16, _VAE)
    driving.check()

    @cache
    def inputs() -> identity.Parts:
        given = {
            "reference_image": reference,
            "pose_video": driving.pose,
            "face_video": driving.face,
            "background_video": driving.background,
            "mask": driving.mask,
            "face_strength": strength,
            "seed": seed,
            "noise_source": noise_source,
            "frames_per_clip": frames_per_clip,
            "carried_frames": carried,
        }
        seen = {"clip_vision": identity.of_loaded(clip_vision, "the CLIP vision model")}
        return identity.of_inputs(given, vae, settings) | seen

    def described() -> identity.Parts:
        return inputs() | identity.of_prompts(positive, negative)

    whole = ClipRun(model, settings.steps, clips, frames, driving.size, folder, described, tell)
    scene = Scene(vae, clip_vision, reference, driving)

    def show(step: int, denoised: Tensor, x: Tensor, total: int) -> None:
        whole.step(step, denoised[:, :, 1:], x, total)  # what comes first is the reference

    def denoise(clip: AnimateSegment) -> Tensor:
        whole.begin(clip.index)
        rows = ping_pong(clip.start, frames_per_clip, frames)
        *conditions, latent = scene.clip(positive, negative, rows, clip.carried, strength)
        latent["batch_index"] = [clip.index]  # clips take their noise from one generator, one after the other
        out, _ = run.run(model, model, *conditions, latent, settings, seed, noise_source, callback=show)
        return out["samples"]

    made = animate_clips(
        denoise,
        lambda z: vae.decode(z)[0],
        scene.picture.to(comfy.model_management.intermediate_device()),
        frames_per_clip,
        carried,
        clips,
        whole.done,
    )
    video = whole.collect(made)
    report = f"{frames} frames in {clips} clips of {frames_per_clip}, {carried} carried, {frames / FPS:.2f} s"
    return video, whole.report(report)
