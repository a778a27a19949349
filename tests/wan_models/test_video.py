"""Choosing frames, against the official choice, and reading them, against what was written and a plain decode."""

import gc
import itertools
import struct

import av
import numpy as np
import pytest
from official_preprocessing import official_preprocessing
from tests_media import plain_decode, rewrite, write_coded, write_video

from wan_models import video
from wan_models.video import VideoIndex, read_frames, read_index


@pytest.fixture(scope="module")
def official_indices():
    with official_preprocessing() as official:
        return official.utils.get_frame_indices


@pytest.mark.parametrize("fps", [24, 25, 29.97, 30, 50, 59.94, 60])
@pytest.mark.parametrize("wanted", [15, 16, 20, 24, 30, 60])
@pytest.mark.parametrize("frames", [1, 2, 47, 106, 1001])
def test_frames_are_those_of_the_official_choice(official_indices, fps, wanted, frames):
    index = VideoIndex("clip.mp4", np.arange(frames) / fps, tuple(range(frames)), fps)
    assert index.is_constant
    count = int(frames / fps * wanted)
    if count:
        assert index.choose(wanted) == official_indices(frames, fps, count, wanted)
    assert index.choose(0) == list(range(frames))
    assert len(index.choose(wanted, length=1)) == 1


def test_a_variable_rate_gives_the_frame_nearest_in_time():
    index = VideoIndex("clip.mp4", np.array([0.0, 0.1, 0.15, 1.0, 1.05]), tuple(range(5)), 4.0)
    assert not index.is_constant
    assert index.choose(10) == [0, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 4, 4]
    assert index.choose(10, start=1.0, length=1) == [3]


@pytest.mark.parametrize("b_frames", [0, 2])
def test_frames_are_exact(tmp_path, b_frames):
    pixels = write_video(tmp_path / "clip.mp4", 40, b_frames=b_frames)
    index = read_index(tmp_path / "clip.mp4")
    assert len(index.times) == 40 and index.fps == 25 and index.is_constant
    for chosen in ([0, 1, 2], [17], [5, 5, 21, 39], list(range(40))):
        found = list(read_frames(index, chosen))
        assert len(found) == len(chosen)
        for number, frame in zip(chosen, found, strict=True):
            assert np.array_equal(frame, pixels[number])


# name: encoder, its options, endings
GROUPS = {
    "closed": ("libx264", {"bf": "3", "g": "8"}, "mp4 mkv avi flv ts"),
    "open": (
        "libx264",
        {"bf": "3", "g": "8", "x264opts": "open-gop=1"},
        "mp4 mov mkv avi flv mpg ts m2ts wmv",
    ),
    "pyramid": ("libx264", {"bf": "7", "g": "12", "x264opts": "open-gop=1:b-pyramid=strict"}, "mp4 ts"),
    "intra": ("libx264", {"g": "1"}, "mov flv"),
    "one key frame": ("libx264", {"bf": "2", "g": "1000"}, "mp4 mkv"),
    "refresh": ("libx264", {"g": "8", "x264opts": "intra-refresh=1"}, "mp4 ts"),
    "interlaced": ("libx264", {"g": "8", "flags": "+ildct+ilme"}, "mp4 m2ts"),
    "CRA": ("libx265", {"x265-params": "log-level=none:open-gop=1:keyint=8:bframes=3:pools=1"}, "mp4 mkv ts"),
    "mpeg2": ("mpeg2video", {"bf": "2", "g": "6"}, "mpg ts mkv avi"),
    "mpeg1": ("mpeg1video", {"bf": "2", "g": "6"}, "mpg avi"),
    "mpeg4": ("mpeg4", {"bf": "2", "g": "6"}, "mp4 avi mkv"),
    "wmv": ("wmv2", {"g": "6"}, "wmv avi"),
    "flv": ("flv", {"g": "6"}, "flv"),
    "hidden frames": (
        "libvpx",
        {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "10", "b": "300k"},
        "webm ogv",
    ),
    "vp9": ("libvpx-vp9", {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "10", "b": "300k"}, "webm mp4"),
    "mjpeg": ("mjpeg", {}, "avi mov"),
    "gif": ("gif", {}, "gif"),
    "ffv1": ("ffv1", {"g": "5"}, "mkv"),
    "screen": ("zmbv", {"g": "6"}, "avi"),
}
FILES = [(name, ending) for name, (_, _, endings) in GROUPS.items() for ending in endings.split()]


def check_all_starts(path, frames):
    """Whether each start and step gives what a plain decode from the beginning gives, without a complaint."""
    truth, notes = plain_decode(path), []
    assert len(truth) == frames
    assert all(not np.array_equal(a, b) for a, b in itertools.combinations(truth, 2))
    index = read_index(path)
    assert len(index.times) == frames
    for first, step in itertools.product(range(frames), (1, 4)):
        chosen = list(range(first, min(frames, first + 3 * step), step))
        found = read_frames(index, chosen, notes.append)
        assert all(np.array_equal(a, truth[i]) for a, i in zip(found, chosen, strict=True)), (chosen, step)
    assert notes == []
    return index


@pytest.mark.long
@pytest.mark.parametrize(("group", "ending"), FILES)
def test_any_start_gives_the_frames_of_a_decode_from_the_beginning(tmp_path, group, ending):
    codec, options, _ = GROUPS[group]
    write_coded(tmp_path / f"clip.{ending}", codec, options)
    index = check_all_starts(tmp_path / f"clip.{ending}", 30)
    assert index.is_constant and index.fps == pytest.approx(25, rel=0.01)
    assert index.choose(12.5, start=0.4, length=4) == [10, 12, 14, 16]


def late(number, packet):
    packet.pts, packet.dts = (stamp + round(5 / packet.time_base) for stamp in (packet.pts, packet.dts))


def early(number, packet):  # mp4 and mov write an edit list
    packet.pts, packet.dts = (stamp - round(0.4 / packet.time_base) for stamp in (packet.pts, packet.dts))


def all_keys(number, packet):
    packet.is_keyframe = True


def uneven(number, packet):
    packet.pts, packet.dts = (stamp + stamp // 7 for stamp in (packet.pts, packet.dts))


@pytest.mark.long
@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "flv", "ts"])
@pytest.mark.parametrize(("change", "frames"), [(late, 30), (early, 20), (all_keys, 30), (uneven, 30)])
def test_any_start_whatever_the_timestamps_and_key_frames(tmp_path, ending, change, frames):
    write_coded(tmp_path / "clip.mp4", "libx264", GROUPS["closed"][1])
    rewrite(tmp_path / "clip.mp4", tmp_path / f"changed.{ending}", change)
    check_all_starts(tmp_path / f"changed.{ending}", frames if ending in ("mp4", "mov") else 30)


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video"])
def test_a_recording_that_begins_between_key_frames(tmp_path, codec):
    options = next(options for name, options, _ in GROUPS.values() if name == codec)
    write_coded(tmp_path / "clip.ts", codec, options)
    rewrite(tmp_path / "clip.ts", tmp_path / "cut.ts", lambda number, packet: number >= 3)
    truth, notes = plain_decode(tmp_path / "cut.ts"), []
    index = read_index(tmp_path / "cut.ts")
    assert 15 < len(truth) == len(index.times) < 30
    for first in range(len(truth)):
        assert np.array_equal(next(read_frames(index, [first], notes.append)), truth[first])
    assert any("the video begins after that" in note for note in notes) or codec != "libx264"


def test_a_start_late_in_a_file_decodes_few_frames(tmp_path, monkeypatch):
    write_coded(tmp_path / "clip.mp4", "libx264", {"bf": "3", "g": "8", "x264opts": "open-gop=1"}, frames=200)
    index, decoded = read_index(tmp_path / "clip.mp4"), []

    def counted(*arguments, **options):
        for one in decode(*arguments, **options):
            decoded.append(one)
            yield one

    decode = video.decode
    monkeypatch.setattr(video, "decode", counted)
    assert len(list(read_frames(index, [190, 191]))) == 2
    assert len(decoded) < 30


@pytest.mark.parametrize("group", GROUPS)
def test_frames_are_those_that_decord_gives_in_order(tmp_path, group):
    """decord is what the official preprocessing reads with; docs/numerics.md has where it is wrong. Levels are equal,
    too, where chroma has no fields."""
    decord = pytest.importorskip("decord")
    codec, options, endings = GROUPS[group]
    path = tmp_path / f"clip.{endings.split()[0]}"
    write_coded(path, codec, options)
    reader, index = decord.VideoReader(str(path)), read_index(path)
    theirs = np.stack([reader.next().asnumpy() for _ in range(len(reader))]).astype(int)
    assert len(theirs) == len(index.times)
    for fps, start in ((0, 0.0), (12.5, 0.4), (10, 0.16)):
        chosen = index.choose(fps, start)
        for number, frame in zip(chosen, read_frames(index, chosen), strict=True):
            apart = np.abs(theirs - frame).mean((1, 2, 3))
            assert apart.argmin() == number and (apart[number] == 0 or group == "interlaced")


def test_frames_that_were_read_leave_memory_at_once(tmp_path):
    write_coded(tmp_path / "clip.mp4", "libx264", {"g": "8"}, frames=200)
    frames = read_frames(read_index(tmp_path / "clip.mp4"), list(range(200)))
    gc.collect()
    gc.disable()  # it would find, now and then, what is only kept by referring to itself
    try:
        assert len(list(itertools.islice(frames, 150))) == 150
        kept = sum(type(each) is av.VideoFrame for each in gc.get_objects())  # isinstance asks dead proxies
    finally:
        gc.enable()
    assert kept < 75  # as many as a decoder's threads hold, at most


MATRICES = {
    (1, 0, 0, 1): lambda a: a,
    (-1, 0, 0, 1): lambda a: a[:, ::-1],
    (1, 0, 0, -1): lambda a: a[::-1],
    (-1, 0, 0, -1): lambda a: a[::-1, ::-1],
    (0, 1, -1, 0): lambda a: np.rot90(a, -1),  # a phone's: clockwise
    (0, -1, 1, 0): np.rot90,
    (0, 1, 1, 0): lambda a: a.swapaxes(0, 1),
    (0, -1, -1, 0): lambda a: np.rot90(a, 2).swapaxes(0, 1),
}


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("matrix", MATRICES)
def test_a_video_is_turned_and_mirrored_as_its_display_matrix_says(tmp_path, matrix, ending):
    kind = "mov" if ending == "mov" else "mp4"
    pixels = write_video(tmp_path / f"clip.{kind}", 3)
    whole = bytearray((tmp_path / f"clip.{kind}").read_bytes())
    at = whole.find(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    assert whole[at : at + 36] == struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    whole[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / f"clip.{kind}").write_bytes(whole)
    if ending == "mkv":
        rewrite(tmp_path / "clip.mp4", tmp_path / "clip.mkv", lambda number, packet: True)
        with av.open(str(tmp_path / "clip.mkv")) as container:
            if matrix != (1, 0, 0, 1) and not any(next(container.decode(video=0)).side_data.keys()):
                pytest.skip("Matroska, or this PyAV, cannot say this")
    (frame,) = read_frames(read_index(tmp_path / f"clip.{ending}"), [1])
    assert np.array_equal(frame, MATRICES[matrix](pixels[1]))
