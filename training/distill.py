"""A pair of LoRAs with which the experts need four steps and no guidance: they learn where the guided experts arrive
in many steps (progressive distillation, arXiv 2202.00512)."""

import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from wan_models.config import NEGATIVE_PROMPT
from wan_models.dit.base import WanModel
from wan_models.families import DISTILLED, RELEASES
from wan_models.sampling.guidance import guide
from wan_models.sampling.schedule import sigmas
from wan_models.text.encoder import TextEncoder

from .experts import NoiseRange, TextRows
from .loop import Schedule, train
from .world.objects import Objects
from .world.words import caption

RANK = 16
_SUBSTEPS = 10
"""Steps of the guided experts for each of the four."""
_BATCH = 32


class LowRank(nn.Module):
    """A weight [out, in] with a product of two narrow matrices added to it."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(RANK, weight.shape[1]) * weight.shape[1] ** -0.5)
        self.up = nn.Parameter(torch.zeros(weight.shape[0], RANK))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def add_low_rank(model: WanModel) -> dict[str, LowRank]:
    """Puts a `LowRank` on each linear layer of the blocks, by the layers' names; only these ask for gradients."""
    model.requires_grad_(False)
    added = {}
    for name, module in list(model.blocks.named_modules(prefix="blocks")):
        if isinstance(module, nn.Linear):
            added[name] = LowRank(module.weight)
            parametrize.register_parametrization(module, "weight", added[name])
    return added


def write_lora(added: dict[str, LowRank], file: Path) -> None:
    """A LoRA file of the names that trainers use, in half precision."""
    state = {}
    for name, part in added.items():
        state[f"diffusion_model.{name}.lora_down.weight"] = part.down.detach().half()
        state[f"diffusion_model.{name}.lora_up.weight"] = part.up.detach().half().contiguous()
        state[f"diffusion_model.{name}.alpha"] = torch.tensor(float(RANK))
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, file)


@torch.no_grad()
def journeys(experts: tuple[WanModel, WanModel], encoder: TextEncoder, captions: Sequence[str]) -> Tensor:
    """Latents of the guided experts (high, low) at each noise level of the four steps: [N, 5, C, F, h, w], from noise
    to the end."""
    release, levels = RELEASES["T2V-A14B"], _levels()
    for expert in experts:
        expert.compute_dtype = torch.bfloat16
    text = TextRows(encoder, experts[0].config.text_len)
    out = []
    for start in range(0, len(captions), _BATCH):
        some = list(captions[start : start + _BATCH])
        generator = torch.Generator().manual_seed(start)
        x = torch.randn(len(some), 16, 5, 12, 12, generator=generator)
        stops = [x]
        for first, last in itertools.pairwise(levels):
            model, scale = _expert_at(experts, first)
            for sigma, after in _substeps(first, last, release.shift):
                told, untold = (
                    _velocity(model, x, sigma, text, words) for words in (some, [NEGATIVE_PROMPT] * len(some))
                )
                x = x + (after - sigma) * guide(told, untold, scale)
            stops.append(x)
        out.append(torch.stack(stops, dim=1).half())
    return torch.cat(out)


def make_lora(
    which: str,
    model: WanModel,
    encoder: TextEncoder,
    told: tuple[Sequence[str], Tensor],
    schedule: Schedule,
    folder: Path,
) -> dict[str, LowRank]:
    """The trained LoRA of an expert, "high" or "low". told: captions, and their `journeys`."""
    captions, stops = told
    levels = _levels()
    steps = (0, 1) if which == "high" else (2, 3)
    added = add_low_rank(model)
    model.compute_dtype = torch.bfloat16
    text = TextRows(encoder, model.config.text_len)

    def loss(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(captions), (_BATCH,), generator=generator)
        step = steps[int(torch.randint(2, (), generator=generator))]
        before, after = stops[rows, step].float(), stops[rows, step + 1].float()
        velocity = _velocity(model, before, levels[step], text, [captions[row] for row in rows])
        return F.mse_loss(velocity, (before - after) / (levels[step] - levels[step + 1]))

    train(f"lora_{which}", model, loss, schedule, folder)
    return added


def captions_of(count: int, seed: int) -> list[str]:
    """Captions that tell everything of videos by chance."""
    rng = random.Random(seed)
    return [caption(Objects.draw(rng).facts, rng) for _ in range(count)]


def _levels() -> list[float]:
    release = DISTILLED["T2V-A14B 4-step LoRA"]
    return sigmas(release.steps, release.shift, "dpm++").tolist()  # as Euler's, they begin at 1


def _expert_at(experts: tuple[WanModel, WanModel], sigma: float) -> tuple[WanModel, float]:
    release = RELEASES["T2V-A14B"]
    low, high = release.guidance
    assert release.boundary is not None
    return (experts[0], high) if sigma >= release.boundary else (experts[1], low)


def _substeps(first: float, last: float, shift: float) -> list[tuple[float, float]]:
    """Noise levels from one to the other, spaced as a schedule of that shift has them."""
    levels = NoiseRange(last, first, shift).at(torch.linspace(1, 0, _SUBSTEPS + 1)).tolist()
    return list(itertools.pairwise(levels))


def _velocity(model: WanModel, x: Tensor, sigma: float, text: TextRows, captions: list[str]) -> Tensor:
    return text.velocity(model, x, torch.full((len(x),), sigma * 1000), captions)
