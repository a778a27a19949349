"""A video file of the host's input folder as IMAGE."""

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import folder_paths
import psutil
import torch
from torch import Tensor

from ...wan_models.images.resize import resize_by_area, resize_crop
from ...wan_models.video import VideoIndex, read_frames, read_index, read_sound
from ..host_types import Audio
from ..listing import or_else
from ..progress import progress
from . import conditioning
from .audio import encodable

FIT = [*conditioning.FIT, "original"]
"""At most width x height pixels in the video's own aspect; exactly that, cropped at the centre; as it is."""


@or_else(list)
def files() -> list[str]:
    """The videos of the input folder, sub-folders included; links are followed where the host follows them."""
    root = folder_paths.get_input_directory()
    paths = []
    for folder, folders, names in os.walk(root, followlinks=True):
        above = {os.path.realpath(root), *map(os.path.realpath, _above(Path(folder), Path(root)))}
        folders[:] = [name for name in folders if os.path.realpath(os.path.join(folder, name)) not in above]
        paths += [os.path.relpath(os.path.join(folder, name), root) for name in names]
    return sorted(name for name in folder_paths.filter_files_content_types(paths, ["video"]) if _exists(name))


def _above(folder: Path, root: Path) -> list[Path]:
    """The folder and those that it lies in, below the root: a link to one of them would lead around for ever."""
    return [folder, *(parent for parent in folder.parents if root in parent.parents)]


def _exists(name: str) -> bool:
    """Whether the host opens a file of that name; a newer one refuses links that lead out of its folders."""
    try:
        return folder_paths.exists_annotated_filepath(name) and os.path.isfile(_path(name))
    except ValueError:
        return False


def _path(name: str) -> str:
    """Path of a file of that name; ValueError where it is outside of the host's folders."""
    bare, root = folder_paths.annotated_filepath(name)
    if Path(bare).is_absolute() or ".." in Path(bare).parts:
        raise ValueError(f"{name!r} is no name of a file in the input folder")
    return os.path.join(root or folder_paths.get_input_directory(), bare)


def path_of(name: str) -> str:
    """The file of that name in the host's folders; ValueError where there is none, or it lies elsewhere."""
    if not _exists(name):
        raise ValueError(
            f"there is no video {name!r} in the input folder: upload it, or put it there itself (newer ComfyUI "
            "follows no link that leads out of the folder)"
        )
    return _path(name)


def changed(name: str) -> float:
    """Time of the file's last change."""
    return os.path.getmtime(path_of(name))


def problem(name: str) -> bool | str:
    """True, or what is wrong with a file's name."""
    try:
        path_of(name)
    except ValueError as error:
        return str(error)
    return True


@dataclass(frozen=True)
class Video:
    """IMAGE [T, H, W, 3], its frames per second, AUDIO of the same length, and faults of the file in words."""

    frames: Tensor
    fps: float
    sound: Audio
    notes: list[str]


def _images(index: VideoIndex, count: int, frame: Tensor) -> Tensor:
    """An IMAGE of so many frames like this one, to be filled. ValueError, with the length that fits, where memory
    cannot hold them."""
    free = psutil.virtual_memory().available + psutil.swap_memory().free
    if count * frame.nbytes <= free:
        with suppress(RuntimeError):  # torch's error where the system gives less
            return frame.new_empty(count, *frame.shape[1:])
    raise ValueError(
        f"{count} frames of {index.path.name} at {frame.shape[2]} x {frame.shape[1]} take "
        f"{count * frame.nbytes / 2**30:.1f} GiB of memory as IMAGE, and {free / 2**30:.1f} GiB are free: a length of "
        f"{max(1, int(0.9 * free / frame.nbytes))} fits, and more at a smaller size"
    )


def load(name: str, *, fps: float, start: float, length: int, width: int, height: int, fit: str) -> Video:
    """A video at another rate and size, with its first sound track (silence where there is none) as a film can hold it.

    fps 0: the file's own. length 0: to the end. Raises ValueError where the file is no video, is broken, or ends before
    `start`. What is wrong with a file that can be used is logged too."""
    notes: list[str] = []

    def note(text: str) -> None:
        logging.warning("Wan Load Video: %s", text)
        notes.append(text)

    path = path_of(name)
    index = read_index(path)
    chosen = index.choose(fps, start, length)
    out: Tensor | None = None
    show = progress()
    for i, pixels in enumerate(read_frames(index, chosen, note)):
        frame = torch.from_numpy(pixels)[None].float() / 255
        if fit == "keep aspect":
            frame = resize_by_area(frame, width * height)
        elif fit == "exact":
            frame = resize_crop(frame, width, height)
        if out is None:
            out = _images(index, len(chosen), frame)
        elif frame.shape[1:] != out.shape[1:]:  # the size changes within the file
            frame = resize_crop(frame, out.shape[2], out.shape[1])
        out[i] = frame[0]
        show(i + 1, len(chosen))
    assert out is not None
    fps = fps or index.fps
    seconds = len(chosen) / fps
    waveform, rate = read_sound(path, index, start, seconds, note)
    padding = (0, round(seconds * rate) - waveform.shape[-1])
    sound = torch.nn.functional.pad(torch.from_numpy(waveform)[None], padding)
    return Video(out, fps, encodable(sound, rate, seconds), notes)
