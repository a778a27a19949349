"""Which frames a video file has, and when each is seen.

The packets are read, without decoding: their timestamps say which frames there are. Where that is not to be relied on
(a codec with hidden or repeated frames, timestamps that are missing or repeat, a beginning that decodes to something
else) the whole file is decoded once instead. A frame is known by the number of its packet, which a decoder carries
through as it would a timestamp, so that broken timestamps confuse nothing.
Source of the choice of frames: get_frame_indices of the official preprocessing.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.stream import Disposition

from .video_file import MAX_PIXELS, naming, open_media

# a frame further than this from its place in a constant rate, in frames, makes the rate a variable one
_JITTER = 0.51
# codecs of which each packet is one frame that is seen; others hide frames (vp8), or repeat and pack them (mpeg4, vc1)
_ONE_TO_ONE = {"h264", "hevc", "vvc", "vp9", "av1", "libdav1d", "mpeg1video", "mpeg2video", "dvvideo"}
_ONE_TO_ONE |= {
    "mjpeg",
    "jpeg2000",
    "prores",
    "dnxhd",
    "cfhd",
    "ffv1",
    "huffyuv",
    "ffvhuff",
    "utvideo",
    "rawvideo",
    "png",
}
MAX_FRAMES = 1_000_000
"""Most that can be read at a time: ten hours and more."""
# seconds between two frames; more only where there is sound between them, in parts of so many seconds or less
_LONGEST_GAP, _SOUND_PART = 30.0, 2.0
_HEAD = 24  # frames at the beginning that are decoded to see whether they are what the packets say
_WITH_DURATION = ("matroska", "mp4", "avi", "flv")  # formats whose header says how long a whole file lasts


@dataclass(frozen=True)
class VideoIndex:
    """The frames of a file, in the order in which they are seen.

    times: seconds of each after the first, ascending; packets: the number of the packet that each comes from, none
    where frames can only be counted; fps: frames per second, on average where it varies; keys: packets at which
    decoding may begin; begin: the first frame's own timestamp, in seconds; declared: how long the file says that it
    lasts, where it breaks off before, else 0; notes: what is wrong with the file, a sentence each."""

    path: Path
    times: np.ndarray
    packets: tuple[int, ...]
    fps: float
    keys: tuple[int, ...] = ()
    begin: float = 0.0
    declared: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def is_constant(self) -> bool:
        """Whether each frame lasts as long as any other."""
        places = np.arange(len(self.times))
        return bool(np.abs(self.times * self.fps - places).max() < _JITTER)

    @property
    def seconds(self) -> float:
        """Duration of the video; its last frame as long as an average one."""
        if self.is_constant:
            return len(self.times) / self.fps
        return float(self.times[-1]) + 1 / self.fps

    def choose(self, fps: float, start: float = 0.0, length: int = 0) -> list[int]:
        """Numbers of the frames seen at start, start + 1 / fps ... seconds; length 0: to the end of the video.

        fps 0: the video's own. Raises ValueError where the video ends before `start`, or breaks off before half of what
        was asked for."""
        if not (0 <= fps < math.inf and 0 <= start < math.inf):
            raise ValueError(f"fps and start must be finite and not below 0, not {fps} and {start}")
        if start >= self.seconds:
            raise ValueError(
                f"{Path(self.path).name} lasts {self.seconds:.2f} s, and the first frame was to be at {start:g} s"
            )
        fps = fps or self.fps
        count = max(1, int((self.seconds - start) * fps + 1e-6))
        if (min(count, length) if length else count) > MAX_FRAMES:
            raise ValueError(
                f"{Path(self.path).name} has {count} frames from {start:g} s on at {fps:g} per second, and up to "
                f"{MAX_FRAMES} can be read at a time: set length to that or less, or fps lower"
            )
        asked = int((self.declared - start) * fps)
        if 2 * count < (min(asked, length) if length else asked):
            raise ValueError(
                f"{Path(self.path).name} breaks off at {self.seconds:.2f} s of {self.declared:.2f} s: the file is "
                f"incomplete. Copy or download it again, or set length to what is there ({count} frames)"
            )
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


class _Packet(NamedTuple):
    pts: int | None
    dts: int | None
    key: bool
    hidden: bool  # by an edit list


def read_index(path: str | Path) -> VideoIndex:
    """Frames of a video file. ValueError where it is no video, or broken."""
    path = Path(path)
    heard: list[float] = []
    with naming(path):
        with open_media(path) as container:
            stream = picture_stream(container, path)
            codec, base = stream.codec_context.name, stream.time_base or Fraction(1, 1)
            rate = float(stream.average_rate or stream.guessed_rate or 0)
            start = float((stream.start_time or 0) * base)
            packets, end = [], 0.0
            for packet in read_packets(container):
                if packet.stream.index == stream.index:
                    packets.append(_Packet(packet.pts, packet.dts, packet.is_keyframe, packet.is_discard))
                stamp = packet.dts if packet.pts is None else packet.pts
                if stamp is not None and packet.time_base:
                    end = max(end, float((stamp + (packet.duration or 0)) * packet.time_base))
                    if packet.stream.type == "audio":
                        heard.append(float(stamp * packet.time_base))
            lasts = (container.duration or 0) / av.time_base
            kind = container.format.name
        order, counted = _order_of_packets(path, packets, codec), 0
        if not order:
            order, counted = _order_of_frames(path, packets, codec)
    if not order and not counted:
        raise ValueError(f"{path.name} holds no frames that can be decoded: the file is broken or incomplete")
    notes = []
    if order:
        times, begin, rate = _times(order, packets, base, rate, kind)
        places = _wild_gaps(times, begin, heard)
        if places.size:
            notes.append(
                f"{path.name} has no frames between {times[places[0]]:.2f} and {times[places[0] + 1]:.2f} s, and no "
                "sound, as after a wrong timestamp: they follow on there"
            )
            steps = np.diff(times)
            usual = min(float(np.median(steps)), _LONGEST_GAP)
            steps[places] = usual
            times = np.concatenate([[0.0], np.cumsum(steps)])
            rate = rate if 0.8 < rate * usual < 1.25 else 1 / usual
        shown = [p.pts for p in packets if not p.hidden and p.pts is not None]
        first = packets[order[0]].pts
    else:
        rate = rate or 1.0
        times, begin, first = np.arange(counted) / rate, start, None
    if first is not None and (missing := len([pts for pts in shown if pts < first])):
        frames = "frame" if missing == 1 else f"{missing} frames"
        notes.append(
            f"the first {frames} ({float((first - min(shown)) * base):.2f} s) of {path.name} cannot be decoded without "
            "others from before the file's beginning: the video begins after that"
        )
    slack = 0.75 * max(
        1 / rate, *np.diff(times), 0.0
    )  # not every format says how long the last frame is seen
    breaks_off = any(name in kind for name in _WITH_DURATION) and end + slack + 0.05 * (kind != "avi") < lasts
    if breaks_off:
        notes.append(f"{path.name} is incomplete: it lasts {end:.2f} s, and its header says {lasts:.2f} s")
    keys = tuple(i for i, packet in enumerate(packets) if packet.key)
    return VideoIndex(
        path, times, tuple(order), rate, keys, begin, lasts if breaks_off else 0.0, tuple(notes)
    )


def _wild_gaps(times: np.ndarray, begin: float, heard: list[float]) -> np.ndarray:
    """Numbers of the frames after which none comes for so long that one timestamp, and nothing else, says so."""
    long = np.flatnonzero(np.diff(times) > _LONGEST_GAP)
    at = np.sort(heard)
    parts = np.searchsorted(at, times[long + 1] + begin) - np.searchsorted(at, times[long] + begin)
    return long[parts * _SOUND_PART < times[long + 1] - times[long]]


def picture_stream(container: Any, path: Path) -> Any:
    """The first video stream that is no cover picture. ValueError where there is none, or no decoder for it."""
    streams = sorted(
        container.streams.video, key=lambda stream: bool(stream.disposition & Disposition.attached_pic)
    )
    if not streams:
        raise ValueError(f"{path.name} holds no video")
    coder = streams[0].codec_context
    if coder is None:
        raise ValueError(f"{path.name} is of a codec that cannot be decoded here: convert it to H.264")
    if coder.width * coder.height > MAX_PIXELS:
        raise ValueError(
            f"the pictures of {path.name} have {coder.width} x {coder.height} pixels, and up to {MAX_PIXELS} can be "
            "read: make them smaller"
        )
    coder.options = {"max_pixels": str(MAX_PIXELS)}  # as they may become later in the file
    return streams[0]


def read_packets(container: Any, stream: Any = None) -> Iterator[Any]:
    """Yields the packets that hold something; a place that cannot be read is passed over."""
    progress = True
    while progress:
        progress = False
        try:
            for packet in container.demux(*([stream] if stream else [])):
                if packet.size:
                    progress = True
                    yield packet
            return
        except av.FFmpegError:
            continue


def decode(
    path: Path, first: int = 0, threads: str = "NONE", failed: list[int] | None = None
) -> Iterator[tuple[int | None, av.VideoFrame]]:
    """Yields (number of its packet, frame) in the order in which they are seen, from packet `first` on.

    failed: takes the numbers of packets that are damaged; without it they raise av.FFmpegError. threads: AUTO is fast;
    with NONE errors belong to the packet at hand, and H.264 marks what it mended."""
    with open_media(path) as container:
        stream = picture_stream(container, path)
        stream.thread_type = threads
        for number, packet in enumerate(read_packets(container, stream)):
            if number < first:
                continue  # reading is quick, and unlike a container's seek sure of where it is
            packet.pts = packet.dts = number
            if packet.is_corrupt:  # of which a decoder may make a picture that it does not mark
                if failed is None:
                    raise av.InvalidDataError(0, "a packet is damaged", str(path))
                failed.append(number)
            try:
                frames = packet.decode()
            except av.FFmpegError:
                if failed is None:
                    raise
                failed.append(number)
                continue
            yield from ((frame.pts, frame) for frame in frames)
        try:
            yield from ((frame.pts, frame) for frame in stream.codec_context.decode(None))
        except av.FFmpegError:
            if failed is None:
                raise


def _order_of_packets(path: Path, packets: list[_Packet], codec: str) -> list[int] | None:
    """The packets in the order of their timestamps; None where that cannot be relied on."""
    order = [i for i, packet in enumerate(packets) if not packet.hidden and packet.pts is not None]
    order.sort(key=lambda i: packets[i].pts)  # type: ignore[arg-type,return-value]
    stamps = [packets[i].pts for i in order]
    decoding = [packet.dts for packet in packets if packet.dts is not None]
    if (
        codec not in _ONE_TO_ONE
        or len(order) < sum(not packet.hidden for packet in packets)
        or len(set(stamps)) < len(stamps)
        or decoding != sorted(decoding)
    ):
        return None
    try:
        head = [number for number, _ in islice(decode(path, threads="AUTO"), _HEAD)]
    except av.FFmpegError:
        return None
    if not head or head[0] not in order:
        return None
    order = order[order.index(head[0]) :]
    return order if order[: len(head)] == head else None


def _order_of_frames(path: Path, packets: list[_Packet], codec: str) -> tuple[list[int], int]:
    """The packets in the order in which they are seen when all are decoded, those that cannot be decoded among them;
    and the number of frames. No packets where a decoder does not say which one a frame comes from."""
    failed: list[int] = []
    try:
        decoded = [(number, frame.interlaced_frame) for number, frame in decode(path, threads="AUTO")]
    except av.FFmpegError:
        decoded = [(number, frame.interlaced_frame) for number, frame in decode(path, failed=failed)]
    order = [number for number, _ in decoded if number is not None]
    if not order or len(set(order)) < len(decoded):
        return [], len(decoded)
    if codec in _ONE_TO_ONE and not any(
        interlaced for _, interlaced in decoded
    ):  # of which two may be one frame
        failed = [i for i, packet in enumerate(packets) if not packet.hidden]
    have_stamps = all(packet.pts is not None for packet in packets)
    places: list[Any] = [packet.pts if have_stamps else i for i, packet in enumerate(packets)]
    reached = list(accumulate((places[i] for i in order), max))
    lost = [(bisect_right(reached, places[i]), places[i], i) for i in sorted(set(failed) - set(order))]
    for at, _, number in sorted(lost, reverse=True):
        if at:  # otherwise it lies before the beginning
            order.insert(at, number)
    return order, len(order)


def _times(
    order: list[int], packets: list[_Packet], base: Fraction, rate: float, kind: str
) -> tuple[np.ndarray, float, float]:
    """Seconds of each frame after the first, the first's own timestamp in seconds, and frames per second."""
    presented = [packets[i].pts for i in order]
    decoding = [packets[i].dts for i in order]
    if None not in decoding:
        decoding.sort()  # type: ignore[type-var]
    times = None
    for stamps in (presented, decoding):
        if None not in stamps and all(a < b for a, b in pairwise(stamps)):  # type: ignore[operator]
            times = np.array([float((stamp - stamps[0]) * base) for stamp in stamps])  # type: ignore[operator]
            if kind == "avi" and len(order) > 2 and order != sorted(order):
                # it has no times of presentation; those of the first frames differ by what the decoder delays
                times[1:] += times[2] - times[1] - times[1]
            break
    if times is None:
        times = np.arange(len(order)) / (rate or 1.0)
    first = presented[0] if presented[0] is not None else decoding[0]
    begin = float(first * base) if first is not None else 0.0
    if len(times) > 1:
        measured, usual = (len(times) - 1) / times[-1], 1 / np.median(np.diff(times))
        if not rate or all(not 0.8 < each / rate < 1.25 for each in (measured, usual)):
            rate = float(measured)  # the file's own is a wrong one, as of fields
    return times, begin, rate or 1.0
