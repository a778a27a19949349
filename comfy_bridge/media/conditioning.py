"""Images -> conditioning and latents of image-to-video models, under the host's own keys."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import comfy.model_management
import node_helpers
import torch
from torch import Tensor

from ...wan_models.images.conditioning import known_frames, mask_channels
from ...wan_models.images.pixels import rgb
from ...wan_models.images.resize import resize, resize_crop
from ...wan_models.images.sizes import check_video_size, size_for_i2v, size_for_ti2v
from ...wan_models.vae import wan22
from ..host_types import Conditioning, Latent, Vae
from . import latents

FIT = ["keep aspect", "exact"]
"""Ways to an image's video size: about the area of width x height in the image's aspect, or exactly that."""


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
        found = "none is connected" if vae is None else f"the connected one has {vae.latent_channels}"
        raise ValueError(f"this node needs a VAE of {channels} latent channels, and {found}. {other}")


def image_to_video(
    prompts: Prompts,
    vae: Vae,
    shape: VideoShape,
    *,
    start: Tensor | None,
    end: Tensor | None = None,
    clip_vision: Any = None,
) -> tuple[Prompts, Latent]:
    """Conditioning of I2V-A14B and its empty LATENT.

    start, end: IMAGE [n, H, W, C], the first and last frames of the video. clip_vision: CLIP_VISION_OUTPUT, which
    only the Wan2.1 models look at. Raises ValueError where images, size and VAE do not fit."""
    check_vae(vae, 16, "Load the 2.1 VAE for the 14B models; TI2V-5B takes its image through WanTI2VLatent")
    if start is None:
        if end is not None:
            raise ValueError(
                "an end image needs a start image: image-to-video models make a video that begins with an image. "
                "Connect start_image"
            )
        raise ValueError("no start_image is connected; for video from text alone use a text-to-video model")
    start = rgb(start)
    size = (shape.width, shape.height)
    if shape.fit != "exact":
        size = size_for_i2v(start.shape[2], start.shape[1], shape.width * shape.height)
    check_video_size(*size, shape.frames, 16)
    if end is not None:
        end = rgb(end)
        if end.shape[1:3] != start.shape[1:3]:
            end = resize_crop(end, start.shape[2], start.shape[1])
    # exact: nothing is stretched, what is too much is cut off
    fitted = resize_crop if shape.fit == "exact" else resize
    start, end = (None if x is None else fitted(x, *size) for x in (start, end))

    video, known = known_frames(start, end, shape.frames)
    encoded = vae.encode(video)
    # the host's mask is 1 where something is to be made
    mask = 1 - mask_channels(known, *encoded.shape[-2:])[None]
    values = {"concat_latent_image": encoded, "concat_mask": mask}
    if clip_vision is not None:
        values["clip_vision_output"] = clip_vision
    return prompts.with_values(values), latents.empty(*size, shape.frames, shape.batch_size, vae)


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
    samples = latent["samples"]
    samples[:] = wan22.denormalize(torch.zeros_like(samples))  # what the host normalises to zero
    samples[:, :, : z.shape[2]] = z
    mask = torch.ones(
        shape.batch_size, 1, *samples.shape[2:], device=comfy.model_management.intermediate_device()
    )
    mask[:, :, : z.shape[2]] = 0
    return {"samples": samples, "noise_mask": mask}
