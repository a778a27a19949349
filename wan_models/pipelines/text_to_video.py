"""T2V-A14B: a video from a prompt. Source: wan/text2video.py of the official code."""

import torch
from torch import Tensor

from ..images.sizes import check_video_size
from ..progress import OnProgress
from ..sampling.denoise import denoise
from .base import Pipeline, Settings


class TextToVideo(Pipeline):
    """Prompt -> video, by two experts."""

    family = "t2v"

    def __call__(
        self, prompt: str, settings: Settings | None = None, on_progress: OnProgress | None = None
    ) -> Tensor:
        """The frames [T, H, W, 3] of a video, in 0..1. on_progress(done, total) counts the steps. Raises ValueError on
        sizes that the model cannot make: width and height are multiples of 16, frames 4n + 1."""
        return self.decode(self.latents(prompt, settings or self.settings, on_progress))

    @torch.no_grad()
    def latents(self, prompt: str, settings: Settings, on_progress: OnProgress | None = None) -> Tensor:
        """The same before the VAE: normalised latents [1, C, F, h, w]."""
        check_video_size(settings.width, settings.height, settings.frames, 16)
        positive, negative = self.encode_prompts(prompt, settings)
        noise = self.noise(self.generator(settings.seed), settings.width, settings.height, settings.frames)
        prompts = {"context": positive}, {"context": negative}
        with self.experts() as experts:
            return denoise(experts, noise, *prompts, settings, on_progress=on_progress)
