"""The trainings of all miniatures, in the order in which they stand on each other."""

import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch

from wan_models.config import DiTConfig, VAEConfig
from wan_models.dit.base import WanModel
from wan_models.families import RELEASES
from wan_models.models import load_dit, load_text_encoder
from wan_models.text.encoder import TextEncoder

from . import sizes
from .animation import Moves, make_image_encoder, make_moves
from .autoencoder import make_autoencoder
from .clips import Clips, image_clips, make_clips, text_clips
from .distill import captions_of, journeys, make_lora, write_lora
from .driven import Driven, make_driven
from .experts import Draws, NoiseRange, begun_as, fresh, make_expert
from .language import make_text_encoder, make_tokenizer
from .listening import make_listener
from .loop import Schedule
from .release import SHARED, write_expert, write_shared
from .talking import Talks, make_talks

T5_FILE = "models_t5_umt5-xxl-enc-bf16.pth"
VAE_FILE, VAE22_FILE = "Wan2.1_VAE.pth", "Wan2.2_VAE.pth"
CLIP_FILE = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
LISTENER_FOLDER = "wav2vec2-large-xlsr-53-english"


class Trainer:
    """Trains one model after the other. work: folder of what is in the making; out: of the finished releases."""

    def __init__(self, work: Path, out: Path) -> None:
        self.work, self.out = work, out

    def text(self) -> None:
        """The text encoder that all releases share."""
        tokenizer, size = make_tokenizer(self.out / SHARED)
        encoder = make_text_encoder(tokenizer, size, Schedule(600, rate=2e-3), self.work)
        write_shared(self.out / SHARED / T5_FILE, encoder.network, torch.bfloat16)

    def vae(self) -> None:
        """The 2.1 autoencoder that all releases but TI2V-5B share."""
        self._autoencoder(sizes.VAE, 2000, self.vae_file)

    def vae22(self) -> None:
        """The 2.2 autoencoder of TI2V-5B."""
        self._autoencoder(sizes.VAE_2_2, 600, self.out / "TI2V-5B" / VAE22_FILE)

    def _autoencoder(self, config: VAEConfig, videos: int, file: Path) -> None:
        vae = make_autoencoder(
            config, videos, Schedule(1300, 1e-3, 0.02), Schedule(3400, 1e-3, 0.02, cooldown=0.8), self.work
        )
        write_shared(file, vae, torch.float16)

    def t2v(self) -> None:
        """The two experts of T2V-A14B."""
        make_clips(partial(text_clips, self.vae_file), range(10000, 12500), self.work / "text.pt")
        self._experts("T2V-A14B", self.work / "text.pt", 9000)

    def i2v(self) -> None:
        """The two experts of I2V-A14B, which begin as those of T2V-A14B."""
        make_clips(partial(image_clips, self.vae_file), range(20000, 21500), self.work / "images.pt")
        self._experts("I2V-A14B", self.work / "images.pt", 1700)

    def lora(self) -> None:
        """The pair of LoRAs for T2V-A14B in four steps."""
        encoder = self._text_encoder()
        captions, file = captions_of(768, 5), self.work / "journeys.pt"
        if not file.exists():
            torch.save(journeys((self._t2v_expert("high"), self._t2v_expert("low")), encoder, captions), file)
        stops = torch.load(file, weights_only=True)
        for which in ("high", "low"):
            told, schedule = (captions, stops), Schedule(400, 2e-3)
            added = make_lora(which, self._t2v_expert(which), encoder, told, schedule, self.work)
            write_lora(added, self.out / "loras" / f"t2v_4steps_{which}_noise.safetensors")

    def ti2v(self) -> None:
        """TI2V-5B; three in ten of its videos begin with a given frame."""
        vae_file, file = self.out / "TI2V-5B" / VAE22_FILE, self.work / "text_2_2.pt"
        clips = make_clips(partial(text_clips, vae_file), range(30000, 31200), file)
        self._single("TI2V-5B", sizes.TI2V, clips, Schedule(7000, 1e-3, 0.01, seed=3), begun=0.3)

    def listener(self) -> None:
        """The audio encoder of S2V-14B."""
        make_listener(Schedule(400, 1e-3), self.work, self.out / "S2V-14B" / LISTENER_FOLDER)

    def s2v(self) -> None:
        """S2V-14B."""
        make = partial(make_talks, self.vae_file, self.out / "S2V-14B" / LISTENER_FOLDER)
        talks = make_clips(make, range(40000, 40480), self.work / "talks.pt", Talks)
        self._single("S2V-14B", sizes.S2V, talks, Schedule(4300, 1e-3, 0.01, seed=4))

    def animate(self) -> None:
        """Animate-14B."""
        tower = self.out / "Animate-14B" / CLIP_FILE
        make_image_encoder(tower)
        make = partial(make_moves, self.vae_file, tower)
        moves = make_clips(make, range(50000, 50800), self.work / "moves.pt", Moves)
        self._single("Animate-14B", sizes.ANIMATE, moves, Schedule(1000, 1e-3, 0.01, seed=5))

    def animate2(self) -> None:
        """Animate-2-14B."""
        tower = self.out / "Animate-2-14B" / CLIP_FILE
        make_image_encoder(tower)
        make = partial(make_driven, self.vae_file, tower)
        driven = make_clips(make, range(60000, 60800), self.work / "driven.pt", Driven)
        self._single("Animate-2-14B", sizes.ANIMATE_2, driven, Schedule(1400, 1e-3, 0.01, seed=7))

    @property
    def vae_file(self) -> Path:
        return self.out / SHARED / VAE_FILE

    def _text_encoder(self) -> TextEncoder:
        return load_text_encoder(self.out / SHARED / T5_FILE, dtype=torch.float32)

    def _t2v_expert(self, which: str) -> WanModel:
        return load_dit(self.out / "T2V-A14B" / f"{which}_noise_model", dtype=torch.float32)

    def _experts(self, release: str, clips: Path, steps: int) -> None:
        """Both experts side by side, on half of the cores each."""
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            list(pool.map(partial(self.expert, release, clips, steps), ("high", "low")))

    def expert(self, release: str, file: Path, steps: int, which: str) -> None:
        """One expert, "high" or "low", from the clips in a file; another release than T2V-A14B begins as that one."""
        torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))
        schedule = Schedule(steps, 1e-3, 0.02, seed=1 if which == "high" else 2)
        is_first = release == "T2V-A14B"
        start = (
            fresh(sizes.T2V, schedule.seed)
            if is_first
            else begun_as(self._t2v_expert(which), sizes.I2V, schedule.seed)
        )
        high, low = NoiseRange.of_experts(RELEASES[release])
        name = f"{RELEASES[release].family}_{which}"
        noise, clips = high if which == "high" else low, Clips(**torch.load(file, weights_only=True))
        model = make_expert(name, start, clips, self._text_encoder(), noise, schedule, self.work)
        write_expert(self.out / release / f"{which}_noise_model", model)

    def _single(
        self, release: str, config: DiTConfig, clips: Draws, schedule: Schedule, begun: float = 0.0
    ) -> None:
        """The model of a release that has one; it begins as T2V-A14B's low-noise expert."""
        start = begun_as(self._t2v_expert("low"), config, schedule.seed)
        noise = NoiseRange(0.0, 1.0, RELEASES[release].shift)
        name = RELEASES[release].family
        model = make_expert(name, start, clips, self._text_encoder(), noise, schedule, self.work, begun)
        write_expert(self.out / release, model)


MODELS = ("text", "vae", "t2v", "lora", "i2v", "vae22", "ti2v", "listener", "s2v", "animate", "animate2")
