"""Choosing frames, against the official choice; reading them and sound, against what was written and a plain decode."""

import gc
import itertools
import os
import re
import socket
import struct
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from official_preprocessing import official_preprocessing
from tests_media import write_click, write_coded, write_video

from wan_models import video, video_file, video_index
from wan_models.video import VideoIndex, read_frames, read_index, read_sound


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


def plain_decode(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


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


@pytest.mark.parametrize(("group", "ending"), FILES)
def test_any_start_gives_the_frames_of_a_decode_from_the_beginning(tmp_path, group, ending):
    codec, options, _ = GROUPS[group]
    write_coded(tmp_path / f"clip.{ending}", codec, options)
    index = check_all_starts(tmp_path / f"clip.{ending}", 30)
    assert index.is_constant and index.fps == pytest.approx(25, rel=0.01)
    assert index.choose(12.5, start=0.4, length=4) == [10, 12, 14, 16]


def rewrite(source, target, change):
    """Copies the packets, with change(number, packet) made to each; one that it answers False to is left out."""
    with av.open(str(source)) as file, av.open(str(target), "w") as out:
        stream = out.add_stream_from_template(file.streams.video[0], opaque=True)
        for number, packet in enumerate(file.demux(video=0)):
            if packet.size and change(number, packet) is not False:
                packet.stream = stream
                out.mux(packet)


def late(number, packet):
    packet.pts, packet.dts = (stamp + round(5 / packet.time_base) for stamp in (packet.pts, packet.dts))


def early(number, packet):  # mp4 and mov write an edit list
    packet.pts, packet.dts = (stamp - round(0.4 / packet.time_base) for stamp in (packet.pts, packet.dts))


def all_keys(number, packet):
    packet.is_keyframe = True


def uneven(number, packet):
    packet.pts, packet.dts = (stamp + stamp // 7 for stamp in (packet.pts, packet.dts))


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
    assert any("the video begins after them" in note for note in notes) or codec != "libx264"


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


def damage(path, number, ending):
    """Fills a packet with zeros."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        places = [bytes(packet) for packet in packets]
    whole = path.read_bytes()
    at = whole.find(places[number][-200:])
    assert at > 0
    target = path.with_name(f"damaged.{ending}")
    target.write_bytes(whole[:at] + bytes(200) + whole[at + 200 :])
    return target


def named(notes):
    """Numbers of the frames that the sentences name."""
    runs = " ".join(re.findall(r"frames ([\d, -]+) of the result", " ".join(notes)))
    bounds = [(int(first), int(last or first)) for first, last in re.findall(r"(\d+)(?:-(\d+))?", runs)]
    return {number for first, last in bounds for number in range(first, last + 1)}


@pytest.mark.parametrize(
    ("codec", "ending"),
    [("libx264", "mp4"), ("libx264", "mkv"), ("mpeg2video", "avi"), ("mpeg4", "mp4"), ("png", "mov")],
)
def test_damaged_frames_are_named(tmp_path, codec, ending):
    write_coded(tmp_path / f"clip.{ending}", codec, {"g": "10"}, size=(192, 128))
    truth = plain_decode(tmp_path / f"clip.{ending}")
    for first in (0, 12):
        notes = []
        index = read_index(damage(tmp_path / f"clip.{ending}", 14, ending))
        chosen = index.choose(0, start=first / 25)
        found = list(read_frames(index, chosen, notes.append))
        assert len(found) == 30 - first and len(notes) == 1
        wrong, told = (
            {i for i, f in enumerate(found) if not np.array_equal(f, truth[first + i])},
            named(notes),
        )
        assert 14 - first in wrong and wrong <= told <= set(range(14 - first, 21 - first))
    # what lies before and after is not complained about
    for chosen in (list(range(14)), list(range(21, 30))):
        notes = []
        found = list(read_frames(index, chosen, notes.append))
        assert notes == [] and all(np.array_equal(a, truth[i]) for a, i in zip(found, chosen, strict=True))


def test_a_frame_that_is_missing_repeats_the_one_before_and_more_are_an_error(tmp_path):
    pixels, notes = write_video(tmp_path / "clip.mp4", 30, intra=True), []
    whole = bytearray((tmp_path / "clip.mp4").read_bytes())
    with av.open(str(tmp_path / "clip.mp4")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    for number in (7, 8, 20, 24):
        if number == 24:
            found = list(read_frames(read_index(tmp_path / "clip.mp4"), list(range(30)), notes.append))
            shown = [6 if i in (7, 8) else 19 if i == 20 else i for i in range(30)]
            assert all(np.array_equal(frame, pixels[i]) for frame, i in zip(found, shown, strict=True))
            assert len(notes) == 1 and "frames 7-8, 20 of the result (0.28-0.80 s of the file)" in notes[0]
        whole[packets[number].pos : packets[number].pos + 50] = b"\xff" * 50
        (tmp_path / "clip.mp4").write_bytes(whole)
    with pytest.raises(
        ValueError, match=r"clip\.mp4 is broken: of 30 frames at least 4 cannot be decoded.*frame 7"
    ):
        list(read_frames(read_index(tmp_path / "clip.mp4"), list(range(30)), notes.append))
    assert len(list(read_frames(read_index(tmp_path / "clip.mp4"), list(range(9, 20)), notes.append))) == 11


@pytest.mark.parametrize("ending", ["mp4", "mkv", "flv", "avi"])
def test_a_file_that_breaks_off_says_so(tmp_path, ending):
    source = tmp_path / f"clip.{ending}"
    write_coded(
        source,
        "libx264",
        {"bf": "2", "g": "8"},
        container={"movflags": "faststart"} if ending == "mp4" else {},
    )
    truth, whole = plain_decode(source), source.read_bytes()
    source.write_bytes(whole[: len(whole) * 7 // 10])
    index, notes = read_index(source), []
    chosen = index.choose(0)
    found = list(read_frames(index, chosen, notes.append))
    assert 10 < len(found) < 25
    assert {i for i, frame in enumerate(found) if not np.array_equal(frame, truth[i])} <= named(notes)
    assert any("is incomplete" in note for note in notes) or ending == "avi"
    source.write_bytes(whole[: len(whole) * 4 // 10])
    if ending != "avi":  # of which FFmpeg takes the length from the size
        with pytest.raises(ValueError, match=r"breaks off at .* the file is incomplete"):
            read_index(source).choose(0)
        assert read_index(source).choose(0, length=5) == list(range(5))


def test_frames_that_a_file_lacks_are_named(tmp_path):
    write_coded(tmp_path / "clip.mkv", "libx264", {"g": "1"})
    rewrite(tmp_path / "clip.mkv", tmp_path / "lacks.mkv", lambda number, packet: number not in (10, 11))
    index, notes = read_index(tmp_path / "lacks.mkv"), []
    assert len(list(read_frames(index, index.choose(25), notes.append))) == 30
    assert notes == ["lacks.mkv has no frames between 0.36 and 0.48 s: the nearest ones are repeated"]


def test_broken_files_say_so(tmp_path):
    write_video(tmp_path / "clip.mp4", 40)
    whole = (tmp_path / "clip.mp4").read_bytes()
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    for name in ("text", "empty", "cut"):
        with pytest.raises(ValueError, match=rf"{name}\.mp4 .*broken"):
            read_index(tmp_path / f"{name}.mp4")
    with pytest.raises(ValueError, match=r"lasts 1\.60 s, and the first frame was to be at 2 s"):
        read_index(tmp_path / "clip.mp4").choose(0, start=2)
    # a file that was exchanged in between
    write_video(tmp_path / "clip.mkv", 40)
    whole = (tmp_path / "clip.mkv").read_bytes()
    index = read_index(tmp_path / "clip.mkv")
    (tmp_path / "clip.mkv").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"clip\.mkv is broken"):
        list(read_frames(index, list(range(40)), [].append))


@pytest.mark.parametrize("ending", ["mkv", "mp4", "avi", "mov", "nut"])
@pytest.mark.parametrize(
    "title", [b"\xff\xfe\xe9\xe8ok\xc0\xaf\x80\xbf", "\u00c9t\u00e9 \u306d\u3053 x".encode("utf-16-le")[:10]]
)
def test_titles_need_be_no_text(tmp_path, ending, title):
    path = tmp_path / f"clip.{ending}"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "TITLETITLE"
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height = 64, 48
        for shade in range(0, 250, 50):
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), shade, np.uint8), "rgb24"))
            )
        container.mux(stream.encode())
    content = path.read_bytes()
    assert content.count(b"TITLETITLE") == 1
    path.write_bytes(content.replace(b"TITLETITLE", title))
    assert [round(float(f.mean()), -1) for f in read_frames(read_index(path), [0, 2, 4])] == [0, 100, 200]
    assert not read_sound(path)[0].any()


def last_far(number, packet):
    packet.pts = packet.dts = packet.pts + (10**9 if number == 29 else 0)


def half_far(number, packet):
    packet.pts = packet.dts = packet.pts + (10**9 if number > 14 else 0)


def two_far(number, packet):
    packet.pts = packet.dts = packet.pts + 10**9 * (number > 9) + 10**9 * (number > 19)


@pytest.mark.parametrize("change", [last_far, half_far, two_far])
@pytest.mark.parametrize("ending", ["mkv", "nut"])
def test_a_wrong_timestamp_makes_no_long_video(tmp_path, change, ending):
    write_coded(tmp_path / "clip.mkv", "libx264", {"g": "1"})
    rewrite(tmp_path / "clip.mkv", tmp_path / f"far.{ending}", change)
    index = read_index(tmp_path / f"far.{ending}")
    assert index.is_constant and abs(index.fps - 25) < 1e-6 and abs(index.seconds - 1.2) < 1e-6
    assert index.choose(0) == list(range(30)) and len(index.choose(16)) == 19
    (note,) = index.notes
    assert re.match(rf"far\.{ending} has no frames between .* and .* s, and no sound, as after a wrong", note)
    assert len(list(read_frames(index, index.choose(0), [].append))) == 30


@pytest.mark.parametrize("sound", [False, True])
def test_a_picture_that_stays_is_believed_where_there_is_sound(tmp_path, sound):
    path = tmp_path / "slides.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        track = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        at = [0.0, 20.0, 40.0, 100.0, 120.0]
        for seconds in at:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 99, np.uint8), "rgb24")
            frame.pts, frame.time_base = round(seconds * 25), Fraction(1, 25)
            container.mux(stream.encode(frame))
        for second in range(125 if sound else 1):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
            frame.pts, frame.rate, frame.time_base = second * 8000, 8000, Fraction(1, 8000)
            container.mux(track.encode(frame))
    index = read_index(path)
    expected = at if sound else [0, 20, 40, 60, 80]
    assert np.allclose(index.times, expected, atol=0.05) and bool(index.notes) != sound


PLAYLISTS = {
    "hls.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n",
    "hls.mp4": "\ufeff\n#EXTM3U\n#EXTINF:2,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n",
    "concat.mp4": "ffconcat version 1.0\nfile '{}'\n",
    "concat.mkv": "  ffconcat version 1.0\nfile 'http://127.0.0.1:{port}/a.mp4'\n",
    "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n",
    "dash.mpd": '<?xml version="1.0"?>\n<MPD><BaseURL>http://127.0.0.1:{port}/</BaseURL></MPD>',
    "dash.mp4": "<MPD type='static'><BaseURL>{}</BaseURL></MPD>",
    "list.pls": "[playlist]\nFile1={}\n",
    "smooth.mp4": "<smil><body><video src='{}'/></body></smil>",
}


@pytest.mark.parametrize("name", PLAYLISTS)
@pytest.mark.parametrize("target", ["name", "path", "url"])
def test_playlists_open_nothing(tmp_path, name, target):
    write_video(tmp_path / "other.mp4", 5)
    path = tmp_path / name
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        other = {
            "name": "other.mp4",
            "path": str(tmp_path / "other.mp4"),
            "url": f"file:{tmp_path}/other.mp4",
        }[target]
        path.write_text(PLAYLISTS[name].format(other, port=server.getsockname()[1]))
        for read in (read_index, read_sound):
            with pytest.raises(
                ValueError, match=rf"{re.escape(name)} is a playlist, which only names other files"
            ):
                read(path)
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_playlist_that_is_not_known_opens_nothing_either(tmp_path, monkeypatch):
    monkeypatch.setattr(video_file, "_PLAYLIST_HEADS", (b"nothing",))
    write_video(tmp_path / "other.mp4", 5)
    for name, text in PLAYLISTS.items():
        (tmp_path / name).write_text(text.format("other.mp4", port=9))
        with pytest.raises(ValueError, match=re.escape(name)):
            read_index(tmp_path / name)


def test_names_are_no_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video("clip.mp4", 5)
    for name in ("concat:clip.mp4|clip.mp4", "http://127.0.0.1:9/a.mp4", "subfile,,start,0,end,0,,:clip.mp4"):
        with pytest.raises(ValueError, match=r"cannot be read as a video .*No such file"):
            read_index(name)
    write_video("plain.mp4", 5)
    Path("plain.mp4").rename("file:http:a%03d.mp4")
    assert len(read_index("file:http:a%03d.mp4").times) == 5
    os.mkfifo("pipe.mp4")
    for name in ("pipe.mp4", "."):
        with pytest.raises(ValueError, match="is a folder or a device"):
            read_index(name)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi", "mov", "flv", "ts", "webm"])
def test_whatever_is_in_a_file_the_error_names_it(tmp_path, ending, seed):
    codec = "libvpx" if ending == "webm" else "libx264"
    write_coded(tmp_path / f"whole.{ending}", codec, {"g": "6"})
    whole = np.frombuffer((tmp_path / f"whole.{ending}").read_bytes(), np.uint8)
    random, path = np.random.default_rng(seed), tmp_path / f"hostile.{ending}"
    for _ in range(25):
        content = whole.copy()
        # most of what can be wrong stands in headers
        reach = 600 if random.random() < 0.7 else len(content)
        at = random.integers(0, min(reach, len(content)), random.integers(1, 12))
        content[at] = random.choice([0, 1, 0x7F, 0x80, 0xFF, random.integers(256)], len(at))
        path.write_bytes(
            content[: len(content) if random.random() < 0.7 else random.integers(1, len(content))].tobytes()
        )
        try:
            index = read_index(path)
            chosen = index.choose(0)
            assert len(chosen) <= 30 * 60
            assert len(list(read_frames(index, chosen[:40], [].append))) == len(chosen[:40])
            assert read_sound(path, index)[0].nbytes < 1e9
        except ValueError as error:
            message = str(error)
            assert path.name in message


def test_pictures_have_a_largest_size(tmp_path, monkeypatch):
    write_video(tmp_path / "clip.mp4", 3, (64, 48))
    index = read_index(tmp_path / "clip.mp4")
    monkeypatch.setattr(video_index, "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(ValueError, match=r"pictures of clip\.mp4 have 64 x 48 pixels"):
        read_index(tmp_path / "clip.mp4")
    with pytest.raises(ValueError, match=r"pictures of clip\.mp4 have 64 x 48 pixels"):
        list(read_frames(index, [0]))


def test_more_frames_than_anyone_needs_are_refused(tmp_path):
    index = VideoIndex(tmp_path / "long.mp4", np.arange(2_000_000) / 25, (), 25.0)
    with pytest.raises(
        ValueError, match=r"long\.mp4 has 2000000 frames from 0 s on at 25 per second, and up to 1000000"
    ):
        index.choose(0)
    with pytest.raises(ValueError, match=r"long\.mp4 has \d+ frames"):
        VideoIndex(tmp_path / "long.mp4", np.arange(9) / 1e-6, (), 1e-6).choose(25)
    assert len(index.choose(0, length=100)) == 100 and len(index.choose(1)) == 80_000


def test_sound_of_a_wrong_timestamp_or_rate(tmp_path, monkeypatch):
    path = tmp_path / "far.mkv"
    with av.open(str(path), "w") as container:
        track = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for second in (0, 1, 10**6):
            frame = av.AudioFrame.from_ndarray(np.ones((1, 8000), np.int16), "s16", "mono")
            frame.pts, frame.rate, frame.time_base = second * 8000, 8000, Fraction(1, 8000)
            container.mux(track.encode(frame))
    index, notes = VideoIndex(path, np.zeros(1), (), 25.0), []
    sound, rate = read_sound(path, index, note=notes.append)
    assert sound.shape[1] / rate <= 603 + 1 and sound[:, : 2 * rate].all()
    assert re.match(r"the sound of far\.mkv has a wrong timestamp: it ends at \d+\.\d\d s here", notes[0])
    assert read_sound(path, index, 0.0, 2.0)[0].shape[1] == 16000
    monkeypatch.setattr(video, "_HIGHEST_RATE", 7999)
    with pytest.raises(
        ValueError, match=r"sound of far\.mkv has 1 channels at 8000 Hz, which no real one has"
    ):
        read_sound(path, index)


@pytest.mark.parametrize("channels", [1, 2, 6, 8, 9, 16, 24, 32])
def test_sound_of_many_channels(tmp_path, channels):
    rate, count = 8000, 4000
    content = np.arange(count * channels, dtype=np.int64).reshape(count, channels) % 30_000
    with wave.open(str(tmp_path / "many.wav"), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(content.astype("<i2").tobytes())
    index = VideoIndex(tmp_path / "many.wav", np.zeros(1), (), 25.0)
    for _ in range(3):
        sound, found = read_sound(tmp_path / "many.wav", index)
        assert found == rate and np.abs(sound - content.T / 32768).max() < 1e-6


def test_sound(tmp_path):
    write_video(tmp_path / "clip.mp4", 25, sound=True)
    waveform, rate = read_sound(tmp_path / "clip.mp4")
    assert rate == 48000 and waveform.shape[0] == 1 and abs(waveform.shape[1] / rate - 1) < 0.1
    assert abs(np.sqrt((waveform[:, 5000:40000] ** 2).mean()) - 0.5 / np.sqrt(2)) < 0.05
    write_video(tmp_path / "silent.mp4", 5)
    assert not read_sound(tmp_path / "silent.mp4")[0].any()


def heard(waveform, rate):
    """Seconds at which a click begins."""
    return np.flatnonzero(np.abs(waveform).max(0) > 0.2)[0] / rate


@pytest.mark.parametrize("offset", [-0.1, 0.0, 0.5])
@pytest.mark.parametrize("late", [0.0, 2.0])
@pytest.mark.parametrize(
    ("codec", "ending"),
    [
        ("aac", "mp4"), ("aac", "mov"), ("aac", "mkv"), ("aac", "flv"), ("aac", "ts"), ("mp2", "mpg"), ("ac3", "ts"),
        ("wmav2", "wmv"), ("libopus", "webm"), ("libmp3lame", "mp4"), ("flac", "mkv"), ("pcm_s16le", "mov"),
        ("pcm_u8", "mkv"), ("pcm_s24le", "mov"), ("pcm_f32le", "mkv"), ("alac", "mp4"),
    ],
)  # fmt: skip
def test_sound_lies_where_its_timestamps_say(tmp_path, codec, ending, offset, late):
    """A click is written 0.2 s after the sound's beginning, which is `offset` after the picture's, and heard there."""
    path = tmp_path / f"clip.{ending}"
    write_click(path, codec, offset, late)
    index = read_index(path)
    assert heard(*read_sound(path)) == pytest.approx(0.2 + offset, abs=0.008)
    assert heard(*read_sound(path, index, start=0.05, seconds=1)) == pytest.approx(0.15 + offset, abs=0.008)
    waveform, rate = read_sound(path, index, start=0.05, seconds=0.12 + offset)
    assert waveform.shape[1] <= round((0.12 + offset) * rate) and np.abs(waveform).max(initial=0) < 0.2


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "ts"])
@pytest.mark.parametrize("gap", [0.5, 0.05])
def test_a_gap_in_the_sound_is_silence(tmp_path, ending, gap):
    path = tmp_path / f"clip.{ending}"
    write_click(path, "aac", 0.0, gap=gap)
    waveform, rate = read_sound(path)
    assert heard(waveform, rate) == pytest.approx(0.2 + gap, abs=0.008)


def test_sound_that_cannot_be_decoded_is_silence_and_named(tmp_path):
    path, notes = tmp_path / "clip.mkv", []
    write_click(path, "flac", 0.0)
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    whole = bytearray(path.read_bytes())
    at = whole.find(b"\xff\xf8", places[1][0])
    whole[at : at + 12] = bytes(12)
    path.write_bytes(whole)
    waveform, rate = read_sound(path, note=notes.append)
    assert heard(waveform, rate) == pytest.approx(0.2, abs=0.001)
    assert len(notes) == 1 and "cannot be decoded, and are silence" in notes[0]


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
