"""Self-test of several GPUs, whether they give what one gives and how fast: `python -m wan_models.tools.selftest`.

Takes all GPUs of the machine, or `--world` processes of a machine without; `torchrun --nproc-per-node N -m
wan_models.tools.selftest` runs it on processes that torchrun places. Small models of every family with random weights
go through every layout that fits, in float32, and are compared with the same model in one process. `--speed` adds the
time of one forward of a layer of the released size. The exit status is 0 where all agree.
"""

import argparse
import gc
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor

from ..checkpoints.patches import Patches
from ..checkpoints.reader import open_model
from ..config import DiTConfig
from ..distributed.mesh import Layout
from ..distributed.store import listening_store
from ..distributed.weights import LoadedModel, Recipe
from ..distributed.worker import Worker
from .small_models import CONFIGS, VAES, guidance_of, inputs_of, lora_of, write_dit, write_models

TOLERANCE = 1e-5
"""Largest relative L2 difference from one process, in float32."""


@dataclass
class Result:
    """One comparison: relative L2 difference, seconds of the second run, and the share of the weights kept here."""

    case: str
    layout: str
    error: float
    seconds: float
    share: float = 1.0

    @property
    def is_right(self) -> bool:
        return self.error < TOLERANCE


def layouts_of(world: int) -> list[Layout]:
    """Every way to use `world` processes, with and without sharded weights."""
    plain = [Layout(1, world)]
    if world % 2 == 0:
        plain.append(Layout(2, world // 2))
    sharded = [replace(layout, fsdp=True) for layout in plain]
    # sharding alone: all processes do the same
    return [*plain, *sharded, Layout(fsdp=True), replace(sharded[0], offload=True)]


def compare(worker: Worker, folder: Path, seed: int) -> Iterator[Result]:
    """All comparisons, in the same order in every process."""
    for name, more in (*((name, "") for name in CONFIGS), ("t2v", " + LoRA"), ("s2v", " + guidance")):
        config = CONFIGS[name]
        patches = lora_of(config, seed) if more == " + LoRA" else {}
        plain = _plain(worker, Recipe("dit", str(folder / name)), patches)
        cases = {}
        for batch in (2, 1, 3):
            inputs = inputs_of(config, seed, batch)
            if more == " + guidance":
                inputs = guidance_of(config, seed, batch) | inputs
            with torch.no_grad():
                expected = plain.velocity(_moved(inputs, worker.device)).cpu()
            cases[f"{name}{more}, batch {batch}"] = inputs, expected
        for place, layout in enumerate(layouts_of(worker.world)):
            recipe = Recipe("dit", str(folder / name), layout=layout)
            worker.load("model", recipe, {})
            if patches:
                worker.load("model", recipe, patches)  # put on afterwards, as when a strength changes
            share = _share(worker, "model", recipe)
            # other batches need one layout: that which shares their rows, if the number of processes is even
            for title in cases if place == 1 else list(cases)[:1]:
                yield _one(worker, layout, *cases[title], title, share)
            worker.drop("model")
    yield from _text(worker, folder, seed)
    yield from _video(worker, folder, seed)


def _one(
    worker: Worker, layout: Layout, inputs: dict[str, Any], expected: Tensor, title: str, share: float
) -> Result:
    names = sorted(
        name for name, x in inputs.items() if isinstance(x, Tensor) and name not in ("x", "timestep")
    )
    for name in names:
        worker.keep(name, inputs[name])
    step = {name: value for name, value in inputs.items() if name not in names}
    worker.velocity("model", step, {name: name for name in names})
    begun = time.monotonic()
    out = worker.velocity("model", step, {name: name for name in names})
    seconds = time.monotonic() - begun
    velocity = torch.cat([rows for rows in _gather(worker, out) if rows is not None])
    worker.forget(names)
    return Result(title, str(layout), _error(velocity, expected), seconds, share)


def _moved(inputs: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {name: x.to(device) if isinstance(x, Tensor) else x for name, x in inputs.items()}


def _text(worker: Worker, folder: Path, seed: int) -> Iterator[Result]:
    """The text encoder with sharded weights."""
    ids = torch.randint(1, 50, (2, 9), generator=torch.Generator().manual_seed(seed))
    mask = (torch.arange(9) < torch.tensor([[9], [4]])).long()
    plain = _plain(worker, Recipe("t5", str(folder / "T5")))
    with torch.no_grad():
        expected = plain.network.encode(ids.to(worker.device), mask.to(worker.device)).cpu()  # type: ignore[operator]
    recipe = Recipe("t5", str(folder / "T5"), layout=Layout(fsdp=True))
    worker.load("t5", recipe, {})
    begun = time.monotonic()
    features = worker.encode_text("t5", ids, mask)
    seconds = time.monotonic() - begun
    error = _error(_gather(worker, features)[0], expected)
    yield Result("T5", "FSDP", error, seconds, _share(worker, "t5", recipe))
    worker.drop("t5")


def _video(worker: Worker, folder: Path, seed: int) -> Iterator[Result]:
    """Decoding by strips."""
    generator = torch.Generator().manual_seed(seed)
    for name, config in VAES.items():
        recipe = Recipe("vae", str(folder / name))
        latents = torch.randn(1, config.z_dim, 3, 4, 45, generator=generator)
        worker.load(name, recipe, {})
        with torch.no_grad():
            expected = _plain(worker, recipe).network.decode(latents.to(worker.device)).cpu()  # type: ignore[operator]
        begun = time.monotonic()
        strip = worker.decode(name, latents)
        seconds = time.monotonic() - begun
        error = _error(torch.cat(_gather(worker, strip), dim=-1), expected)
        yield Result(f"{name} decode", f"{worker.world} strips", error, seconds)
        worker.drop(name)


def _plain(worker: Worker, recipe: Recipe, patches: Patches | None = None) -> LoadedModel:
    """The model of a recipe in this process alone."""
    return LoadedModel(recipe, worker.device, None, patches or {}, worker.beat)


def speed(worker: Worker, folder: Path) -> Iterator[Result]:
    """Seconds per forward of two layers of the A14B models at 832x480, 81 frames, in bfloat16."""
    for layout in layouts_of(worker.world):
        recipe = Recipe("dit", str(folder / "released"), compute="bfloat16", layout=layout)
        worker.load("model", recipe, {})
        x = torch.randn(2, 16, 21, 60, 104)
        inputs = {"x": x, "timestep": torch.tensor([900.0, 900.0]), "context": torch.randn(2, 512, 4096)}
        for _ in range(2):
            worker.velocity("model", inputs, {})
        begun = time.monotonic()
        worker.velocity("model", inputs, {})
        seconds = time.monotonic() - begun
        worker.drop("model")
        yield Result("two A14B layers, 480p, batch 2", str(layout), 0.0, seconds)


def _error(out: Tensor, expected: Tensor) -> float:
    return float((out - expected).norm() / expected.norm().clamp_min(1e-12))


def _share(worker: Worker, key: str, recipe: Recipe) -> float:
    """The largest part of a model's weights that a process keeps."""
    checkpoint = open_model(recipe.path)
    sizes = [math.prod(shape) * checkpoint.dtypes[name].itemsize for name, shape in checkpoint.shapes.items()]
    return max(_gather(worker, worker.stats()["models"][key])) / sum(sizes)


def _gather(worker: Worker, value: Any) -> list[Any]:
    """The values of all processes, by rank."""
    values = [None] * worker.world
    dist.all_gather_object(values, value)
    return values


def run(worker: Worker, folder: Path, seed: int, with_speed: bool) -> list[Result]:
    """Everything, printed line by line by the first process."""
    results = []
    gc.freeze()  # models are dropped often, and each time all that modules hold would be looked through
    for result in compare(worker, folder, seed):
        results.append(result)
        if worker.rank == 0:
            _say(f"{'ok  ' if result.is_right else 'BAD '} {result.case:24} {result.layout:42} "
                 f"error {result.error:.1e}  {result.seconds * 1000:8.1f} ms  weights {result.share:4.0%}")  # fmt: skip
    for result in speed(worker, folder) if with_speed else ():
        if worker.rank == 0:
            _say(f"     {result.case:30} {result.layout:36} {result.seconds * 1000:8.1f} ms")
    return results


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def _process(rank: int, world: int, port: int, folder: str, options: argparse.Namespace) -> None:
    torch.set_num_threads(max(1, torch.get_num_threads() // world))
    worker = Worker(rank, world, timeout=300)
    worker.connect(dist.TCPStore("127.0.0.1", port, is_master=False, timeout=timedelta(seconds=60)))
    _finish(worker, Path(folder), options)


def _finish(worker: Worker, folder: Path, options: argparse.Namespace) -> None:
    try:
        results = run(worker, folder, options.seed, options.speed)
    finally:
        dist.destroy_process_group()
    if worker.rank == 0 and options.json:
        Path(options.json).write_text(json.dumps([asdict(result) for result in results]))
    if not all(result.is_right for result in results):
        sys.exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m wan_models.tools.selftest", description=__doc__)
    parser.add_argument(
        "--world", type=int, default=torch.cuda.device_count() or 2, help="processes to start"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of weights and inputs")
    parser.add_argument(
        "--speed", action="store_true", help="time two layers of the released size (needs GPUs)"
    )
    parser.add_argument("--json", help="file for the results")
    options = parser.parse_args()
    if "RANK" in os.environ:
        _under_torchrun(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        _write_all(Path(folder), options)
        store = listening_store("127.0.0.1")
        _say(f"{options.world} processes on {torch.cuda.device_count() or 'no'} GPUs, seed {options.seed}")
        arguments = (options.world, store.port, folder, options)
        torch.multiprocessing.start_processes(
            _process, arguments, nprocs=options.world, start_method=_start_method()
        )


def _start_method() -> str:
    """Start method of the processes: forked, where it can be, from one that has imported all this."""
    if "forkserver" not in torch.multiprocessing.get_all_start_methods():
        return "spawn"
    torch.multiprocessing.set_forkserver_preload(
        [Worker.__module__, "torch.distributed.fsdp", "torch._dynamo"]
    )
    return "forkserver"


def _write_all(folder: Path, options: argparse.Namespace) -> None:
    write_models(folder)
    if options.speed:
        write_dit(folder / "released", DiTConfig(num_layers=2), 1, torch.bfloat16)


def _under_torchrun(options: argparse.Namespace) -> None:
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = dist.TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" and rank == 0,
    )
    with tempfile.TemporaryDirectory() as folder:
        options.seed = 1  # every process writes and draws the same
        _write_all(Path(folder), options)
        worker = Worker(rank, world, timeout=300)
        worker.connect(dist.PrefixStore("selftest", store))
        _finish(worker, Path(folder), options)


if __name__ == "__main__":
    main()
