"""Sound and moving pictures that tests make for themselves."""

import wave
from pathlib import Path

import av
import numpy as np


def write_sound(path: Path, seconds, rate=44100, channels=2, loud=0.3):
    """Something like a voice, as 16-bit WAV."""
    time = np.arange(int(seconds * rate)) / rate
    voice = loud * np.sin(time * 700 * (1 + 0.3 * np.sin(5 * time)))[:, None] * np.linspace(1, 0.5, channels)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((voice * 32767).astype("<i2").tobytes())


def write_film(path: Path, frames=30, fps=50, width=96, height=64):
    """A bright bar that moves over black."""
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for n in range(frames):
            picture = np.zeros((height, width, 3), dtype=np.uint8)
            picture[:, 2 * n : 2 * n + 8] = 255
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                film.mux(packet)
        for packet in stream.encode():
            film.mux(packet)


def media(folder: Path):
    """What the example workflows look for in the input folder, beside the host's own picture."""
    folder.mkdir(exist_ok=True)
    write_sound(folder / "talk.wav", 0.6)
    write_film(folder / "pose.mp4")
