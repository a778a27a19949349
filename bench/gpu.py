"""What a card makes of the transformers at their real sizes: `make bench-gpu` on a machine with one.

A few blocks with random weights (all are alike), in each format and with each attention that runs here: ours by
itself, ours in ComfyUI, ComfyUI's own and diffusers'. Every line is measured in a process of its own. Writes a table
and a JSON. Without a card it runs on the CPU, which `--tiny` makes bearable.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bench.accounting import MODELS, table
from bench.gpu_job import MODEL, ROOT, Job, bare_product
from wan_models.attention import Backend, available

BLOCKS = MODELS[MODEL].num_layers
FORMATS = ("bf16", "float8_e4m3fn", "mxfp8", "nvfp4", "int8_tensorwise")
_HEAD = [
    "", "weights", "attention", "size", "ms per block", "s per forward", "TFLOP/s", "of a bare product", "GB at most",
]  # fmt: skip


def jobs(chosen: argparse.Namespace, folder: str) -> Iterator[Job]:
    """All lines of the table, one after the other."""
    more = chosen.blocks, chosen.rounds, chosen.tiny, folder, str(chosen.comfyui.resolve())
    for backend, why_not in available().items():
        if backend is not Backend.AUTO:
            if why_not:
                print(f"attention {backend.value}: not measured, {why_not}")
            else:
                yield Job("ours", "bf16", backend.value, *more)
    yield Job("diffusers", "bf16", Backend.SDPA.value, *more)
    if (chosen.comfyui / "comfy").is_dir():
        for kind in FORMATS:
            for who in ("ours in ComfyUI", "ComfyUI"):
                yield Job(who, kind, "ComfyUI's", *more)
    else:
        print(f"ComfyUI: not measured, there is none in {chosen.comfyui} (--comfyui FOLDER)")


def run(job: Job) -> dict[str, Any]:
    """Measurements of a process of its own: {"sizes": {size: {"seconds", "flops", "peak"}}}, or {"error"}."""
    code = "from bench.gpu_job import main; main()"
    command = [sys.executable, "-c", code, json.dumps(asdict(job))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"sizes"')]
    if done.returncode or not lines:
        return {"error": (done.stderr.strip() or f"ended with {done.returncode}").splitlines()[-1][:200]}
    return json.loads(lines[-1])


def rows_of(results: list[dict[str, Any]], product: float) -> list[list[str]]:
    """The table's rows. product: FLOPs per second of a bare product."""
    rows = [_HEAD]
    for result in results:
        job = result["job"]
        first = [job["who"], job["kind"], job["attention"]]
        if "error" in result:
            rows.append([*first, "", f"not measured: {result['error']}", "", "", "", ""])
            continue
        for size, seen in result["sizes"].items():
            block, rate = seen["seconds"] / job["blocks"], seen["flops"] / seen["seconds"]
            peak = f"{seen['peak'] / 1e9:.2f}" if seen["peak"] else ""
            rows.append([
                *first, size, f"{block * 1e3:.2f}", f"{block * BLOCKS:.2f}", f"{rate / 1e12:.2f}",
                f"{rate / product:.0%}", peak,
            ])  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--comfyui", type=Path, default=ROOT / ".host" / "ComfyUI", help="a ComfyUI's folder")
    parser.add_argument("--blocks", type=int, default=4, help=f"of the {BLOCKS} of a model")
    parser.add_argument("--rounds", type=int, default=5, help="forwards, of whose times the median counts")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try it without a card")
    parser.add_argument("--out", type=Path, default=Path("bench_gpu.json"), help="all numbers")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wan22-bench-") as folder:
        results = []
        for job in jobs(chosen, folder):
            print(f"{job.who}, {job.kind}, attention {job.attention} ...", flush=True)
            results.append({"job": asdict(job), **run(job)})
    product = bare_product(chosen.tiny)
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.processor()})"
    whole = {"card": card, "torch": torch.__version__, "product": product, "results": results}
    chosen.out.write_text(json.dumps(whole, indent=1) + "\n")
    print(f"\n{MODEL}, {chosen.blocks} of {BLOCKS} blocks, on {card}, torch {torch.__version__}\n")
    print(table(rows_of(results, product)))
    print(f"\nA bare product of bfloat16 reaches {product / 1e12:.2f} TFLOP/s here. Numbers: {chosen.out}")


if __name__ == "__main__":
    main()
