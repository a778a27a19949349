"""I2V-A14B: a video that begins with an image. Source: wan/image2video.py of the official code."""

import torch
from torch import Tensor

from ..images.conditioning import known_frames, mask_channels
from ..images.resize import resize
from ..images.sizes import check_video_size, size_for_i2v
from ..progress import OnProgress
from ..sampling.denoise import denoise
from .base import Picture, Pipeline, Settings, frame_of


class ImageToVideo(Pipeline):
    """Prompt and image -> video, by two experts."""

    family = "i2v"

    def __call__(
        self,
        prompt: str,
        image: Picture,
        settings: Settings | None = None,
        on_progress: OnProgress | None = None,
    ) -> Tensor:
        """The frames [T, H, W, 3] of a video, in 0..1. Its size is about the area of the settings in the image's
        aspect. on_progress(done, total) counts the steps. Raises ValueError where no such video can be made."""
        return self.decode(self.latents(prompt, image, settings or self.settings, on_progress))

    @torch.no_grad()
    def latents(
        self, prompt: str, image: Picture, settings: Settings, on_progress: OnProgress | None = None
    ) -> Tensor:
        """The same before the VAE: normalised latents [1, C, F, h, w]."""
        start = frame_of(image)
        width, height = size_for_i2v(start.shape[2], start.shape[1], settings.width * settings.height)
        check_video_size(width, height, settings.frames, 16)
        positive, negative = self.encode_prompts(prompt, settings)
        video, known = known_frames(resize(start, width, height), None, settings.frames)
        encoded = self.encode(video)
        mask = mask_channels(known, *encoded.shape[-2:])[None].to(encoded)
        y = torch.cat([mask, encoded], dim=1)
        noise = self.noise(self.generator(settings.seed), width, height, settings.frames)
        prompts = {"context": positive}, {"context": negative}
        with self.experts() as experts:
            return denoise(experts, noise, *prompts, settings, y=y, on_progress=on_progress)
