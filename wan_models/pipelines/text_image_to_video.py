"""TI2V-5B: a video from a prompt, with an image or without. Source: wan/textimage2video.py of the official code."""

import torch
from torch import Tensor

from ..images.resize import resize_crop
from ..images.sizes import check_video_size, size_for_ti2v
from ..progress import OnProgress
from ..sampling.denoise import denoise
from .base import Picture, Pipeline, Settings, frame_of


class TextImageToVideo(Pipeline):
    """Prompt, and image if there is one -> video."""

    family = "ti2v"

    def __call__(
        self,
        prompt: str,
        image: Picture | None = None,
        settings: Settings | None = None,
        on_progress: OnProgress | None = None,
    ) -> Tensor:
        """The frames [T, H, W, 3] of a video, in 0..1. With an image its size is at most the area of the settings, in
        about the image's aspect; else width and height are multiples of 32. on_progress(done, total) counts the steps.
        Raises ValueError where no such video can be made."""
        return self.decode(self.latents(prompt, image, settings or self.settings, on_progress))

    @torch.no_grad()
    def latents(
        self, prompt: str, image: Picture | None, settings: Settings, on_progress: OnProgress | None = None
    ) -> Tensor:
        """The same before the VAE: normalised latents [1, C, F, h, w]."""
        size, known = (settings.width, settings.height), None
        if image is not None:
            start = frame_of(image)
            size = size_for_ti2v(start.shape[2], start.shape[1], settings.width * settings.height)
        check_video_size(*size, settings.frames, 32)
        positive, negative = self.encode_prompts(prompt, settings)
        if image is not None:
            known = self.encode(resize_crop(start, *size))  # kept as the first latent frame
        noise = self.noise(self.generator(settings.seed), *size, settings.frames)
        prompts = {"context": positive}, {"context": negative}
        with self.experts() as experts:
            return denoise(experts, noise, *prompts, settings, known=known, on_progress=on_progress)
