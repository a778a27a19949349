"""Videos of the world to learn from, by number: the same number is the same video."""

import random
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

import torch
from torch import Tensor

from devhost.cpu_torch import repair_torchvision

from .world.faces import Face
from .world.figures import Figure
from .world.objects import Objects
from .world.words import Facts

T = TypeVar("T")
Draw = Callable[[int], tuple[Tensor, Facts]]
"""A video by its number, [T, H, W, 3] of bytes, and all that is true of it."""
_PIECE = 64


def objects(number: int, frames: int, width: int, height: int) -> tuple[Tensor, Facts]:
    """Video [T, H, W, 3] of bytes and all that is true of it."""
    scene = Objects.draw(random.Random(number))
    return to_bytes(scene.frames(frames, width, height)), scene.facts


def anything(number: int, frames: int, width: int, height: int) -> tuple[Tensor, Facts]:
    """Video of anything there is, drawn skeletons, masked and unknown frames too: what an autoencoder must know."""
    rng = random.Random(number)
    kind = rng.choices(["objects", "face", "figure", "pose", "mask", "begins"], [6, 3, 4, 2, 1, 1])[0]
    if kind in ("objects", "begins"):
        scene = Objects.draw(rng)
        video, facts = scene.frames(frames, width, height), scene.facts
        if kind == "begins":
            video[1:] = 0.5
    elif kind == "face":
        face = Face.draw(rng, frames)
        video, facts = face.frames(frames, width, height), face.facts
    else:
        figure = Figure.draw(rng)
        facts = figure.facts
        if kind == "figure":
            video = figure.frames(frames, width, height)
        elif kind == "pose":
            video = figure.poses(frames, width, height)
        else:
            video = figure.backgrounds(frames, width, height) * (
                1 - figure.masks(frames, width, height)[..., None]
            )
    return to_bytes(video), facts


def to_bytes(video: Tensor) -> Tensor:
    """A video in 0..1 in bytes."""
    return (video * 255).round().to(torch.uint8)


def rendered(draw: Draw, numbers: Sequence[int]) -> tuple[Tensor, list[Facts]]:
    """Videos [N, T, H, W, 3] of bytes of these numbers."""
    drawn = [draw(number) for number in numbers]
    return torch.stack([video for video, _ in drawn]), [facts for _, facts in drawn]


def spread(work: Callable[[range], T], numbers: range) -> list[T]:
    """Results of `work` on pieces of a range, in its order; one process for each core. work can be pickled."""
    pieces = [numbers[start : start + _PIECE] for start in range(0, len(numbers), _PIECE)]
    with ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=_begin) as pool:
        return list(pool.map(work, pieces))


def _begin() -> None:
    """Prepares each process."""
    torch.set_num_threads(1)
    repair_torchvision()  # transformers imports it
