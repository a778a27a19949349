"""Tiny models, sounds and pictures for prompts of all tasks, below a server's base folder."""

import shutil
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from demo.tiny_release import write_release
from tests.support.formats import write_gguf, write_scaled_fp8
from tests.support.tests_media import write_sound, write_video
from wan_models.checkpoints.reader import open_model

REPLACED = "replaced.safetensors"
"""A low-noise expert that is replaced by another of the same name, now and then."""
CUT = "cut.safetensors"
LORA = "style.safetensors"
VERSIONS = 2


def write_files(base: Path, releases: tuple[str, ...]) -> None:
    """Writes the releases, copies of T2V-A14B's experts in packed formats, a LoRA, and input files."""
    models = base / "models"
    for seed, name in enumerate(releases):
        write_release(models / "wan" / name, seed=10 * seed, name=name)
    for name in ("diffusion_models", "loras"):
        (models / name).mkdir(parents=True, exist_ok=True)
    single = models / "diffusion_models"
    for expert in ("high", "low"):
        state = dict(open_model(models / "wan" / "T2V-A14B" / f"{expert}_noise_model"))
        write_scaled_fp8(single / f"fp8_{expert}.safetensors", state)
        write_gguf(single / f"gguf_{expert}.gguf", state, "Q8_0")
    (base / "versions").mkdir(exist_ok=True)
    for version in range(VERSIONS):
        changed = {name: w * (1 + 2 * version) if "ffn" in name else w for name, w in state.items()}
        save_file(changed, base / "versions" / f"{version}.safetensors")
    shutil.copy(base / "versions" / "0.safetensors", single / REPLACED)
    (single / CUT).write_bytes((single / REPLACED).read_bytes()[:-999])
    _write_lora(models / "loras" / LORA, load_file(single / REPLACED))
    _write_inputs(base / "input")


def replace(base: Path, version: int, in_place: bool) -> None:
    """Gives the name REPLACED to another version: a new file, or new bytes in the file that is there."""
    file, source = (
        base / "models" / "diffusion_models" / REPLACED,
        base / "versions" / f"{version}.safetensors",
    )
    if in_place:
        file.write_bytes(source.read_bytes())
    else:
        shutil.copy(source, file.with_suffix(".new"))
        file.with_suffix(".new").replace(file)


def _write_lora(file: Path, state: dict[str, torch.Tensor]) -> None:
    generator = torch.Generator().manual_seed(5)
    lora = {}
    for module in ("blocks.0.self_attn.q", "blocks.1.ffn.0"):
        rows, columns = state[f"{module}.weight"].shape
        down = torch.randn(4, columns, generator=generator) / 16
        lora[f"diffusion_model.{module}.lora_A.weight"] = down
        lora[f"diffusion_model.{module}.lora_B.weight"] = torch.randn(rows, 4, generator=generator)
    save_file(lora, file)


def _write_inputs(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    pixels = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    Image.fromarray(pixels.numpy()).save(folder / "picture.png")
    write_sound(folder / "voice.wav", 0.7)
    for seed, (name, size) in enumerate({"pose": (64, 48), "driving": (64, 48), "face": (512, 512)}.items()):
        write_video(folder / f"{name}.mp4", 9, size, seed=seed, grain=size[0] // 32)
