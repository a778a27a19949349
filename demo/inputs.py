"""Inputs of the demos beside a prompt, drawn and spoken by the small world: files as a user would have them."""

import random
import wave
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from training.sizes import HEIGHT, TALK, WIDTH
from training.world.faces import SAMPLE_RATE, Face, loudness, voice
from training.world.figures import Figure
from training.world.objects import Objects
from training.world.words import Facts


def write_picture(file: Path, picture: Tensor) -> None:
    """A picture [H, W, 3] in 0..1 as a PNG."""
    Image.fromarray((picture * 255).round().to(torch.uint8).numpy()).save(file)


def write_voice(file: Path, opening: np.ndarray, rng: random.Random) -> None:
    """A voice that is as loud in each frame as `opening` says, as 16-bit WAV."""
    with wave.open(str(file), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(SAMPLE_RATE)
        sound.writeframes((voice(opening, rng) * 32767).astype("<i2").tobytes())


def write_start(folder: Path, facts: Facts, frames: int, rng: random.Random, side: int = WIDTH) -> Tensor:
    """example.png and end.png: the first and the last frame of a video of an object, which is returned; side: its width
    and height in pixels."""
    video = Objects.of_facts(facts, rng).frames(frames, side, side)
    write_picture(folder / "example.png", video[0])
    write_picture(folder / "end.png", video[-1])
    return video


def write_talk(folder: Path, facts: Facts, frames: int, rng: random.Random) -> np.ndarray:
    """example.png: a face with its mouth shut; talk.wav: what it is to say. Returns how far its mouth should be open in
    each frame, 0 to 1."""
    opening = loudness(rng, frames)
    opening[0] = 0
    write_picture(folder / "example.png", Face.of_facts(facts, rng, opening).frames(1, TALK, TALK)[0])
    write_voice(folder / "talk.wav", opening, rng)
    return opening


def write_driving(folder: Path, character: Facts, frames: int, rng: random.Random) -> Figure:
    """example.png: the character; and of somebody else who moves: driving.mp4, pose.mp4 (skeletons), face.mp4,
    mask.mp4 (white where the figure is). Returns who it is that moves."""
    write_picture(folder / "example.png", Figure.of_facts(character, rng).frames(1, WIDTH, HEIGHT)[0])
    while (driving := Figure.draw(rng)).facts["background"] == character["colour"]:
        pass
    size = frames, WIDTH, HEIGHT
    for name, video in (
        ("driving", driving.frames(*size)),
        ("pose", driving.poses(*size)),
        ("face", driving.faces(frames)),
        ("mask", driving.masks(*size)[..., None].expand(-1, -1, -1, 3)),
    ):
        write_video(folder / f"{name}.mp4", video)
    return driving


def write_video(file: Path, frames: Tensor, fps: int = 30) -> None:
    """A video [T, H, W, 3] in 0..1, without loss."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264rgb", rate=fps, options={"crf": "0"})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "rgb24"
        for frame in (frames * 255).round().to(torch.uint8).numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
