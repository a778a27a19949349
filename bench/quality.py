"""What each shortcut costs: pictures made in a real ComfyUI with the trained miniature, beside those without it.

`python -m bench.quality` prints the table of docs/quality.md: how many of the captions that were held out of training a
video obeys (by image analysis), and how near it is to the one of the same seed without the shortcut. Seconds are not
told: of so small a model they say nothing of the real ones.
"""

import argparse
import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from demo.miniature import MINIATURE, TASKS, frames_of, place_miniature, prompt_of
from devhost.host import Host
from devhost.setup_host import HOST
from training.copies import write_gguf
from training.world.measure import look, obeyed, psnr
from training.world.objects import held_out
from training.world.words import caption
from wan_models import load_dit

Graph = dict[str, Any]
EXPERTS = ("high", "low")
ASPECTS = ("colour", "background", "motion")


def inputs(class_type: str, **changes: Any) -> Callable[[Graph], None]:
    """Sets inputs of all nodes of a class."""

    def change(graph: Graph) -> None:
        for node in graph.values():
            if node["class_type"] == class_type:
                node["inputs"] |= changes

    return change


def files(pattern: str) -> Callable[[Graph], None]:
    """Loads both experts from other files; pattern: their name, with {} for "high" or "low"."""

    def change(graph: Graph) -> None:
        for node in graph.values():
            if node["class_type"] == "WanDiTLoader":
                which = "high" if "high" in node["inputs"]["model_name"] else "low"
                node["inputs"]["model_name"] = pattern.format(which)

    return change


def between(class_type: str, **settings: Any) -> Callable[[Graph], None]:
    """Puts a node of the host between each expert and the sampler."""

    def change(graph: Graph) -> None:
        for name, node in list(graph.items()):
            if node["class_type"] == "WanMoESampler":
                for which in EXPERTS:
                    added = f"{name}_{which}"
                    model = node["inputs"][f"model_{which}"]
                    graph[added] = {"class_type": class_type, "inputs": {"model": model, **settings}}
                    node["inputs"][f"model_{which}"] = [added, 0]

    return change


def four_steps(graph: Graph) -> None:
    """The distilled pair of LoRAs and its preset."""
    for name, node in list(graph.items()):
        if node["class_type"] == "WanMoESampler":
            wires = [node["inputs"]["model_high"], node["inputs"]["model_low"]]
            for which in EXPERTS:
                graph[added := f"{name}_{which}_lora"] = {
                    "class_type": "WanLoRA",
                    "inputs": {
                        "model_high": wires[0], "model_low": wires[1],
                        "lora_name": f"t2v_4steps_{which}_noise.safetensors",
                        "strength_high": float(which == "high"), "strength_low": float(which == "low"),
                    },
                }  # fmt: skip
                wires = [[added, 0], [added, 1]]
            node["inputs"] |= {
                "model_high": wires[0],
                "model_low": wires[1],
                "preset": "T2V-A14B 4-step LoRA",
            }


def many_gpus(graph: Graph) -> None:
    """Two worker processes, here on the CPU."""
    for node in graph.values():
        if node["class_type"] == "WanMoESampler":
            node["class_type"] = "WanMultiGPUSampler"
            node["inputs"] |= {"gpus": 2, "timeout": 60}


SHORTCUTS: dict[str, Callable[[Graph], None]] = {
    "weights in bfloat16": inputs("WanDiTLoader", weight_dtype="bf16"),
    "weights in fp8, unscaled": inputs("WanDiTLoader", weight_dtype="fp8_e4m3fn"),
    "GGUF Q8_0": files("{}_Q8_0.gguf"),
    "GGUF Q4_0": files("{}_Q4_0.gguf"),
    "EasyCache, threshold 0.2": between(
        "EasyCache", reuse_threshold=0.2, start_percent=0.15, end_percent=0.95, verbose=False
    ),
    "20 steps": inputs(
        "WanMoESampler", preset="custom", steps=20, shift=12.0, cfg_high=4.0, cfg_low=3.0, boundary=0.875
    ),
    "4 steps, distilled LoRAs": four_steps,
    "VAE in tiles of 64 pixels": inputs("WanVAEDecode", tile_size=64),
    "two processes": many_gpus,
}  # fmt: skip


def place(base: Path) -> None:
    """The miniature in a ComfyUI's folder, with its copies in other formats and its LoRAs."""
    release = base / "models" / "wan" / "T2V-A14B"
    place_miniature("T2V-A14B", release)
    copies, loras = base / "models" / "diffusion_models", base / "models" / "loras"
    for folder in (copies, loras):
        folder.mkdir(parents=True)
    for which in EXPERTS:
        state = load_dit(release / f"{which}_noise_model", dtype=torch.float32).state_dict()
        for kind in ("Q8_0", "Q4_0"):
            write_gguf(copies / f"{which}_{kind}.gguf", state, kind)
    for lora in (MINIATURE / "loras").iterdir():
        (loras / lora.name).write_bytes(lora.read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--videos", type=int, default=16, help="of each kind")
    count = parser.parse_args().videos
    rng = random.Random(2024)
    scenes = [held_out(rng) for _ in range(count)]
    captions = [caption(facts, rng, "zh" if i % 3 == 2 else "en") for i, facts in enumerate(scenes)]
    print(
        "| shortcut | captions obeyed | with the shape right | PSNR to the same without, dB |\n"
        "| --- | ---: | ---: | ---: |"
    )
    with tempfile.TemporaryDirectory(prefix="wan22-quality-") as folder:
        place(Path(folder))
        with Host(Path(os.environ.get("COMFYUI", HOST)).resolve(), base=Path(folder)) as host:
            plain = []
            for name, change in {"none": lambda graph: None, **SHORTCUTS}.items():
                videos = []
                for seed, text in enumerate(captions):
                    graph = prompt_of(TASKS["t2v"], text)
                    inputs("WanDiTLoader", weight_dtype="fp32")(graph)
                    inputs("WanMoESampler", seed=seed)(graph)
                    change(graph)
                    videos.append(frames_of(host, graph))
                plain = plain or videos
                seen = [(look(video), facts) for video, facts in zip(videos, scenes, strict=True)]
                told, whole = (
                    100 * sum(obeyed(shown, facts, aspects) for shown, facts in seen) / count
                    for aspects in (ASPECTS, (*ASPECTS, "kind"))
                )
                near = sum(psnr(a, b) for a, b in zip(videos, plain, strict=True)) / count
                distance = "" if videos is plain else f"{near:.1f}"
                print(f"| {name} | {told:.0f} % | {whole:.0f} % | {distance} |", flush=True)


if __name__ == "__main__":
    main()
