"""Base of the pipelines: the models of a release, the device that these take turns on, prompts, noise, the VAE."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor, nn
from typing_extensions import Self

from .. import rope
from ..audio.wav2vec import Wav2Vec
from ..checkpoints.release_folder import ReleaseFolder
from ..config import NEGATIVE_PROMPT
from ..dit.base import WanModel
from ..families import FAMILIES, Release
from ..images.pixels import rgb
from ..models import load_audio_encoder, load_dit, load_image_encoder, load_text_encoder, load_vae
from ..progress import OnProgress
from ..sampling.denoise import Experts, SamplingSettings, Velocity
from ..vae.streaming import Autoencoder
from ..vision.clip import VisionTransformer, preprocess

Picture = Tensor | Image.Image
"""[H, W, 3] or [1, H, W, 3] in 0..1, or PIL's."""


@dataclass(frozen=True)
class Settings(SamplingSettings):
    """Settings of a video; `dataclasses.replace` changes the official ones of a pipeline.

    width, height: in pixels; models that begin with an image take about their area in the image's aspect. frames: of
    the video, or of each clip of a long one."""

    width: int
    height: int
    frames: int
    seed: int = 0
    negative_prompt: str = NEGATIVE_PROMPT

    @classmethod
    def of_release(cls, release: Release) -> Self:
        """The official settings."""
        r = release
        return cls(r.steps, r.shift, r.guidance, r.solver, r.boundary, *r.size, r.frames)


class EncodesText(Protocol):
    """A text encoder: prompt -> [1, L, dim] on its network's device."""

    @property
    def network(self) -> nn.Module: ...

    def __call__(self, prompt: str) -> Tensor: ...


@dataclass
class Models:
    """The models of a release; `dit` is the low-noise expert where there are two, `dit_high` the other one."""

    dit: WanModel
    vae: Autoencoder
    text_encoder: EncodesText
    dit_high: WanModel | None = None
    audio_encoder: Wav2Vec | None = None
    image_encoder: VisionTransformer | None = None

    @classmethod
    def from_folder(cls, folder: str | Path, dtype: torch.dtype) -> Self:
        """Opens those of a release's folder, on the CPU; dtype: of the diffusion models. Raises CheckpointError."""
        release = ReleaseFolder(folder)
        low, high = release.find_experts()
        dit = load_dit(low, dtype=dtype)
        return cls(
            dit,
            load_vae(release.find("vae")),
            load_text_encoder(release.find("t5")),
            None if high is None else load_dit(high, dtype=dtype),
            load_audio_encoder(release.find("wav2vec2")) if dit.config.family == "s2v" else None,
            load_image_encoder(release.find("clip_vision"))
            if dit.config.family in ("animate", "animate2")
            else None,
        )


class Pipeline:
    """One model at a time is on the device, the others wait on the CPU. Latents are normalised [1, C, F, h, w], frames
    [T, H, W, 3] in 0..1. Raises ValueError where the models are of another family."""

    family: ClassVar[str]

    def __init__(self, models: Models, device: torch.device | str = "cpu") -> None:
        family = FAMILIES[models.dit.config.family]
        if family.name != self.family:
            raise ValueError(
                f"{type(self).__name__} is for {FAMILIES[self.family].description}, and this model for "
                f"{family.description}"
            )
        self.models, self.device = models, torch.device(device)
        self.release = family.release
        self.settings = Settings.of_release(family.release)
        self._placed: nn.Module | None = None

    @classmethod
    def from_folder(
        cls, folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.bfloat16
    ) -> Self:
        """The pipeline of a release's folder, as it was downloaded. dtype: of the diffusion model's weights and
        computation, the official one unless another is given. Raises ValueError where something is missing."""
        return cls(Models.from_folder(folder, dtype), device)

    def place(self, module: nn.Module) -> None:
        """Puts a model on the device, in the place of the one that was there."""
        if self._placed is not module:
            if self._placed is not None:
                self._placed.to("cpu")
            module.to(self.device)
            self._placed = module

    def encode_prompts(self, prompt: str, settings: Settings) -> tuple[Tensor, Tensor]:
        """Text features of a prompt and of the negative one, [1, L, dim] each."""
        self.place(self.models.text_encoder.network)
        encode = self.models.text_encoder
        return encode(prompt), encode(settings.negative_prompt)

    def encode(self, frames: Tensor) -> Tensor:
        """Frames -> latents."""
        self.place(self.models.vae)
        video = rearrange(frames.to(self.device), "t h w c -> 1 c t h w") * 2 - 1
        return self.models.vae.statistics.normalize(self.models.vae.encode(video))

    def encode_image(self, picture: Tensor) -> Tensor:
        """A picture [1, H, W, 3] -> CLIP features [1, 257, C] in float32."""
        tower = self.models.image_encoder
        assert tower is not None
        self.place(tower)
        pictures = preprocess(picture.to(self.device), tower.config.image_size)
        return tower(pictures.to(tower.cls_embedding.dtype))[0].float()

    def decode(self, latents: Tensor) -> Tensor:
        """Latents -> frames on the CPU."""
        self.place(self.models.vae)
        video = self.models.vae.decode(self.models.vae.statistics.denormalize(latents))
        return (rearrange(video, "1 c t h w -> t h w c").float().cpu() + 1) / 2

    def generator(self, seed: int) -> torch.Generator:
        """Source of noise on the device, as in the official code."""
        return torch.Generator(self.device).manual_seed(seed)

    def noise(self, generator: torch.Generator, width: int, height: int, frames: int) -> Tensor:
        """Noise of a video's latents."""
        config = self.models.vae.config
        time, down, across = config.stride
        shape = (1, config.z_dim, (frames - 1) // time + 1, height // down, width // across)
        return torch.randn(shape, generator=generator, device=self.device)

    @contextmanager
    def experts(self) -> Iterator[Experts]:
        """The diffusion models as `denoise` takes them; each is put on the device when it is its turn."""
        high = self.models.dit_high
        try:
            yield Experts(
                self._placed_velocity(self.models.dit), None if high is None else self._placed_velocity(high)
            )
        finally:
            rope.clear()

    def _placed_velocity(self, model: WanModel) -> Velocity:
        def velocity(x: Tensor, t: Tensor, **inputs: Any) -> Tensor:
            self.place(model)
            return model(x, t, **inputs)

        return velocity


def grid_of(latents: Tensor) -> tuple[int, int, int]:
    """Frames, height and width of latents [B, C, F, h, w]."""
    _, _, frames, height, width = latents.shape
    return frames, height, width


def clip_progress(on_progress: OnProgress | None, index: int, clips: int) -> OnProgress | None:
    """on_progress of the steps of all clips, as that of the steps of clip `index`."""
    return on_progress and (lambda done, total: on_progress(index * total + done, clips * total))


def frame_of(picture: Picture) -> Tensor:
    """A picture as one frame [1, H, W, 3] in 0..1."""
    if isinstance(picture, Image.Image):
        picture = torch.from_numpy(np.array(picture.convert("RGB"))).float() / 255
    return rgb(picture)[:1]
