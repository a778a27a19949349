"""Sound and moving pictures that tests make for themselves."""

import wave
from fractions import Fraction
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


def write_video(path, frames, size=(64, 48), fps=25, b_frames=0, sound=False, seed=0, intra=False, grain=1):
    """Noise without loss: what was written is what is read. Returns the frames [T, H, W, 3].

    grain: pixels per side of what has one colour; coarse noise is quick to write and read."""
    width, height = size
    key = "1" if intra else "12"
    cells = (frames, height // grain, width // grain, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, cells, dtype=np.uint8)
    pixels = pixels.repeat(grain, axis=1).repeat(grain, axis=2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264rgb", rate=fps, options={"crf": "0", "bf": str(b_frames), "g": key}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "rgb24"
        track = container.add_stream("aac", rate=48000, layout="mono") if sound else None
        for array in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode())
        if track:
            tone = 0.5 * np.sin(np.arange(48000 * frames // fps, dtype=np.float32)[None] * 0.05)
            for start in range(0, tone.shape[1], 1024):
                part = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(tone[:, start : start + 1024]), "fltp", "mono"
                )
                part.sample_rate, part.pts = 48000, start
                container.mux(track.encode(part))
            container.mux(track.encode())
    return pixels


FORMATS = {"mjpeg": "yuvj420p", "png": "rgb24", "gif": "rgb8", "zmbv": "bgr0"}
"""Pixel formats of encoders that lack yuv420p."""
MUXERS = {"mpg": "mpeg", "wmv": "asf", "ogv": "ogg"}
"""Formats that an ending does not say, or not clearly."""


def write_coded(path: Path, codec, options, frames=30, size=(64, 48), container=None):
    """Frames that all differ, as any encoder and format write them, at 25 per second."""
    width, height = size
    texture = np.random.default_rng(0).integers(0, 256, (height + 100, width + 100, 3), dtype=np.uint8)
    pixel_format = FORMATS.get(codec, "yuv420p")
    with av.open(str(path), "w", format=MUXERS.get(path.suffix[1:]), options=container or {}) as film:
        stream = film.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        for n in range(frames):
            top, left = 2 * n % 100, 3 * n % 100
            picture = texture[top : top + height, left : left + width].copy()
            picture[:16, :16] = 8 * n % 256
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixel_format)
            frame.pts = n
            film.mux(stream.encode(frame))
        film.mux(stream.encode())


def write_click(path: Path, codec, offset, late=0.0, gap=0.0):
    """A film of 1.6 s with sound that begins `offset` seconds after its picture, which begins at `late`; 0.2 s into the
    sound a click, before which `gap` seconds are left out."""
    video, rate = (
        {"webm": "libvpx", "mpg": "mpeg2video", "wmv": "wmv2"}.get(path.suffix[1:], "libx264"),
        48000,
    )
    late += 0.2  # so that sound that is early has a timestamp, too
    with av.open(str(path), "w", format=MUXERS.get(path.suffix[1:])) as film:
        stream = film.add_stream(video, rate=25, options={"g": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        track = film.add_stream(codec, rate=rate, layout="stereo", bit_rate=128000)
        packets = []
        for n in range(40):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 6 * n, np.uint8), format="rgb24")
            frame = frame.reformat(format="yuv420p")
            frame.pts, frame.time_base = n + round(late * 25), Fraction(1, 25)
            packets += stream.encode(frame)
        packets += stream.encode()
        tone = np.zeros((2, rate), np.float32)
        tone[:, rate // 5 : rate // 4] = 0.9 * np.sin(np.arange(rate // 4 - rate // 5) * 0.3)
        before = round(0.1 * rate)
        resampler = av.AudioResampler(track.codec_context.format, "stereo", rate)
        size = track.codec_context.frame_size or 1024
        for start in range(0, tone.shape[1], size):
            part = np.ascontiguousarray(tone[:, start : start + size])
            sound = av.AudioFrame.from_ndarray(part, "fltp", "stereo")
            sound.sample_rate, sound.time_base = rate, Fraction(1, rate)
            moved = gap if start > before else 0.0
            sound.pts = start + round((late + offset + moved) * rate)
            for converted in resampler.resample(sound):
                packets += track.encode(converted)
        packets += track.encode()
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            film.mux(packet)


def write_film_with_sound(path: Path, rate: int, layout: str):
    """A film of 0.4 s with uncompressed sound, of any rate and number of channels."""
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        track = film.add_stream("pcm_s16le", rate=rate, layout=layout)
        for n in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * n, np.uint8), format="rgb24")
            film.mux(stream.encode(frame.reformat(format="yuv420p")))
        film.mux(stream.encode())
        samples = np.full((1, 2 * rate // 5 * track.codec_context.channels), 3000, np.int16)
        sound = av.AudioFrame.from_ndarray(samples, "s16", layout)
        sound.sample_rate, sound.time_base, sound.pts = rate, Fraction(1, rate), 0
        film.mux(track.encode(sound))
        film.mux(track.encode())


def plain_decode(path):
    """All frames of a video, as they come when it is decoded from its beginning."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def rewrite(source, target, change):
    """Copies the packets, with change(number, packet) made to each; one that it answers False to is left out."""
    with av.open(str(source)) as file, av.open(str(target), "w") as out:
        stream = out.add_stream_from_template(file.streams.video[0], opaque=True)
        for number, packet in enumerate(file.demux(video=0)):
            if packet.size and change(number, packet) is not False:
                packet.stream = stream
                out.mux(packet)
