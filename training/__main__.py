"""`python -m training [model ...]`: trains the miniatures in turn, resumes what was begun, and writes them as releases.

Each model stands on those before it. What was trained is kept in the folder of --work; delete a model's folder there to
train it anew.
"""

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch

from wan_models.config import VAEConfig
from wan_models.families import RELEASES
from wan_models.models import load_dit, load_text_encoder

from . import sizes
from .autoencoder import make_autoencoder
from .clips import Clips, image_clips, make_clips, text_clips
from .distill import captions_of, journeys, make_lora, write_lora
from .experts import NoiseRange, begun_as, fresh, make_expert
from .language import make_text_encoder, make_tokenizer
from .loop import Schedule
from .release import SHARED, write_expert, write_shared

ROOT = Path(__file__).parents[1]
T5_FILE = "models_t5_umt5-xxl-enc-bf16.pth"
VAE_FILE = "Wan2.1_VAE.pth"


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
        self._autoencoder(sizes.VAE, self.vae_file)

    def vae22(self) -> None:
        """The 2.2 autoencoder of TI2V-5B."""
        self._autoencoder(sizes.VAE_2_2, self.out / "TI2V-5B" / "Wan2.2_VAE.pth")

    def _autoencoder(self, config: VAEConfig, file: Path) -> None:
        vae = make_autoencoder(
            config, 2000, Schedule(1300, 1e-3, 0.02), Schedule(3400, 1e-3, 0.02, cooldown=0.8), self.work
        )
        write_shared(file, vae, torch.float16)

    def t2v(self) -> None:
        """The two experts of T2V-A14B."""
        make_clips(partial(text_clips, self.vae_file), range(10000, 13000), self.work / "text.pt")
        self._experts("T2V-A14B", self.work / "text.pt", 2600)

    def i2v(self) -> None:
        """The two experts of I2V-A14B, which begin as those of T2V-A14B."""
        make_clips(partial(image_clips, self.vae_file), range(20000, 21500), self.work / "images.pt")
        self._experts("I2V-A14B", self.work / "images.pt", 1200)

    def lora(self) -> None:
        """The pair of LoRAs for T2V-A14B in four steps."""
        encoder = load_text_encoder(self.out / SHARED / T5_FILE, dtype=torch.float32)
        folder = self.out / "T2V-A14B"
        captions, file = captions_of(768, 5), self.work / "journeys.pt"
        if not file.exists():
            high, low = (
                load_dit(folder / f"{which}_noise_model", dtype=torch.float32) for which in ("high", "low")
            )
            torch.save(journeys((high, low), encoder, captions), file)
        stops = torch.load(file, weights_only=True)
        for which in ("high", "low"):
            model = load_dit(folder / f"{which}_noise_model", dtype=torch.float32)
            added = make_lora(which, model, encoder, (captions, stops), Schedule(400, rate=2e-3), self.work)
            write_lora(added, self.out / "loras" / f"t2v_4steps_{which}_noise.safetensors")

    @property
    def vae_file(self) -> Path:
        return self.out / SHARED / VAE_FILE

    def _experts(self, release: str, clips: Path, steps: int) -> None:
        """Both experts side by side, on half of the cores each."""
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            list(pool.map(partial(self.expert, release, clips, steps), ("high", "low")))

    def expert(self, release: str, clips: Path, steps: int, which: str) -> None:
        """One expert: "high" or "low"."""
        torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))
        ranges = NoiseRange.of_experts(RELEASES[release])
        schedule = Schedule(steps, rate=1e-3, matrix_rate=0.01, seed=1 if which == "high" else 2)
        if release == "T2V-A14B":
            start = fresh(sizes.T2V, schedule.seed)
        else:
            known = load_dit(self.out / "T2V-A14B" / f"{which}_noise_model", dtype=torch.float32)
            start = begun_as(known, sizes.I2V, schedule.seed)
        model = make_expert(
            f"{RELEASES[release].family}_{which}",
            start,
            Clips(**torch.load(clips, weights_only=True)),
            load_text_encoder(self.out / SHARED / T5_FILE, dtype=torch.float32),
            ranges[0] if which == "high" else ranges[1],
            schedule,
            self.work,
        )
        write_expert(self.out / release / f"{which}_noise_model", model)


MODELS = ("text", "vae", "t2v", "lora", "i2v", "vae22")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", metavar="model", help=f"of {', '.join(MODELS)}; all by default")
    parser.add_argument(
        "--work", type=Path, default=ROOT / ".training", help="folder of what is in the making"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "miniature", help="folder of the finished releases"
    )
    chosen = parser.parse_args()
    if unknown := set(chosen.models) - set(MODELS):
        parser.error(f"there is no model {', '.join(sorted(unknown))}; there are {', '.join(MODELS)}")
    trainer = Trainer(chosen.work, chosen.out)
    for model in MODELS:
        if not chosen.models or model in chosen.models:
            getattr(trainer, model)()


if __name__ == "__main__":
    main()
