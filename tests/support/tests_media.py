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
    write_video(folder / "driving.mp4", 30, (96, 64), sound=True)


def write_video(path, frames, size=(64, 48), fps=25, b_frames=0, sound=False, seed=0):
    """Noise without loss: what was written is what is read. Returns the frames [T, H, W, 3]."""
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=fps, options={"crf": "0", "bf": str(b_frames), "g": "12"})
        stream.width, stream.height, stream.pix_fmt = width, height, "rgb24"
        track = container.add_stream("aac", rate=48000, layout="mono") if sound else None
        for array in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode())
        if track:
            tone = 0.5 * np.sin(np.arange(48000 * frames // fps, dtype=np.float32)[None] * 0.05)
            for start in range(0, tone.shape[1], 1024):
                part = av.AudioFrame.from_ndarray(np.ascontiguousarray(tone[:, start : start + 1024]), "fltp", "mono")
                part.sample_rate, part.pts = 48000, start
                container.mux(track.encode(part))
            container.mux(track.encode())
    return pixels
