"""Frames and sound of a video file, exact to the frame and to the sample.

Only the frames that are wanted are decoded, from a key frame before them on. What comes out is held against the index
(video_index.py): the key frame first, then every frame in turn, none of them damaged. Otherwise, as after a key frame
that is none, the file is decoded from its beginning, and what is missing even then is said.

Read with PyAV, though the official code has decord: of the 48 kinds of files that the tests write, decord2 3.4.0 gives
wrong frames of 20 after a seek and of 8 even in order. Where decord is right both give the same frames, by test, and it
saves at most 2 ms a frame. docs/numerics.md has the numbers.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer

from .video_file import naming, open_media
from .video_index import VideoIndex, decode, read_index, read_packets
from .wording import counted

__all__ = ["VideoIndex", "read_frames", "read_index", "read_sound"]

Note = Callable[[str], None]
"""Takes a sentence about what is wrong with a file."""

_warn: Note = logging.getLogger(__name__).warning
# sound that is off its timestamps by less follows on from what is before: containers round to milliseconds
_SLACK = 0.015
# a timestamp that is further back than this, in seconds, begins a new count, and is no overlap
_RESTART = 1.0
# seconds that timestamps alone may add to a sound, and more than any real one has
_LONGEST_SILENCE = 600.0
_HIGHEST_RATE, _MOST_CHANNELS = 768_000, 32


class _NotAsListed(Exception):
    """Decoding from a key frame gave something else than the index says."""


def read_frames(index: VideoIndex, chosen: list[int], note: Note = _warn) -> Iterator[np.ndarray]:
    """Yields the frames of these ascending numbers, [H, W, 3] of bytes, turned upright; one that was asked for twice
    comes twice.

    A frame that cannot be decoded is stood in for by the one before it. `note` takes a sentence on which those are, on
    those that are damaged, and on whatever else is wrong with the file. ValueError where more than one in ten is
    missing."""
    for sentence in (*index.notes, *_gaps(index, chosen)):
        note(sentence)
    with naming(index.path):
        yield from _frames(index, chosen, note)


def _frames(index: VideoIndex, chosen: list[int], note: Note) -> Iterator[np.ndarray]:
    name, done = index.path.name, 0
    try:
        for number, frame in _in_turn(index, chosen[0], chosen[-1]):
            if number == chosen[done]:
                pixels = _upright(frame)
            while done < len(chosen) and number == chosen[done]:
                yield pixels
                done += 1
        return
    except (_NotAsListed, av.FFmpegError):
        pass
    missing: list[int] = []
    damaged: list[int] = []
    before: av.VideoFrame | None = None
    for number, frame, intact in _from_the_beginning(index):
        while done < len(chosen) and chosen[done] <= number:
            if chosen[done] < number:
                missing.append(done)
                _check_missing(name, missing, chosen)
            elif not intact:
                damaged.append(done)
            yield _upright(frame if chosen[done] == number or before is None else before)
            done += 1
        before = frame
        if done == len(chosen):
            break
    for place in range(done, len(chosen)):
        missing.append(place)
        _check_missing(name, missing, chosen)
        assert before is not None
        yield _upright(before)
    if missing:
        note(
            f"{name} is damaged: {_places(index, chosen, missing)} cannot be decoded, and repeat the one before"
        )
    if damaged:
        note(f"{name} is damaged: {_places(index, chosen, damaged)} may be wrong in part")


def _in_turn(index: VideoIndex, first: int, last: int) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yields (number, frame) from the key frame before `first` on. Raises _NotAsListed, or what av raises, where that
    may differ from decoding all of the file."""
    places: dict[int | None, int] = {packet: number for number, packet in enumerate(index.packets)}
    earlier = [places[key] for key in index.keys if places.get(key, first + 1) <= first]
    begin = max(earlier, default=0)
    expected = begin
    for count, (packet, frame) in enumerate(decode(index.path, index.packets[begin] if begin else 0, "AUTO")):
        number = places.get(packet, -1) if places else count
        if number < begin:
            continue  # leans on a frame before the key frame
        is_key = frame.key_frame and frame.pict_type == av.video.frame.PictureType.I
        if number != expected or frame.is_corrupt or (begin and number == begin and not is_key):
            raise _NotAsListed
        yield number, frame
        expected += 1
        if number == last:
            return
    raise _NotAsListed


def _from_the_beginning(index: VideoIndex) -> Iterator[tuple[int, av.VideoFrame, bool]]:
    """Yields (number, frame, whether it is intact) of all frames that can be decoded. One that is missing or damaged
    leaves its mark on all up to the next key frame."""
    places: dict[int | None, int] = {packet: number for number, packet in enumerate(index.packets)}
    failed: list[int] = []
    intact, expected = True, 0
    for count, (packet, frame) in enumerate(decode(index.path, failed=failed)):
        number = places.get(packet, -1) if places else count
        if number < expected:
            continue
        if frame.is_corrupt or packet in failed:
            intact = False
        elif frame.key_frame:
            intact = True
        elif number > expected:
            intact = False
        yield number, frame, intact
        expected = number + 1


def _check_missing(name: str, missing: list[int], chosen: list[int]) -> None:
    if len(missing) > max(2, len(chosen) // 10) or len(missing) == len(chosen):
        raise ValueError(
            f"{name} is broken: of {len(chosen)} frames at least {len(missing)} cannot be decoded, the first of them "
            f"frame {missing[0]} of the result. Copy or download it again, or choose another part with start and length"
        )


def _places(index: VideoIndex, chosen: list[int], positions: list[int]) -> str:
    """'frames 3-5, 9 of the result (1.20-1.76 s of the file)'."""
    runs: list[list[int]] = []
    for place in positions:
        if runs and place == runs[-1][-1] + 1:
            runs[-1][-1] = place
        else:
            runs.append([place, place])
    shown = ", ".join(f"{first}-{last}" if last > first else f"{first}" for first, last in runs[:20])
    more = f" and {counted(len(runs) - 20, 'more place')}" if len(runs) > 20 else ""
    first, last = (index.times[chosen[place]] for place in (positions[0], positions[-1]))
    name = "frame" if len(positions) == 1 else "frames"
    return f"{name} {shown}{more} of the result ({first:.2f}-{last:.2f} s of the file)"


def _gaps(index: VideoIndex, chosen: list[int]) -> Iterator[str]:
    """A sentence on frames that a file of one rate lacks."""
    steps = np.diff(index.times)
    if not steps.size or index.is_constant:
        return
    usual = float(np.median(steps))
    if (np.abs(steps - usual) < 0.5 * usual).mean() < 0.9:
        return  # a variable rate
    lacking = [i for i in np.flatnonzero(steps > 1.5 * usual).tolist() if chosen[0] <= i < chosen[-1]]
    if lacking:
        first, last = index.times[lacking[0]], index.times[lacking[0] + 1]
        more = f", and the like in {counted(len(lacking) - 1, 'more place')}" if len(lacking) > 1 else ""
        place = f"between {first:.2f} and {last:.2f} s{more}"
        yield f"{index.path.name} has no frames {place}: the nearest ones are repeated"


def _upright(frame: av.VideoFrame) -> np.ndarray:
    """A frame's pixels, turned and mirrored as its display matrix says: p' = a p + c q, q' = b p + d q."""
    pixels = frame.to_ndarray(format="rgb24")
    # not frame.side_data: frame and container would refer to each other, and keep the frame in memory
    container: Any = SideDataContainer(frame)  # type: ignore[call-arg]
    data = container.get("DISPLAYMATRIX")
    if data is None:
        return pixels
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):  # rows become columns
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def read_sound(
    path: str | Path,
    index: VideoIndex | None = None,
    start: float = 0.0,
    seconds: float | None = None,
    note: Note = _warn,
) -> tuple[np.ndarray, int]:
    """The first sound track of a file from `start` seconds after the first frame on: [channels, N] in -1..1, and its
    rate; one silent sample where there is none.

    Each part lies where its timestamp says; what is missing or cannot be decoded is silence, and `note` takes a
    sentence on what cannot."""
    with naming(Path(path)):
        return _sound(Path(path), index, start, seconds, note)


def _sound(
    path: Path, index: VideoIndex | None, start: float, seconds: float | None, note: Note
) -> tuple[np.ndarray, int]:
    begin = (index or read_index(path)).begin + start
    parts: list[tuple[int, np.ndarray]] = []  # samples after `begin`
    failed: list[float] = []
    place, rate, shift = (
        0.0,
        0,
        0.0,
    )  # of the next sample, in samples; of timestamps that begin anew, in seconds
    resampler, sounds = None, None
    with open_media(path) as container:
        tracks = container.streams.audio
        stream = next((track for track in tracks if track.codec_context is not None), None)
        if stream is None:
            if tracks:
                note(f"{path.name}: there is no decoder for its sound, which is silence here")
            return np.zeros((2, 1), np.float32), 44100
        for packet in read_packets(container, stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                if packet.pts is not None:
                    failed.append(float(packet.pts * packet.time_base) - begin)
                else:
                    failed.append(place / (rate or 1))
                    place += float((packet.duration or 0) * packet.time_base) * rate
                continue
            for frame in frames:
                if resampler is None or sounds != (frame.format.name, frame.layout.name, frame.sample_rate):
                    if resampler is None:
                        rate, layout = frame.sample_rate, frame.layout.name
                        _check_sound(path.name, rate, frame.layout.nb_channels)
                    sounds = (frame.format.name, frame.layout.name, frame.sample_rate)
                    resampler = av.AudioResampler("flt", layout, rate)
                if frame.pts is not None:
                    stamp = frame.time - begin + shift
                    if parts and stamp < place / rate - _RESTART:
                        shift += place / rate - stamp
                    elif not parts or abs(stamp - place / rate) > _SLACK:
                        place = round(stamp * rate)
                for part in resampler.resample(frame):
                    # interleaved: of channels in planes of their own av looks for one too many, past the end
                    array = part.to_ndarray().reshape(-1, part.layout.nb_channels).T
                    parts.append((round(place), array))
                    place += array.shape[1]
    if failed:
        note(
            f"the sound of {path.name} is damaged: {counted(len(failed), 'part')} between {min(failed) + start:.2f} "
            f"and {max(failed) + start:.2f} s cannot be decoded, and {'is' if len(failed) == 1 else 'are'} silence"
        )
    if not parts:
        return np.zeros((2, 1), np.float32), rate or 44100
    there = sum(array.shape[1] for _, array in parts) / rate
    if seconds is None and max(at for at, _ in parts) / rate > there + _LONGEST_SILENCE:
        seconds = there + _LONGEST_SILENCE
        note(f"the sound of {path.name} has a wrong timestamp: it ends at {start + seconds:.2f} s here")
    return _joined(parts, rate, seconds), rate


def _check_sound(name: str, rate: int, channels: int) -> None:
    if rate > _HIGHEST_RATE or channels > _MOST_CHANNELS:
        raise ValueError(
            f"the sound of {name} has {channels} channels at {rate} Hz, which no real one has: convert it"
        )


def _joined(parts: list[tuple[int, np.ndarray]], rate: int, seconds: float | None) -> np.ndarray:
    """Parts of a sound, each at its place, with silence between them."""
    end = max(at + array.shape[1] for at, array in parts)
    if seconds is not None:
        end = min(end, round(seconds * rate))
    out = np.zeros((parts[0][1].shape[0], max(1, end)), np.float32)
    for at, array in parts:
        skip = max(0, -at)
        array = array[:, skip : max(skip, end - at)]
        if array.shape[1]:
            out[:, at + skip : at + skip + array.shape[1]] = array
    return out
