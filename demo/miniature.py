"""The trained miniatures, placed as releases are, and the example workflows that they run in."""

import json
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from demo import inputs
from devhost.host import ROOT, Host
from training.sizes import TALK, VAE_2_2, side

MINIATURE = ROOT / "miniature"
Graph = dict[str, Any]
_SIZE = {"width": 96, "height": 96}
_BALL = {
    "kind": "ball", "colour": "red", "background": "blue", "motion": "right", "speed": "fast", "size": "large",
}  # fmt: skip
DANCER = {"kind": "figure", "colour": "red", "background": "white", "motion": "dance"}
_TALK_FRAMES, _DRIVING_FRAMES = 48, 33


@dataclass(frozen=True)
class Task:
    """A demo: an example workflow, the release that it loads, and a prompt.

    inputs: those of nodes, by their class, that fit the miniature's small world. write: writes the files that the
    workflow reads into the input folder. change: of the workflow, where the miniature has less than it uses."""

    workflow: str
    release: str
    prompt: str
    inputs: dict[str, dict[str, Any]]
    write: Callable[[Path], Any] = lambda folder: None
    change: Callable[[Graph], None] | None = None

    @property
    def is_there(self) -> bool:
        """Whether the release's miniature is; that of Animate-2-14B is there once it is trained."""
        return (MINIATURE / self.release).is_dir()


def _with_drawn_poses(graph: Graph) -> None:
    """Poses and faces come from files: the detectors of the release, which know people, would see nothing here."""
    detectors = ("WanPoseDetect", "WanPoseRetarget", "WanFaceCrop", "WanDrawPose")
    for name in [name for name, node in graph.items() if node["class_type"] in detectors]:
        del graph[name]
    (loader,) = _nodes(graph, "WanLoadVideo")
    for video in ("pose", "face"):
        inputs = loader["inputs"] | {"file": f"{video}.mp4", "fit": "original"}
        graph[video] = {"class_type": "WanLoadVideo", "inputs": inputs}
    for node in _nodes(graph, "WanPoseAnimate"):
        node["inputs"] |= {"pose_video": ["pose", 0], "face_video": ["face", 0]}


def _all_from_animate_2(graph: Graph) -> None:
    """Every model comes from the folder of Animate-2-14B; to the release itself Animate-14B lends some."""
    (dit,) = _nodes(graph, "WanDiTLoader")
    dit["inputs"]["model_name"] = folder = "wan/Animate-2-14B"
    for node in graph.values():
        for name, value in node["inputs"].items():
            if isinstance(value, str):
                node["inputs"][name] = value.replace("wan/Animate-14B", folder)


def _nodes(graph: Graph, kind: str) -> list[dict[str, Any]]:
    return [node for node in graph.values() if node["class_type"] == kind]


def _write_dancer(folder: Path) -> None:
    inputs.write_driving(folder, DANCER, _DRIVING_FRAMES, random.Random(1))


TASKS = {
    "t2v": Task(
        "t2v_a14b", "T2V-A14B", "A red ball moves to the right before a blue background.",
        {"WanEmptyLatent": {**_SIZE, "frames": 17}},
    ),
    "i2v": Task(
        "i2v_a14b", "I2V-A14B", "A large red ball moves quickly to the right before a blue background.",
        {"WanI2VCondition": {**_SIZE, "frames": 17}},
        write=lambda folder: inputs.write_start(folder, _BALL, 17, random.Random(1)),
    ),
    "ti2v": Task(
        "ti2v_5b_text", "TI2V-5B", "A red ball moves to the right before a blue background.",
        {"WanTI2VLatent": {"width": side(VAE_2_2), "height": side(VAE_2_2), "frames": 17}},
    ),
    "s2v": Task(
        "s2v_14b", "S2V-14B", "A yellow face talks before a grey background.",
        {"WanSpeechToVideo": {"width": TALK, "height": TALK, "frames_per_clip": 16}},
        write=lambda folder: inputs.write_talk(
            folder, {"kind": "face", "colour": "yellow", "background": "grey", "motion": "talk"}, _TALK_FRAMES,
            random.Random(1),
        ),
    ),
    "animate": Task(
        "animate_14b", "Animate-14B", "A red figure dances before a white background.",
        {"WanPoseAnimate": {"frames_per_clip": 17}}, write=_write_dancer, change=_with_drawn_poses,
    ),
    "animate2": Task(
        "animate_2_14b", "Animate-2-14B", "A red figure dances before a white background.",
        {"WanAnimate2": {**_SIZE, "frames_per_clip": 17}}, write=_write_dancer, change=_all_from_animate_2,
    ),
}  # fmt: skip


def place_miniature(release: str, folder: Path) -> None:
    """Puts a trained miniature together in `folder`, as the release of that name is downloaded."""
    for part in ("shared", release):
        shutil.copytree(MINIATURE / part, folder, dirs_exist_ok=True)


def prepare(task: Task, base: Path) -> None:
    """Puts a task's miniature, and the files that its workflow reads, below the base folder of a host."""
    place_miniature(task.release, base / "models" / "wan" / task.release)
    (base / "input").mkdir()
    task.write(base / "input")


def prompt_of(task: Task, prompt: str) -> Graph:
    """The API prompt of a task."""
    graph = json.loads(
        (ROOT / "example_workflows" / "api" / f"{task.workflow}.json").read_text(encoding="utf-8")
    )
    if task.change is not None:
        task.change(graph)
    for node in graph.values():
        node["inputs"] |= task.inputs.get(node["class_type"], {})
        if node["class_type"] == "WanT5Encode":
            node["inputs"]["positive"] = prompt
    return graph


def frames_of(host: Host, graph: Mapping[str, Any]) -> Tensor:
    """The frames [T, H, W, 3] in 0..1 that an API prompt makes, before they are encoded as a video."""
    nodes = {
        name: node for name, node in graph.items() if node["class_type"] not in ("CreateVideo", "SaveVideo")
    }
    (images,) = (node["inputs"]["images"] for node in graph.values() if node["class_type"] == "CreateVideo")
    nodes["save"] = {"class_type": "SaveImage", "inputs": {"images": images, "filename_prefix": "frames"}}
    files = host.outputs(host.run(nodes))
    return torch.stack([torch.from_numpy(np.array(Image.open(file))) for file in files]).float() / 255
