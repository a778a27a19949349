"""Sound of videos: at its place in time, of any number of channels, with gaps and faults."""

import re
import wave
from fractions import Fraction

import av
import numpy as np
import pytest
from tests_media import write_click, write_video

from wan_models import video
from wan_models.video import VideoIndex, read_index, read_sound


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
    assert len(notes) == 1 and "cannot be decoded, and is silence" in notes[0]
