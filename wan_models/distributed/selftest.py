"""Whether several GPUs give what one gives, and how fast: `python -m wan_models.distributed.selftest`.

Takes all GPUs of the machine, or `--world` processes of a machine without; `torchrun --nproc-per-node N -m
wan_models.distributed.selftest` runs it on processes that torchrun places. Small models of every family with random
weights go through every layout that fits, in float32, and are compared with the same model in one process. `--speed`
adds the time of one forward of a layer of the released size. The exit status is 0 where all agree.
"""

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from safetensors.torch import save_file
from torch import Tensor, nn

from ..checkpoints.patches import Patch, Patches
from ..config import DiTConfig, FaceConfig, SpeechConfig, T5Config, VAEConfig
from ..random_weights import random_state
from ..text.umt5 import UMT5Encoder
from ..vae.wan21 import WanVAE21
from ..vae.wan22 import WanVAE22
from .decode import strip
from .mesh import Layout
from .weights import LoadedModel, Recipe, dit_class
from .worker import Worker

TOLERANCE = 1e-5
"""Largest relative L2 difference from one process, in float32."""

_SMALL = DiTConfig(dim=64, ffn_dim=96, num_heads=4, num_layers=3, text_dim=24, text_len=16)
CONFIGS = {
    "t2v": _SMALL,
    "i2v": replace(_SMALL, family="i2v", in_dim=36),
    "ti2v": replace(_SMALL, family="ti2v", in_dim=48, out_dim=48),
    "s2v": replace(
        _SMALL,
        family="s2v",
        speech=SpeechConfig(audio_dim=16, audio_layers=3, inject_layers=(0, 2)),
    ),
    "animate": replace(
        _SMALL,
        family="animate",
        in_dim=36,
        num_layers=6,
        image_dim=32,
        face=FaceConfig(channels=(4, 4, 4), style_dim=12, motion_dim=4, hidden_dim=16),
    ),
}
_VAES = {
    "VAE 2.1": (WanVAE21, VAEConfig(base_dim=8)),
    "VAE 2.2": (
        WanVAE22,
        VAEConfig("2.2", base_dim=8, z_dim=48, stride=(4, 16, 16), dec_dim=8),
    ),
}
_T5 = T5Config(vocab_size=50, dim=24, dim_attn=16, dim_ffn=32, num_heads=2, num_layers=3)


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


def inputs_of(config: DiTConfig, seed: int, batch: int = 2) -> dict[str, Any]:
    """Conditioning of a small video, by the names of `LoadedModel.velocity`; 5 x 7 patches, so no degree divides it."""
    generator = torch.Generator().manual_seed(seed)
    frames, height, width = 3, 10, 14
    draw = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    out: dict[str, Any] = {
        "x": draw(batch, config.in_dim, frames, height, width),
        "timestep": torch.tensor([900.0, 350.0, 20.0])[:batch],
        "context": draw(batch, 7, config.text_dim),
    }
    if config.family == "ti2v":  # the first latent frame is known
        out["timestep"] = torch.tensor([[0.0, 700.0, 700.0], [0.0, 120.0, 120.0], [0.0, 9.0, 9.0]])[:batch]
    if config.speech:
        speech = config.speech
        out["audio"] = draw(batch, speech.audio_layers, speech.audio_dim, 4 * frames)
        out["reference"] = draw(batch, config.out_dim, 1, height, width)
        out["motion"] = draw(batch, config.out_dim, 19, height, width)
        out["pose"] = draw(batch, config.out_dim, frames, height, width)
    if config.face:
        out["image"] = draw(batch, 257, config.image_dim)
        out["pose"] = draw(batch, config.out_dim, frames - 1, height, width)
        out["faces"] = draw(batch, 3, 4 * (frames - 2) + 1, config.face.size, config.face.size)
    return out


def lora_of(config: DiTConfig, seed: int) -> Patches:
    """A low-rank change of some weights, and a difference of a bare parameter."""
    generator = torch.Generator().manual_seed(seed)
    names = [
        f"blocks.{i}.{part}.weight"
        for i in range(config.num_layers)
        for part in ("self_attn.q", "cross_attn.o")
    ]
    out: dict[str, list[Patch]] = {}
    for name in names:
        up, down = (torch.randn(shape, generator=generator) for shape in ((config.dim, 2), (2, config.dim)))
        out[name] = [Patch("lora", 0.7, 1.0, {"up": up, "down": down / 8, "alpha": 1.0})]
    out["head.modulation"] = [Patch("diff", 1.0, 1.0, {"diff": torch.full((1, 2, config.dim), 0.2)})]
    return out


def write_models(folder: Path) -> None:
    """Checkpoints of all models, with random weights."""
    for seed, (name, config) in enumerate(CONFIGS.items()):
        write(folder / name, lambda c=config: dit_class(c)(c), seed)  # type: ignore[misc]
        (folder / name / "config.json").write_text(json.dumps(_official(config)))
    for name, (kind, shape) in _VAES.items():
        write(folder / name, lambda k=kind, c=shape: k(c), 7)  # type: ignore[misc]
    write(folder / "T5", lambda: UMT5Encoder(_T5), 8)


def write(folder: Path, build: Callable[[], nn.Module], seed: int, dtype: torch.dtype | None = None) -> None:
    folder.mkdir()
    state = random_state(build, seed)
    save_file(
        {name: weight.to(dtype) for name, weight in state.items()},
        folder / "diffusion_pytorch_model.safetensors",
    )


def _official(config: DiTConfig) -> dict[str, Any]:
    wanted = ("dim", "ffn_dim", "num_heads", "num_layers", "text_len", "freq_dim", "in_dim", "out_dim")
    found = {name: getattr(config, name) for name in wanted}
    if config.speech:
        found["audio_inject_layers"] = list(config.speech.inject_layers)
    return found


def compare(worker: Worker, folder: Path, seed: int) -> Iterator[Result]:
    """All comparisons, in the same order in every process."""
    for name, config in CONFIGS.items():
        for patches in ({}, lora_of(config, seed)) if name == "t2v" else ({},):
            plain = LoadedModel(
                Recipe("dit", str(folder / name)), worker.device, worker.everyone, patches, worker.beat
            )
            for batch in (2, 1, 3):
                given = inputs_of(config, seed, batch)
                with torch.no_grad():
                    expected = plain.velocity({k: v.to(worker.device) for k, v in given.items()}).cpu()
                for layout in layouts_of(worker.world) if batch == 2 else layouts_of(worker.world)[1:2]:
                    title = f"{name}{' + LoRA' if patches else ''}, batch {batch}"
                    recipe = Recipe("dit", str(folder / name), layout=layout)
                    yield _one(worker, recipe, patches, given, expected, title)
    yield from _others(worker, folder, seed)


def _one(
    worker: Worker, recipe: Recipe, patches: Patches, given: dict[str, Any], expected: Tensor, title: str
) -> Result:
    worker.load("model", recipe, {})
    if patches:
        worker.load("model", recipe, patches)  # put on afterwards, as when a strength changes
    kept = sorted(set(given) - {"x", "timestep"})
    for name in kept:
        worker.keep(name, given[name])
    step = {name: given[name] for name in ("x", "timestep")}
    worker.velocity("model", step, {name: name for name in kept})
    begun = time.monotonic()
    out = worker.velocity("model", step, {name: name for name in kept})
    seconds = time.monotonic() - begun
    rows = worker.rows("model", expected.shape[0])
    error = 0.0 if out is None else _error(out, expected[rows])
    whole = sum(weight.nbytes for weight in recipe_shapes(recipe))
    share = worker.stats()["models"]["model"] / whole
    worker.drop("model")
    worker.forget(kept)
    return Result(title, str(recipe.layout), _worst(worker, error), seconds, _worst(worker, share))


def recipe_shapes(recipe: Recipe) -> list[Tensor]:
    """The weights of a recipe's checkpoint, without their values."""
    from ..checkpoints.reader import open_model

    checkpoint = open_model(recipe.path)
    return [
        torch.empty(shape, dtype=checkpoint.dtypes[name], device="meta")
        for name, shape in checkpoint.shapes.items()
    ]


def _others(worker: Worker, folder: Path, seed: int) -> Iterator[Result]:
    """The text encoder with sharded weights, and decoding by strips."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 50, (2, 9), generator=generator)
    mask = (torch.arange(9) < torch.tensor([[9], [4]])).long()
    plain = LoadedModel(Recipe("t5", str(folder / "T5")), worker.device, worker.everyone, {}, worker.beat)
    with torch.no_grad():
        expected = plain.network.encode(ids.to(worker.device), mask.to(worker.device)).cpu()  # type: ignore[operator]
    worker.load("t5", Recipe("t5", str(folder / "T5"), layout=Layout(fsdp=True)), {})
    begun = time.monotonic()
    out = worker.encode_text("t5", ids, mask)
    error = 0.0 if out is None else _error(out, expected)
    yield Result("T5", "FSDP", _worst(worker, error), time.monotonic() - begun)
    worker.drop("t5")

    for name, (_, config) in _VAES.items():
        recipe = Recipe("vae", str(folder / name))
        latents = torch.randn(1, config.z_dim, 3, 4, 45, generator=generator)
        worker.load(name, recipe, {})
        plain = LoadedModel(recipe, worker.device, worker.everyone, {}, worker.beat)
        with torch.no_grad():
            video = plain.network.decode(latents.to(worker.device)).cpu()  # type: ignore[operator]
        begun = time.monotonic()
        mine = worker.decode(name, latents)
        first, last = (
            config.stride[2] * edge for edge in strip(worker.rank, worker.world, latents.shape[-1])
        )
        error = _error(mine, video[..., first:last])
        yield Result(
            f"{name} decode", f"{worker.world} strips", _worst(worker, error), time.monotonic() - begun
        )
        worker.drop(name)


def speed(worker: Worker, folder: Path) -> Iterator[Result]:
    """Seconds per forward of two layers of the A14B models at 832x480, 81 frames, in bfloat16."""
    for layout in layouts_of(worker.world):
        recipe = Recipe("dit", str(folder / "released"), compute="bfloat16", layout=layout)
        worker.load("model", recipe, {})
        x = torch.randn(2, 16, 21, 60, 104)
        given = {"x": x, "timestep": torch.tensor([900.0, 900.0]), "context": torch.randn(2, 512, 4096)}
        for _ in range(2):
            worker.velocity("model", given, {})
        begun = time.monotonic()
        worker.velocity("model", given, {})
        seconds = time.monotonic() - begun
        worker.drop("model")
        yield Result("two A14B layers, 480p, batch 2", str(layout), 0.0, seconds)


def _error(out: Tensor, expected: Tensor) -> float:
    return float((out - expected).norm() / expected.norm().clamp_min(1e-12))


def _worst(worker: Worker, value: float) -> float:
    """The largest of all processes' values."""
    known = torch.tensor([value], dtype=torch.float64, device=worker.device)
    dist.all_reduce(known, dist.ReduceOp.MAX)
    return float(known)


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
    parser = argparse.ArgumentParser(prog="python -m wan_models.distributed.selftest", description=__doc__)
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
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        _say(f"{options.world} processes on {torch.cuda.device_count() or 'no'} GPUs, seed {options.seed}")
        arguments = (options.world, store.port, folder, options)
        torch.multiprocessing.spawn(_process, arguments, nprocs=options.world)


def _write_all(folder: Path, options: argparse.Namespace) -> None:
    write_models(folder)
    if options.speed:
        config = DiTConfig(num_layers=2)
        write(folder / "released", lambda: dit_class(config)(config), 1, torch.bfloat16)


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
