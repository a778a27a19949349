"""A real ComfyUI server with the trained miniatures in it, and videos of it as tensors."""

import shutil

import pytest
from forked import ForkedHost

from demo.miniature import MINIATURE, TASKS, frames_of, place_miniature, prompt_of


@pytest.fixture(scope="session")
def host(comfyui, tmp_path_factory):
    base = tmp_path_factory.mktemp("quality")
    (base / "input").mkdir()
    for task in (task for task in TASKS.values() if task.is_there):
        place_miniature(task.release, base / "models" / "wan" / task.release)
    shutil.copytree(MINIATURE / "loras", base / "models" / "loras")
    with ForkedHost(comfyui, base=base) as server:
        yield server


@pytest.fixture(scope="session")
def make(host):
    """make(task, caption, negative, change, WanMoESampler={...}) -> video [T, H, W, 3] in 0..1; change: of the graph;
    inputs of nodes by class."""

    def run(task, caption, negative=None, change=None, **inputs):
        graph = prompt_of(TASKS[task], caption)
        if change is not None:
            change(graph)
        for node in graph.values():
            node["inputs"] |= inputs.get(node["class_type"], {})
            if node["class_type"] == "WanT5Encode" and negative is not None:
                node["inputs"]["negative"] = negative
        return frames_of(host, graph)

    return run


@pytest.fixture
def inputs(host):
    """The server's input folder, empty."""
    folder = host.base / "input"
    shutil.rmtree(folder)
    folder.mkdir()
    return folder
