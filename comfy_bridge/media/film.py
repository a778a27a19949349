"""A film in the host's output folder that is written while its frames are made, so that they need not be kept."""

import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import comfy.cli_args
import comfy.model_management
import folder_paths
import torch
from torch import Tensor

from .. import compat


def _repeatable_options() -> dict[str, str]:
    """Options with which libx264 makes the same of the same frames. Its look ahead in AVX-512 code takes in memory that
    it has not written, so that two runs choose other qualities of blocks; the code for AVX2 does not, and takes no
    longer. Only where there is AVX-512: a processor without AVX2 would end at that option, another kind lose speed."""
    has_avx512 = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return {"x264-params": "asm=AVX2"} if has_avx512 else {}


class Film:
    """A film of H.264 in MP4, as the host's Save Video writes it, the same file for the same frames. Its file has its
    name when it is whole.

    prefix: name in the output folder, with sub-folders and the host's %variables%; a number is added. size: width and
    height. tags: what the host keeps in its films, so that the page opens a film as its workflow. Used as a context,
    which closes the film, or deletes it where something went wrong. Raises ValueError where the name leads out of the
    output folder, or nothing can be written there."""

    def __init__(self, prefix: str, size: tuple[int, int], fps: float, tags: Mapping[str, Any]) -> None:
        width, height = size
        try:
            location = folder_paths.get_save_image_path(
                prefix, folder_paths.get_output_directory(), width, height
            )
        except Exception as error:  # the host has no class of its own for it
            raise ValueError(
                f"filename_prefix {prefix!r} is no name in the output folder ({str(error).strip()}): give a name such "
                "as video/long"
            ) from None
        folder, name, number, self.subfolder, _ = location
        self.path = Path(folder) / f"{name}_{number:05}_.mp4"
        self._unfinished = self.path.with_suffix(".part")
        self._size, self._fps = size, fps
        self._tags = {} if comfy.cli_args.args.disable_metadata else tags
        self._matrix, self._note_colours = compat.film_colours()
        self._container: Any = None

    def __enter__(self) -> "Film":
        self._container = av.open(
            str(self._unfinished), "w", format="mp4", options={"movflags": "use_metadata_tags"}
        )
        for name, value in self._tags.items():
            self._container.metadata[name] = json.dumps(value)
        rate = Fraction(round(self._fps * 1000), 1000)
        stream = self._container.add_stream("h264", rate=rate, options=_repeatable_options())
        stream.width, stream.height = self._size
        stream.pix_fmt = "yuv420p"
        self._note_colours(stream.codec_context)
        return self

    def write(self, frames: Tensor) -> None:
        """Adds frames [T, H, W, 3] in 0..1; ends the run where Cancel was pressed."""
        for frame in frames:
            comfy.model_management.throw_exception_if_processing_interrupted()
            pixels = (frame * 255).clamp(0, 255).byte().cpu().numpy()
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture = picture.reformat(format="yuv420p", dst_colorspace=self._matrix)
            self._note_colours(picture)
            self._encode(picture)

    def _encode(self, picture: av.VideoFrame | None) -> None:
        try:
            self._container.mux(self._container.streams.video[0].encode(picture))
        except (av.FFmpegError, OSError) as error:
            raise ValueError(
                f"{self.path.name} cannot be written ({error}): make room in {self.path.parent}"
            ) from error

    def __exit__(self, kind: type[BaseException] | None, _: Any, __: TracebackType | None) -> None:
        try:
            if kind is None:
                self._encode(None)
                self._container.close()
                self._unfinished.replace(self.path)
        finally:
            self._container.close()
            self._unfinished.unlink(missing_ok=True)
