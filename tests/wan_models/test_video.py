"""Choosing and reading frames, against the official choice and a plain reading of the file."""

import av
import numpy as np
import pytest
from tests_media import write_video

from wan_models.video import VideoIndex, read_frames, read_index, read_sound


def official_indices(frames, fps, target, wanted):
    """get_frame_indices of the official preprocessing, which cannot be imported without its command line."""
    return np.clip(np.round(np.arange(target) / wanted * fps).astype(int), 0, frames - 1).tolist()


@pytest.mark.parametrize("fps", [24, 25, 29.97, 30, 50, 59.94, 60])
@pytest.mark.parametrize("wanted", [15, 16, 20, 24, 30, 60])
@pytest.mark.parametrize("frames", [1, 2, 47, 106, 1001])
def test_frames_are_those_of_the_official_choice(fps, wanted, frames):
    times = np.arange(frames) / fps
    index = VideoIndex("clip.mp4", times, tuple(range(frames)), fps)
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


def test_sound(tmp_path):
    write_video(tmp_path / "clip.mp4", 25, sound=True)
    waveform, rate = read_sound(tmp_path / "clip.mp4")
    assert rate == 48000 and waveform.shape[0] == 1 and abs(waveform.shape[1] / rate - 1) < 0.1
    assert abs(np.sqrt((waveform[:, 5000:40000] ** 2).mean()) - 0.5 / np.sqrt(2)) < 0.05
    write_video(tmp_path / "silent.mp4", 5)
    assert not read_sound(tmp_path / "silent.mp4")[0].any()


def test_a_phone_video_is_turned_upright(tmp_path):
    pixels = write_video(tmp_path / "clip.mp4", 3)
    with av.open(str(tmp_path / "clip.mp4")) as source, av.open(str(tmp_path / "turned.mkv"), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        try:
            stream.set_display_rotation(90)
        except AttributeError:
            pytest.skip("this PyAV cannot write a rotation")
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    (frame,) = read_frames(read_index(tmp_path / "turned.mkv"), [1])
    assert np.array_equal(frame, np.rot90(pixels[1]))


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
    # a stream format can be read up to where it breaks off
    write_video(tmp_path / "clip.mkv", 40)
    whole = (tmp_path / "clip.mkv").read_bytes()
    index = read_index(tmp_path / "clip.mkv")
    (tmp_path / "clip.mkv").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"clip\.mkv .*(breaks off|broken)"):
        list(read_frames(index, list(range(40))))
