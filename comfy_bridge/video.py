"""A video file of the host's input folder as IMAGE."""

import os
from pathlib import Path
from typing import Any

import folder_paths
import torch
from torch import Tensor

from ..wan_models import images
from ..wan_models.video import read_frames, read_index, read_sound
from . import conditioning
from .progress import progress

FIT = [*conditioning.FIT, "original"]
"""At most width x height pixels in the video's own aspect; exactly that, cropped at the centre; as it is."""


def files() -> list[str]:
    """The videos of the input folder, sub-folders included."""
    root = Path(folder_paths.get_input_directory())
    found = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
    return sorted(folder_paths.filter_files_content_types(found, ["video"]))


def path_of(name: str) -> str:
    """The file of that name in the host's folders; ValueError where there is none, or it lies elsewhere."""
    path = folder_paths.get_annotated_filepath(name)
    roots = (
        folder_paths.get_input_directory(),
        folder_paths.get_output_directory(),
        folder_paths.get_temp_directory(),
    )
    inside = any(Path(root).resolve() in Path(path).resolve().parents for root in roots)
    if not inside or not os.path.isfile(path):
        raise ValueError(f"there is no video {name!r} in the input folder: upload it, or put it there")
    return path


def changed(name: str) -> float:
    """When the file was last written."""
    return os.path.getmtime(path_of(name))


def problem(name: str) -> bool | str:
    """True, or what is wrong with a file's name."""
    try:
        path_of(name)
    except ValueError as error:
        return str(error)
    return True


def load(
    name: str, fps: float, start: float, length: int, width: int, height: int, fit: str
) -> tuple[Tensor, float]:
    """IMAGE [T, H, W, 3] and the frames per second of it.

    fps 0: the file's own. length 0: to the end. Raises ValueError where the file is no video, is broken, or ends before
    `start`."""
    index = read_index(path_of(name))
    chosen = index.choose(fps, start, length)
    out: Tensor | None = None
    show = progress()
    for i, pixels in enumerate(read_frames(index, chosen)):
        frame = torch.from_numpy(pixels)[None].float() / 255
        if fit == "keep aspect":
            frame = images.video_size(frame, width * height)
        elif fit == "exact":
            frame = images.cover(frame, width, height)
        if out is None:
            out = frame.new_empty(len(chosen), *frame.shape[1:])
        out[i] = frame[0]
        show(i + 1, len(chosen))
    assert out is not None
    return out, fps or index.fps


def sound(name: str, start: float, seconds: float) -> dict[str, Any]:
    """AUDIO of a file's first sound track, `seconds` long from `start` on; silence where there is none."""
    waveform, rate = read_sound(path_of(name))
    first, count = round(start * rate), round(seconds * rate)
    waveform = torch.from_numpy(waveform)[None, :, first : first + count]
    return {
        "waveform": torch.nn.functional.pad(waveform, (0, count - waveform.shape[-1])),
        "sample_rate": rate,
    }
