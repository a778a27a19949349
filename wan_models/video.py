"""Frames of a video file at another rate, exact to the frame.

The packets are read first: their timestamps say which frames there are, without decoding. Then only the frames that
are wanted are decoded. Source of the choice of frames: get_frame_indices of the official preprocessing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

# a frame further than this from its place in a constant rate, in frames, makes the rate a variable one
_JITTER = 0.51


@dataclass(frozen=True)
class VideoIndex:
    """The frames of a file. times: seconds of each frame after the first, ascending; stamps: the same in the file's own
    units, as decoded frames carry them; fps: frames per second, on average where it varies."""

    path: Path
    times: np.ndarray
    stamps: tuple[int, ...]
    fps: float

    @property
    def is_constant(self) -> bool:
        """Whether each frame lasts as long as any other."""
        places = np.arange(len(self.times))
        return bool(np.abs(self.times * self.fps - places).max() < _JITTER)

    @property
    def seconds(self) -> float:
        """How long the video lasts; its last frame as long as an average one."""
        if self.is_constant:
            return len(self.times) / self.fps
        return float(self.times[-1]) + 1 / self.fps

    def choose(self, fps: float, start: float = 0.0, length: int = 0) -> list[int]:
        """Numbers of the frames seen at start, start + 1 / fps ... seconds; length 0: to the end of the video.

        fps 0: the video's own. Raises ValueError where the video ends before `start`."""
        if start >= self.seconds:
            raise ValueError(
                f"{self.path.name} lasts {self.seconds:.2f} s, and the first frame was to be at {start:g} s"
            )
        fps = fps or self.fps
        count = max(1, int((self.seconds - start) * fps + 1e-6))
        times = start + np.arange(0, min(length, count) if length else count) / fps
        if self.is_constant:
            chosen = np.round(times * self.fps).astype(int)
        else:  # the frame nearest in time
            after = np.searchsorted(self.times, times)
            before = np.clip(after - 1, 0, None)
            after = np.clip(after, 0, len(self.times) - 1)
            nearer = times - self.times[before] <= self.times[after] - times
            chosen = np.where(nearer, before, after)
        return np.clip(chosen, 0, len(self.times) - 1).tolist()


def read_index(path: str | Path) -> VideoIndex:
    """What frames a video file has. ValueError where it is no video, or broken."""
    path = Path(path)
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path.name} holds no video")
            stream = container.streams.video[0]
            rate, base = stream.average_rate or stream.guessed_rate, stream.time_base or Fraction(1, 1)
            packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
    except (av.FFmpegError, OSError) as error:
        raise ValueError(
            f"{path.name} cannot be read as a video ({error}): the file is broken or incomplete"
        ) from error
    if not packets:
        raise ValueError(f"{path.name} holds no frames: the file is broken or incomplete")
    stamps = sorted(
        p.pts if p.pts is not None else p.dts if p.dts is not None else i for i, p in enumerate(packets)
    )
    times = np.array([float((stamp - stamps[0]) * base) for stamp in stamps])
    fps = float(rate) if rate else (len(times) - 1) / times[-1] if len(times) > 1 else 1.0
    return VideoIndex(path, times, tuple(stamps), fps)


def read_frames(index: VideoIndex, chosen: list[int]) -> Iterator[np.ndarray]:
    """Yields the frames of these ascending numbers, [H, W, 3] of bytes, turned upright; one that was asked for twice
    comes twice. ValueError where the file is broken before the last of them."""
    wanted = [index.stamps[i] for i in chosen]
    done, previous = 0, None
    try:
        with av.open(str(index.path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            if wanted[0] > index.stamps[0]:
                container.seek(wanted[0], stream=stream)  # to the key frame before
            for number, frame in enumerate(container.decode(stream)):
                stamp = frame.pts if frame.pts is not None else number
                while done < len(wanted) and wanted[done] <= stamp:
                    # a frame that cannot be decoded is stood in for by the next one
                    if previous is None or previous[0] != stamp:
                        previous = (stamp, _upright(frame))
                    yield previous[1]
                    done += 1
                if done == len(wanted):
                    return
    except av.FFmpegError as error:
        raise ValueError(f"{index.path.name} is broken at frame {chosen[done]} ({error})") from error
    if previous is None or len(wanted) - done > max(2, len(wanted) // 10):
        raise ValueError(
            f"{index.path.name} breaks off: {done} of {len(wanted)} frames could be decoded, the file is incomplete"
        )
    for _ in range(done, len(wanted)):
        yield previous[1]


def _upright(frame: av.VideoFrame) -> np.ndarray:
    pixels = frame.to_ndarray(format="rgb24")
    quarters = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, quarters)) if quarters else pixels


def read_sound(path: str | Path) -> tuple[np.ndarray, int]:
    """The first sound track of a file: [channels, N] in -1..1 and its rate; one silent sample where there is none.
    What cannot be decoded is left out."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return np.zeros((2, 1), np.float32), 44100
        stream = container.streams.audio[0]
        to_float = av.AudioResampler(format="fltp")
        parts = []
        try:
            for frame in container.decode(stream):
                parts += [part.to_ndarray() for part in to_float.resample(frame)]
        except av.FFmpegError:
            pass  # the pictures say what is broken
        rate = stream.rate
    return (np.concatenate(parts, axis=1) if parts else np.zeros((2, 1), np.float32)), rate
