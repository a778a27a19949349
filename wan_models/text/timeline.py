"""Lines of text for parts of one video: "0-40: a cat sits", in frames, seconds (2.5s) or percent (50%).

A line without a range is for the whole video, wherever it stands. Ranges may overlap: both texts hold there. Frames and
seconds past the end are cut off. Frames that no range covers follow the lines for the whole video; where there are
none, the text before them goes on, and the first one begins at the start.
"""

import math
import re
from dataclasses import dataclass, replace

_NUMBER = r"(\d+(?:\.\d+)?)\s*([sf%]?)"
_RANGE = re.compile(rf"\s*{_NUMBER}\s*[-\u2013\u2014~]\s*{_NUMBER}\s*[:\uff1a](.*)", re.DOTALL)
_MEANT_AS_RANGE = re.compile(r"[\s\d.sf%~\u2013\u2014-]*\d[\s\d.sf%~\u2013\u2014-]*[:\uff1a](?!\d)")


@dataclass(frozen=True)
class TimedText:
    """A text for the latent frames from `start` up to `stop` of a video; both None: for all of it."""

    text: str
    start: int | None = None
    stop: int | None = None


def latent_frames(frames: int) -> int:
    """Latent frames of a video of 4n + 1 frames, the first of which is a latent frame by itself, or of 4n. Raises
    ValueError on other lengths."""
    if frames < 1 or frames % 4 > 1:
        raise ValueError(
            f"{frames} frames are no length that the models make: give 4n + 1 (4n for a clip of speech to video)"
        )
    return (frames + 3) // 4


def parse(lines: str, frames: int, fps: float) -> list[TimedText]:
    """The texts of some lines for a video of so many frames: those for all of it first, then the others as they stand.

    Raises ValueError, which names the line, where a range cannot be read or lies outside of the video, and where there
    is no text."""
    latents = latent_frames(frames)
    if not 0 < fps < math.inf:
        raise ValueError(f"fps must be a number above 0, not {fps:g}")
    whole: list[TimedText] = []
    timed: list[TimedText] = []
    for number, line in enumerate(lines.splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = _parse_line(line.strip(), frames, fps)
        except ValueError as error:
            raise ValueError(f"line {number} of the schedule: {error}") from None
        (whole if entry.start is None else timed).append(entry)
    if not whole and not timed:
        raise ValueError(
            'the schedule is empty: write lines such as "0-40: a cat sits", or a text without a range'
        )
    if not whole:
        timed = _without_gaps(timed, latents)
    covering = [replace(one, start=None, stop=None) for one in timed if (one.start, one.stop) == (0, latents)]
    return whole + covering + [one for one in timed if (one.start, one.stop) != (0, latents)]


def _parse_line(line: str, frames: int, fps: float) -> TimedText:
    if not (match := _RANGE.fullmatch(line)):
        if meant := _MEANT_AS_RANGE.match(line):
            raise ValueError(
                f"{meant.group()[:-1].strip()!r} is no range: write 0-40 (frames), 0-2.5s or 0-50%, a colon and the "
                "text"
            )
        return TimedText(line)
    first, unit, last, other, text = match.groups()
    if "%" in (unit, other) and float(last) > 100:
        raise ValueError(f"{last}% is more than the whole video: percents go from 0 to 100")
    start, stop = (
        _in_frames(float(value), own or shared, frames, fps)
        for value, own, shared in ((first, unit, other), (last, other, unit))
    )
    if stop <= start:
        raise ValueError(f"{first}{unit}-{last}{other} ends before it begins")
    if start >= frames:
        raise ValueError(f"it begins at frame {start:g}, and the video has {frames}")
    if not text.strip():
        raise ValueError("there is no text after the range")
    return TimedText(text.strip(), *_in_latents(start, min(stop, frames), frames))


def _in_frames(value: float, unit: str, frames: int, fps: float) -> float:
    return value * {"s": fps, "%": frames / 100}.get(unit, 1.0)


def _in_latents(start: float, stop: float, frames: int) -> tuple[int, int]:
    """The latent frames whose middle lies in a range of frames; at least the one in which the range has its own."""
    alone = frames % 4  # frames in the first latent frame where it is not of four as all others
    middles = [alone / 2] * alone + [alone + 4 * index + 2.0 for index in range(frames // 4)]
    inside = [index for index, middle in enumerate(middles) if start <= middle < stop]
    if not inside:
        inside = [min(range(len(middles)), key=lambda index: abs(middles[index] - (start + stop) / 2))]
    return inside[0], inside[-1] + 1


def _without_gaps(timed: list[TimedText], latents: int) -> list[TimedText]:
    """Texts that go on until the next begins, the first one from the start."""
    ends = [(one.start or 0, one.stop or 0) for one in timed]
    first = min(start for start, _ in ends)
    ends = [(0 if start == first else start, stop) for start, stop in ends]
    for frame in range(latents):
        if not any(start <= frame < stop for start, stop in ends):
            last = max(index for index, (_, stop) in enumerate(ends) if stop == frame)
            ends[last] = (ends[last][0], frame + 1)
    return [TimedText(one.text, start, stop) for one, (start, stop) in zip(timed, ends, strict=True)]
