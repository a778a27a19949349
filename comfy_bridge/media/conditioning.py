"""Images -> conditioning and latents of image-to-video models, under the host's own keys."""

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import comfy.model_management
import node_helpers
import torch
from torch import Tensor

from ...wan_models.families import FAMILIES
from ...wan_models.images.conditioning import known_frames, mask_channels
from ...wan_models.images.keyframes import frames_at, latent_of, snapped
from ...wan_models.images.motion import amplify_motion
from ...wan_models.images.pixels import rgb
from ...wan_models.images.resize import resize, resize_crop
from ...wan_models.images.sizes import check_video_size, size_for_i2v, size_for_ti2v
from ...wan_models.vae import wan22
from ...wan_models.wording import counted
from ..host_types import Conditioning, Latent, Vae
from . import clip_prompts, latents

FIT = ["keep aspect", "exact"]
"""Ways to an image's video size: about the area of width x height in the image's aspect, or exactly that."""

_PICTURE = ("concat_latent_image", "concat_mask")
_FOR_NEGATIVE = "wan_picture_for_negative"
"""Key of a positive prompt whose picture is the negative prompt's too: see `negative_beside`."""


class Prompts(NamedTuple):
    """CONDITIONING of a prompt and of a negative prompt."""

    positive: Conditioning
    negative: Conditioning

    def with_values(self, values: dict[str, Any], negative: dict[str, Any] | None = None) -> "Prompts":
        """Both with these of the host's conditioning keys; `negative` where the negative prompt gets others."""
        return Prompts(
            node_helpers.conditioning_set_values(self.positive, values),
            node_helpers.conditioning_set_values(self.negative, values if negative is None else negative),
        )

    def of_clip(self, index: int) -> "Prompts":
        """Both as they are in a clip of a long video, by its number from 0."""
        return Prompts(*(clip_prompts.of_clip(prompt, index) for prompt in self))

    @property
    def clips(self) -> int:
        """Number of clips after which both stay the same."""
        return max(map(clip_prompts.count, self))


@dataclass(frozen=True)
class VideoShape:
    """Size and length of a video to make: pixels, frames (4n + 1), how an image gets that size (one of FIT), and how
    many videos at once."""

    width: int
    height: int
    frames: int
    fit: str = FIT[0]
    batch_size: int = 1


def check_vae(vae: Vae | None, channels: int, other: str) -> None:
    """Raises ValueError that ends in `other` where the VAE's latents have not that many channels."""
    if vae is None or vae.latent_channels != channels:
        problem = "none is connected" if vae is None else f"the connected one has {vae.latent_channels}"
        raise ValueError(f"this node needs a VAE of {channels} latent channels, and {problem}. {other}")


@dataclass(frozen=True)
class Keyframes:
    """Pictures inside of a video, by the names of the node's inputs.

    keyframes: IMAGE [n, H, W, C]. positions: their n places, see `frames_at`. strength_high, strength_low: how known
    they are to the experts, 0 (left out) to 1 (known). Raises ValueError on other strengths."""

    keyframes: Tensor | None = None
    positions: str = ""
    strength_high: float = 1.0
    strength_low: float = 1.0

    def places(self, frames: int) -> list[int]:
        """The frames that the positions name. ValueError where there are not as many as pictures."""
        images = 0 if self.keyframes is None else len(rgb(self.keyframes))
        places = frames_at(self.positions, frames, FAMILIES["i2v"].release.fps)
        if len(places) != images:
            pictures = counted(images, "image") if images else "nothing connected"
            raise ValueError(
                f"keyframes has {pictures}, and positions names {counted(len(places), 'place')}: give one place for "
                "each image"
            )
        return places


NO_KEYFRAMES = Keyframes()


class ConditionedVideo(NamedTuple):
    """Conditioning and latent of a video. positive_low: the positive of the low-noise expert, the same one where both
    experts get the same conditioning. report: at which frames the keyframes are."""

    prompts: Prompts
    latent: Latent
    positive_low: Conditioning
    report: str


def image_to_video(
    prompts: Prompts,
    vae: Vae,
    shape: VideoShape,
    *,
    start: Tensor | None = None,
    end: Tensor | None = None,
    keyframes: Keyframes = NO_KEYFRAMES,
    clip_vision: Any = None,
    motion_amplitude: float = 1.0,
) -> ConditionedVideo:
    """Conditioning of I2V-A14B and its empty LATENT.

    start, end: IMAGE [n, H, W, C], the first and last frames of the video. clip_vision: CLIP_VISION_OUTPUT, which
    only the Wan2.1 models look at. motion_amplitude: see `amplify_motion`. Raises ValueError where images, places, size
    and VAE do not fit."""
    check_vae(vae, 16, "Load the 2.1 VAE for the 14B models; TI2V-5B takes its image through WanTI2VLatent")
    images = [None if x is None else rgb(x) for x in (start, keyframes.keyframes, end)]
    if (first := next((x for x in images if x is not None), None)) is None:
        raise ValueError(
            "no start_image is connected, and no keyframes or end_image: for video from text alone use a text-to-video "
            "model"
        )
    size = (shape.width, shape.height)
    if shape.fit != "exact":
        size = size_for_i2v(first.shape[2], first.shape[1], shape.width * shape.height)
    check_video_size(*size, shape.frames, 16)
    fit = resize_crop if shape.fit == "exact" else resize  # exact: nothing is stretched, too much is cut off
    start, middle, end = (None if x is None else fit(_like(x, first), *size) for x in images)

    positions = keyframes.places(shape.frames)
    places = snapped(positions, shape.frames, *(0 if x is None else len(x) for x in (start, end)))
    keyframe_at = {} if middle is None else dict(zip(places, middle.split(1), strict=True))

    @cache
    def encode_known(has_keyframes: bool) -> tuple[Tensor, Tensor]:
        """Latents of the video, its unknown frames grey, and which frames are known."""
        video, known = known_frames(start, end, shape.frames, keyframe_at)
        if not has_keyframes:
            video[places], known[places] = 0.5, False
        return amplify_motion(vae.encode(video), known, motion_amplitude), known

    def picture_values(strength: float) -> dict[str, Any]:
        """Conditioning values of the known frames, with the keyframes at that strength."""
        encoded, known = encode_known(strength > 0)
        weights = known.float()
        weights[places] *= strength
        # the host's mask is 1 where something is to be made
        mask = 1 - mask_channels(weights, *encoded.shape[-2:])[None]
        vision = {} if clip_vision is None else {"clip_vision_output": clip_vision}
        return {"concat_latent_image": encoded, "concat_mask": mask, **vision}

    conditioned = prompts.with_values(picture_values(keyframes.strength_high))
    low = conditioned.positive
    if keyframe_at and keyframes.strength_low != keyframes.strength_high:
        low = prompts.with_values(picture_values(keyframes.strength_low) | {_FOR_NEGATIVE: True}).positive
    latent = latents.empty(*size, shape.frames, shape.batch_size, vae)
    return ConditionedVideo(conditioned, latent, low, "\n".join(map(_standing, positions, places)))


def _like(images: Tensor, first: Tensor) -> Tensor:
    """Images [n, H, W, 3], those of another size than the first one's cropped to it."""
    rows, columns = first.shape[1:3]
    return images if images.shape[1:3] == first.shape[1:3] else resize_crop(images, columns, rows)


def _standing(position: int, place: int) -> str:
    latent = latent_of(place)
    text = f"Keyframe at frame {place}, the place of latent {latent}"
    return text if position == place else f"{text}, to which frame {position} belongs"


def negative_beside(positive: Conditioning, negative: Conditioning) -> Conditioning:
    """The negative prompt that goes with a positive one: with its picture, where that is another one for each expert.
    Guidance sets the texts apart, and would set apart the pictures."""
    for _, options in positive:
        if options.get(_FOR_NEGATIVE):
            picture = {name: options[name] for name in _PICTURE}
            return node_helpers.conditioning_set_values(negative, picture)
    return negative


def first_frame_latent(vae: Vae, shape: VideoShape, start: Tensor | None) -> Latent:
    """LATENT of TI2V-5B: empty without an image, else with its first frame known (noise_mask 0).

    Raises ValueError where image, size and VAE do not fit."""
    check_vae(
        vae, 48, "TI2V-5B works with the Wan 2.2 VAE; the 14B models take their image through WanI2VCondition"
    )
    if start is None:
        return latents.empty(shape.width, shape.height, shape.frames, shape.batch_size, vae)
    start = rgb(start)[:1]
    size = (shape.width, shape.height)
    if shape.fit != "exact":
        size = size_for_ti2v(start.shape[2], start.shape[1], shape.width * shape.height)
    latent = latents.empty(*size, shape.frames, shape.batch_size, vae)
    z = vae.encode(resize_crop(start, *size))
    # what the host normalises to zero
    return begun_with(z, wan22.denormalize(torch.zeros_like(latent["samples"])))


def begun_with(z: Tensor, unknown: Tensor) -> Latent:
    """A LATENT whose first latent frames z [1, C, n, h, w] are known and stay as they are; unknown: samples of a video
    of which nothing is known."""
    samples = unknown.clone()
    samples[:, :, : z.shape[2]] = z
    mask = torch.ones(
        samples.shape[0], 1, *samples.shape[2:], device=comfy.model_management.intermediate_device()
    )
    mask[:, :, : z.shape[2]] = 0
    return {"samples": samples, "noise_mask": mask}
