"""A media file that is opened alone: whatever it says, no other file and no address is read for it.

Playlists (HLS, DASH, concat, SDP and their kin) name what is to be played. They are refused; and should one be known to
FFmpeg alone, FFmpeg has no protocol that it might open a name with, for the file itself is read here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av

MAX_PIXELS = 8192 * 4608
"""Limit of a picture; 8K has fewer."""
_PLAYLISTS = {"hls", "applehttp", "concat", "sdp", "dash", "imf", "image2", "vobsub", "webm_dash_manifest"}
_PLAYLIST_HEADS = (
    b"#extm3u",
    b"ffconcat",
    b"v=0",
    b"<mpd",
    b"<smil",
    b"<asx",
    b"<?xml",
    b"[playlist]",
    b"# vobsub",
)
_UNREADABLE = (av.FFmpegError, OSError, ArithmeticError, LookupError, UnicodeError, MemoryError)


@contextmanager
def open_media(path: Path) -> Iterator[Any]:
    """av's container of a file, whose titles and other tags need be no UTF-8. ValueError where it is a playlist, or no
    file."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path.name} is a folder or a device, and no file")
    with path.open("rb") as file:
        head = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
        file.seek(0)
        if head.startswith(_PLAYLIST_HEADS):
            raise _playlist(path)
        options = {"protocol_whitelist": "none"}
        with av.open(file, options=options, metadata_errors="replace") as container:
            if _PLAYLISTS & set(container.format.name.split(",")):
                raise _playlist(path)
            yield container


def _playlist(path: Path) -> ValueError:
    return ValueError(f"{path.name} is a playlist, which only names other files: choose the video itself")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turns whatever goes wrong with a file inside into a ValueError that names it."""
    try:
        yield
    except _UNREADABLE as error:
        raise ValueError(
            f"{path.name} cannot be read as a video ({error}): the file is broken or incomplete"
        ) from error
    except ValueError as error:
        if path.name in str(error):
            raise
        raise ValueError(
            f"{path.name} cannot be read ({error}): convert it to H.264 in an mp4 file"
        ) from error
