"""The loop of every training: seeded, resumable, with an average of the weights and a record of the loss."""

import csv
import math
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .muon import Muon

Loss = Callable[[torch.Generator], Tensor]
"""loss(generator): the loss of a step, a scalar; all chance in it comes from the generator."""
_SAVE_SECONDS = 90.0
_WARM_UP = 50
_OUTER = re.compile(r"embedding|^head\.|time_projection")
"""Layers at a model's doors, which learn by AdamW."""


@dataclass(frozen=True)
class Schedule:
    """Length and rates of a training.

    rate: of AdamW at its height; matrix_rate: of Muon, which turns the matrices of hidden layers (0: AdamW for all).
    average: decay per step of the averaged weights. The rates rise over the first steps, and fall to zero over the last
    `cooldown` of all."""

    steps: int
    rate: float = 1e-3
    matrix_rate: float = 0.0
    average: float = 0.998
    cooldown: float = 0.5
    seed: int = 0

    def factor(self, step: int) -> float:
        """Factor of both rates at a step."""
        left = (self.steps - step) / max(1.0, self.cooldown * self.steps)
        return min(1.0, (step + 1) / _WARM_UP, max(0.0, left))


class Average:
    """Exponential moving average of a module's parameters; young averages forget faster."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module, self._decay = module, decay
        self.state = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self._decay, (1 + step) / (10 + step))
        names = list(self.state)
        now = dict(self._module.named_parameters())
        torch._foreach_lerp_([self.state[n] for n in names], [now[n] for n in names], 1 - decay)


def train(name: str, module: nn.Module, loss: Loss, schedule: Schedule, folder: Path) -> None:
    """Trains a module's parameters that ask for gradients, and leaves the averaged ones in it.

    Everything is kept in `folder`/`name`: state.pt, from which the next call goes on; loss.csv and loss.png. A training
    that is done is only read."""
    folder = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    saved, average = folder / "state.pt", Average(module, schedule.average)
    optimizers = _optimizers(module, schedule)
    step, seconds, record = 0, 0.0, []
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        step, seconds, record = state["step"], state["seconds"], state["record"]
        average.state = state["average"]
        if step < schedule.steps:  # a shorter schedule has kept the average alone
            module.load_state_dict(state.get("module", average.state), strict=False)
            for optimizer, values in zip(optimizers, state.get("optimizers", ()), strict=False):
                optimizer.load_state_dict(values)

    def save() -> None:
        state = {"step": step, "seconds": seconds, "record": record, "average": average.state}
        if step < schedule.steps:
            state |= {"module": module.state_dict(), "optimizers": [o.state_dict() for o in optimizers]}
        torch.save(state, saved.with_suffix(".new"))
        saved.with_suffix(".new").replace(saved)
        _write_record(folder, name, record)

    started, last_saved, recent = time.monotonic() - seconds, time.monotonic(), []
    generator = torch.Generator()
    while step < schedule.steps:
        generator.manual_seed(schedule.seed * 1_000_003 + step)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["height"] * schedule.factor(step)
        value = loss(generator)
        value.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        average.update(step)
        recent.append(float(value.detach()))
        step += 1
        seconds = time.monotonic() - started
        if step % 20 == 0 or step == schedule.steps:
            record.append([step, sum(recent) / len(recent), seconds])
            recent.clear()
            left = seconds / step * (schedule.steps - step)
            sys.stdout.write(
                f"{name}: {step}/{schedule.steps}  loss {record[-1][1]:.4f}  {seconds:.0f} s, {left:.0f} s left\n"
            )
            sys.stdout.flush()
        if not math.isfinite(float(value.detach())):
            raise ArithmeticError(
                f"the training {name} came to a loss of {float(value.detach())} in step {step}"
            )
        if time.monotonic() - last_saved > _SAVE_SECONDS or step == schedule.steps:
            save()
            last_saved = time.monotonic()
    module.load_state_dict(average.state, strict=False)


def _optimizers(module: nn.Module, schedule: Schedule) -> list[torch.optim.Optimizer]:
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            is_matrix = parameter.dim() > 1 and name.endswith("weight") and not _OUTER.search(name)
            (matrices if schedule.matrix_rate and is_matrix else others).append(parameter)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(others, lr=schedule.rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    ]
    if matrices:
        optimizers.append(Muon(matrices, schedule.matrix_rate))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["height"] = group["lr"]
    return optimizers


def _write_record(folder: Path, name: str, record: list[list[float]]) -> None:
    with (folder / "loss.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "loss", "seconds"])
        writer.writerows(record)
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return  # the numbers are in loss.csv
    figure = Figure(figsize=(6, 3), layout="tight")
    axes = figure.add_subplot(xlabel="step", ylabel="loss", title=name, yscale="log")
    axes.plot([row[0] for row in record], [row[1] for row in record], linewidth=0.8)
    figure.savefig(folder / "loss.png", dpi=100)
