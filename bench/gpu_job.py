"""One line of the table of `bench.gpu`, measured in a process of its own."""

import importlib
import json
import runpy
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.accounting import MODELS, SIZES, count
from bench.counting import empty
from wan_models.attention import get_attention, sdpa
from wan_models.config import DiTConfig
from wan_models.models import build_network
from wan_models.tools.quantize import PACKERS, quantized
from wan_models.tools.small_models import write_dit

ROOT = Path(__file__).resolve().parents[1]
MODEL = "T2V-A14B"
DTYPE = torch.bfloat16
_TINY = {"dim": 256, "num_heads": 2, "ffn_dim": 512, "text_len": 64}
_TINY_SIZES = {"tiny": (64, 96, 9)}
Forward = Callable[[Tensor, Tensor, Tensor], Tensor]
"""forward(latents [1, C, F, h, w], noise level [1] in 0..1, text [1, rows, C]) -> velocity."""


@dataclass(frozen=True)
class Job:
    """who: a key of `_MAKERS`. kind: "bf16" or a format of `tools.quantize`. attention: a `Backend`, or the host's own.
    folder: for model files, shared by all jobs."""

    who: str
    kind: str
    attention: str
    blocks: int
    rounds: int
    is_tiny: bool
    folder: str
    comfyui: str

    @property
    def config(self) -> DiTConfig:
        more = _TINY if self.is_tiny else {}
        return replace(MODELS[MODEL], num_layers=self.blocks, **more)

    @property
    def sizes(self) -> dict[str, tuple[int, int, int]]:
        """Height, width and frames."""
        return _TINY_SIZES if self.is_tiny else {name: SIZES[name] for name in ("480p", "720p")}


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _ours(job: Job) -> Forward:
    network = build_network(job.config, dtype=DTYPE).to_empty(device=device())
    for parameter in network.parameters():
        parameter.normal_(std=0.02)
    attention = get_attention(job.attention)
    return lambda x, sigma, text: network(x.to(DTYPE), sigma * 1000, text.to(DTYPE), attention=attention)


def _diffusers(job: Job) -> Forward:
    runpy.run_path(str(ROOT / "devhost" / "cpu_torch.py"))["repair_torchvision"]()
    from diffusers import WanTransformer3DModel

    config = job.config
    with torch.device("meta"):
        network = WanTransformer3DModel(
            num_attention_heads=config.num_heads, attention_head_dim=config.head_dim, ffn_dim=config.ffn_dim,
            num_layers=config.num_layers, text_dim=config.text_dim, rope_max_seq_len=1024,
        )  # fmt: skip
        rope = network.rope
    network = network.to(DTYPE).to_empty(device=device()).eval()
    network.rope = type(rope)(config.head_dim, (1, 2, 2), 1024).to(device())
    for parameter in network.parameters():
        parameter.normal_(std=0.02)
    return lambda x, sigma, text: network(x.to(DTYPE), sigma * 1000, text.to(DTYPE), return_dict=False)[0]


def _in_host(job: Job) -> Forward:
    """A file under our loader or under the host's, called as a sampler calls it."""
    base = Path(job.folder)
    file = _file(job, base / "models" / "diffusion_models")
    options = () if torch.cuda.is_available() else ("--cpu",)
    inside = runpy.run_path(str(ROOT / "bench" / "inside_host.py"))
    nodes = inside["enter"](Path(job.comfyui), ROOT, base, options)
    import comfy.model_management as management

    if job.who == "ComfyUI":
        host_nodes = importlib.import_module("nodes")
        model = host_nodes.UNETLoader().load_unet(file.name, "default")[0]
    else:
        model = nodes["WanDiTLoader"].execute(file.name).args[0]
    management.load_models_gpu([model])
    options = model.model_options["transformer_options"]
    return lambda x, sigma, text: model.model.apply_model(
        x, sigma, c_crossattn=text, transformer_options=options
    )


def _file(job: Job, folder: Path) -> Path:
    """The model in the job's format."""
    if job.kind not in (*PACKERS, "bf16"):
        raise ValueError(f"unknown format {job.kind!r}; choose one of bf16, {', '.join(PACKERS)}")
    folder.mkdir(parents=True, exist_ok=True)
    file, plain = folder / f"{job.kind}.safetensors", folder / "bf16.safetensors"
    if not plain.exists():
        write_dit(folder / "bf16", job.config, 0, DTYPE)
        (folder / "bf16" / "diffusion_pytorch_model.safetensors").rename(plain)
    if not file.exists():
        save_file(quantized(load_file(plain), job.kind), file)
    return file


_MAKERS = {"ours": _ours, "diffusers": _diffusers, "ours in ComfyUI": _in_host, "ComfyUI": _in_host}


def _measure(forward: Forward, job: Job, size: tuple[int, int, int]) -> dict[str, float]:
    """Median seconds of a forward, its FLOPs, and the most bytes beside the weights (0 on a CPU)."""
    config, (height, width, frames) = job.config, size
    latent = (frames + 3) // 4, height // 8, width // 8
    network = build_network(config, dtype=DTYPE)
    shape, words = (1, config.in_dim, *latent), (1, config.text_len, config.text_dim)
    flops = count(
        lambda: network(empty(*shape), torch.empty(1, device="meta"), empty(*words), attention=sdpa)
    ).flops
    x, text, sigma = (
        torch.randn(shape, device=device()),
        torch.randn(words, device=device()),
        torch.tensor([0.7]),
    )
    sigma, seconds, is_gpu = sigma.to(device()), [], device().type == "cuda"
    forward(x, sigma, text)  # kernels are chosen and compiled
    before = 0
    if is_gpu:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    for _ in range(job.rounds):
        _wait()
        start = time.perf_counter()
        forward(x, sigma, text)
        _wait()
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() - before if is_gpu else 0
    return {"seconds": statistics.median(seconds), "flops": flops, "peak": peak}


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def bare_product(is_tiny: bool) -> float:
    """FLOPs per second of a plain product of bfloat16 matrices, as large as those of the feed-forward."""
    rows, columns, more = (512, 256, 512) if is_tiny else (32760, 5120, 13824)
    a, b = (torch.randn(shape, device=device(), dtype=DTYPE) for shape in ((rows, columns), (columns, more)))
    seconds = []
    for _ in range(6):
        _wait()
        start = time.perf_counter()
        a @ b
        _wait()
        seconds.append(time.perf_counter() - start)
    return 2 * rows * columns * more / min(seconds)


@torch.inference_mode()
def measure(job: Job) -> dict[str, dict[str, dict[str, float]]]:
    """{"sizes": {size: {"seconds", "flops", "peak"}}} of a forward."""
    forward = _MAKERS[job.who](job)
    return {"sizes": {name: _measure(forward, job, size) for name, size in job.sizes.items()}}


def main() -> None:
    print(json.dumps(measure(Job(**json.loads(sys.argv[1])))))
