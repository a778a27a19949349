"""docs/demo.webp: videos of the miniature side by side, one for each prompt. `python -m demo.gallery`"""

import os
import tempfile
from pathlib import Path

import torch
from PIL import Image

from demo.miniature import TASKS, frames_of, place_miniature, prompt_of
from devhost.host import ROOT, Host
from devhost.setup_host import HOST

PROMPTS = (
    "A red ball moves to the right before a blue background.",
    "A large yellow star flies up before a black background.",
    "一个蓝色的方块在白色背景前向左移动",
    "A small purple triangle moves down slowly, on a green background.",
)
FILE = ROOT / "docs" / "demo.webp"
_SCALE = 2


def main() -> None:
    task = TASKS["t2v"]
    with tempfile.TemporaryDirectory(prefix="wan22-gallery-") as folder:
        base = Path(folder)
        place_miniature(task.release, base / "models" / "wan" / task.release)
        with Host(Path(os.environ.get("COMFYUI", HOST)).resolve(), base=base) as host:
            videos = [frames_of(host, prompt_of(task, prompt)) for prompt in PROMPTS]
    frames = []
    for row in torch.cat(videos, dim=2):
        picture = Image.fromarray((row * 255).round().to(torch.uint8).numpy())
        frames.append(
            picture.resize((picture.width * _SCALE, picture.height * _SCALE), Image.Resampling.BICUBIC)
        )
    rest = frames[1:] + [frames[-1]] * 8  # the end stands for half a second
    frames[0].save(FILE, save_all=True, append_images=rest, duration=62, loop=0, quality=80)


if __name__ == "__main__":
    main()
