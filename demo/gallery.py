"""docs/demo.webp: what the miniatures make of the demos' prompts, side by side. `python -m demo.gallery`"""

import os
import tempfile
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from demo.miniature import TASKS, Task, frames_of, prepare, prompt_of
from devhost.host import ROOT, Host
from devhost.setup_host import HOST

FILE = ROOT / "docs" / "demo.webp"
_SIDE, _FRAMES, _MILLISECONDS = 192, 48, 62


def make(host: Path, task: Task) -> Tensor:
    """The video [T, H, W, 3] of a task's own prompt."""
    with tempfile.TemporaryDirectory(prefix="wan22-gallery-") as folder:
        base = Path(folder)
        prepare(task, base)
        with Host(host, base=base) as server:
            return frames_of(server, prompt_of(task, task.prompt))


def row(videos: list[Tensor], index: int) -> Image.Image:
    """One frame of all videos side by side; a shorter one begins again."""
    sheet = Image.new("RGB", (_SIDE * len(videos), _SIDE))
    for column, video in enumerate(videos):
        pixels = (video[index % len(video)] * 255).round().to(torch.uint8).numpy()
        picture = Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
        sheet.paste(picture, (_SIDE * column, 0))
    return sheet


def main() -> None:
    comfyui = Path(os.environ.get("COMFYUI", HOST)).resolve()
    videos = [make(comfyui, task) for task in TASKS.values() if task.is_there]
    first, *rest = (row(videos, index) for index in range(_FRAMES))
    first.save(FILE, save_all=True, append_images=rest, duration=_MILLISECONDS, loop=0, quality=80)


if __name__ == "__main__":
    main()
