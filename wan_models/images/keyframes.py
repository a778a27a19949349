"""Keyframes: pictures that a video shows at given places.

The video's first frame has a latent of its own, and each later latent stands for four frames: frames 1 to 4 are latent
1's, 5 to 8 latent 2's. A keyframe stands at the last frame of its latent, where an end image stands in the last one.
"""

import re
from collections.abc import Collection

from ..wording import frames_between

_PER_LATENT = 4
_PLACE = re.compile(r"(?P<frame>-?[0-9]{1,9})|(?P<share>[0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(?P<unit>s|%)")


def latent_of(frame: int) -> int:
    """The latent that a frame, counted from 0, belongs to."""
    return -(-frame // _PER_LATENT)


def last_frame_of(latent: int) -> int:
    """The last frame that a latent stands for."""
    return latent * _PER_LATENT


def frames_at(positions: str, frames: int, fps: float) -> list[int]:
    """Frames, counted from 0, that a list of places in a video of so many frames names.

    positions: "40, 80" (frames), "-1" (the last frame), "2.5s" (seconds) or "50%", any of them with commas between.
    Raises ValueError on what is no place, or lies outside of the video."""
    return [_frame_at(part.strip(), frames, fps) for part in re.split("[,，\n]", positions) if part.strip()]


def _frame_at(place: str, frames: int, fps: float) -> int:
    match = _PLACE.fullmatch(place)
    if match is None:
        raise ValueError(
            f"positions: {place[:40]!r} is no place in a video: give frames (40), seconds (2.5s) or percent (50%), "
            "with commas between; -1 is the last frame"
        )
    if match["frame"]:
        frame = int(match["frame"])
        frame = frames + frame if frame < 0 else frame
    elif match["unit"] == "s":
        frame = round(float(match["share"]) * fps)
    else:
        frame = round(float(match["share"]) / 100 * (frames - 1))
    if not 0 <= frame < frames:
        raise ValueError(f"positions: {place} lies outside of the video, whose frames are 0 to {frames - 1}")
    return frame


def snapped(positions: Collection[int], frames: int, start: int = 0, end: int = 0) -> list[int]:
    """Frames that keyframes at `positions` move to, of a video of 4n + 1 frames.

    start, end: number of frames that are known at the video's beginning and end. Raises ValueError where two keyframes,
    or a keyframe and one of those frames, belong to one latent."""
    taken = dict.fromkeys(map(latent_of, range(start)), "the start image")
    taken |= dict.fromkeys(map(latent_of, range(frames - end, frames)), "the end image")
    keyframes = []
    for frame in positions:
        latent = latent_of(frame)
        if latent in taken:
            first = max(0, last_frame_of(latent - 1) + 1)
            last = last_frame_of(latent)
            raise ValueError(
                f"positions: frame {frame} belongs to the same latent ({frames_between(first, last)}) as "
                f"{taken[latent]}: a latent takes one picture, so give another place or leave one out"
            )
        taken[latent] = f"frame {frame}"
        keyframes.append(last_frame_of(latent))
    return keyframes
