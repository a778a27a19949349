"""The families of diffusion models, one entry each: how they are told apart, the class of their network, and how the
released model is sampled. Another one is a file in `dit` and an entry here.

`Release` holds what cannot be read off a checkpoint. Source of every figure: the configs of the official Wan2.2 code.
Nothing here imports torch, for the command line, which needs only the figures.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .registry import resolve

if TYPE_CHECKING:
    from .dit.base import WanModel


@dataclass(frozen=True)
class Release:
    """Sampling settings of one released model: the official defaults of its task.

    `boundary` is the noise level in 0..1 from which the high-noise expert runs (None: one expert).
    `guidance` holds the CFG scale of the low-noise and of the high-noise expert, in the official order.
    `size` is the width and height of a video of which nothing else is said."""

    name: str
    family: str
    shift: float
    steps: int
    guidance: tuple[float, float]
    solver: str
    fps: int
    frames: int
    boundary: float | None = None
    vae: str = "2.1"
    size: tuple[int, int] = (832, 480)


@dataclass(frozen=True)
class Family:
    """A kind of diffusion model.

    description: in words. network: class of the network, by its path in this package. channels: of latents, in (with
    conditioning) and out. part: beginning of the names of weights that only this family has, empty for none."""

    release: Release
    description: str
    network: str
    channels: tuple[int, int]
    part: str = ""

    def in_words(self, noun: str = "model") -> str:
        """One of them, in words: "an image-to-video model"."""
        if " from " in self.description:
            return f"a {noun} for {self.description}"
        return f"{'an' if self.description[0] in 'aeiou' else 'a'} {self.description} {noun}"

    @property
    def name(self) -> str:
        """As in `DiTConfig.family`."""
        return self.release.family

    @property
    def network_class(self) -> type["WanModel"]:
        return resolve(self.network)


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            Release("T2V-A14B", "t2v", 12.0, 40, (3.0, 4.0), "unipc", 16, 81, boundary=0.875),
            "text-to-video", "dit.base.WanModel", (16, 16),
        ),
        Family(
            Release("I2V-A14B", "i2v", 5.0, 40, (3.5, 3.5), "unipc", 16, 81, boundary=0.900),
            "image-to-video", "dit.base.WanModel", (36, 16),
        ),
        Family(
            Release("TI2V-5B", "ti2v", 5.0, 50, (5.0, 5.0), "unipc", 24, 121, vae="2.2", size=(1280, 704)),
            "text-and-image-to-video", "dit.base.WanModel", (48, 48),
        ),
        Family(
            Release("S2V-14B", "s2v", 3.0, 40, (4.5, 4.5), "unipc", 16, 80),
            "speech-to-video", "dit.speech.WanSpeechModel", (16, 16), part="casual_audio_encoder.",
        ),
        Family(
            Release("Animate-14B", "animate", 5.0, 20, (1.0, 1.0), "dpm++", 30, 77),
            "character animation", "dit.animate.WanAnimateModel", (36, 16), part="face_adapter.",
        ),
        # told apart from i2v, whose weights it has, by what its file says of itself: `checkpoints.variants`
        Family(
            Release("Animate-2-14B", "animate2", 5.0, 40, (3.0, 3.0), "dpm++", 24, 81, size=(640, 800)),
            "character animation from a raw video", "dit.animate2.WanAnimate2Model", (36, 16),
        ),
    )
}  # fmt: skip
RELEASES: dict[str, Release] = {family.release.name: family.release for family in FAMILIES.values()}
DISTILLED: dict[str, Release] = {
    name: replace(RELEASES[release], name=name, shift=5.0, steps=4, guidance=(1.0, 1.0), solver="euler")
    for name, release in (("T2V-A14B 4-step LoRA", "T2V-A14B"), ("I2V-A14B 4-step LoRA", "I2V-A14B"))
}
"""Sampling of the models under lightx2v's 4-step LoRAs: at noise levels 1, 0.9375, 0.8333 and 0.625, two above
the boundary and two below, without guidance."""

DISTILLED_MODELS: dict[str, Release] = {
    "Animate-2-14B distilled": replace(
        RELEASES["Animate-2-14B"],
        name="Animate-2-14B distilled",
        steps=10,
        guidance=(1.0, 1.0),
        solver="euler",
    )
}
"""Sampling of released models of few steps, which need no LoRA."""


def find_family(channels: tuple[int, int], has: Callable[[str], bool]) -> Family | None:
    """The family of a network with these channels in and out; has(part) tells whether a `part` is in it."""
    special = (family for family in FAMILIES.values() if family.part and has(family.part))
    plain = (family for family in FAMILIES.values() if not family.part and family.channels == channels)
    return next(special, None) or next(plain, None)
