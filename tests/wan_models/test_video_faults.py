"""Videos that are damaged, say what is wrong, or are none: what is read of them, and what the error says."""

import os
import re
import socket
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from tests_media import plain_decode, rewrite, write_coded, write_video

from wan_models import video_file, video_index
from wan_models.video import VideoIndex, read_frames, read_index, read_sound


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
    runs = " ".join(re.findall(r"frames? ([\d, -]+) of the result", " ".join(notes)))
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


def test_a_key_frame_that_is_cut_near_its_end_is_named(tmp_path):
    """A decoder makes a picture of it, and marks it in some runs only."""
    source = tmp_path / "clip.avi"
    write_coded(source, "libx264", {"g": "4"})
    truth, whole = plain_decode(source), source.read_bytes()
    with av.open(str(source)) as container:
        *_, key = (packet for packet in container.demux(video=0) if packet.is_keyframe)
        end = key.pos + key.size
    cuts = 0
    for missing in range(2, 60, 3):
        source.write_bytes(whole[: end - missing])
        index, notes = read_index(source), []
        found = list(read_frames(index, index.choose(0), notes.append))
        wrong = {i for i, frame in enumerate(found) if not np.array_equal(frame, truth[i])}
        cuts += bool(wrong)
        assert wrong <= named(notes), (missing, wrong, notes)
    assert cuts


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
