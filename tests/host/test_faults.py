"""Faults in mid run, in the real host: a killed server, memory that runs out, clients that go. Each is named, what was
made is kept, and the next prompt is right."""

import os
import random
import signal
import threading
from contextlib import closing

import pytest
import torch
from faulty_pack import fail, write_faulty_pack
from forked import ForkedHost
from graphs import base_graph, latents, sampler, save
from long_videos import clips_of
from PIL import Image

from devhost.errors import HostError
from devhost.events import Events
from devhost.server import Server
from tests.soak.files import write_files
from tests.soak.prompts import TASKS, named

VIDEOS = ("S2V", "Animate", "Animate-2")
LOAD, BLOCK = "comfy.model_patcher:ModelPatcher.load", ".wan_models.dit.layers:Block.feed_forward"
pytestmark = pytest.mark.long
CLIP, SAMPLE = (
    ".comfy_bridge.sampling.clip_run:ClipRun.sample",
    ".comfy_bridge.sampling.experts:ExpertsGuider.sample",
)
DECODE = ".wan_models.vae.base:VideoVAE.decode"


class Restarted:
    """A server that can be started anew in the same folder."""

    def __init__(self, comfyui, base):
        self.comfyui, self.base = comfyui, base
        self.host = ForkedHost(comfyui, base=base)

    def again(self):
        self.host.process.wait(30)
        self.host.close()
        self.host = ForkedHost(self.comfyui, base=self.base)


@pytest.fixture(scope="module")
def server(comfyui, tmp_path_factory):
    base = tmp_path_factory.mktemp("faults")
    write_faulty_pack(base / "custom_nodes")
    write_files(base, ("T2V-A14B", *(release for name in VIDEOS for release in TASKS[name].releases)))
    server = Restarted(comfyui, base)
    yield server
    server.host.close()


def video(task, folder):
    """A video of two clips, kept in a folder."""
    graph = named(TASKS[task].variant(random.Random(3)), folder)
    graph["video"]["inputs"]["checkpoint_folder"] = folder
    return graph


def said(entry):
    return entry["outputs"]["video"]["text"][0]


@pytest.fixture(scope="module")
def whole(server):
    """The clips of each video, made without a fault."""
    found = {}
    for task in VIDEOS:
        server.host.run(video(task, f"{task} whole"))
        found[task] = clips_of(server.base, f"{task} whole")
        assert len(found[task]) == 2
    return found


@pytest.mark.parametrize("task", VIDEOS)
def test_clips_outlive_memory_that_runs_out_and_a_killed_server(server, whole, task):
    fail(server.host, [CLIP, 2], [BLOCK, 3])
    with pytest.raises(HostError, match=r"\(node video\) failed: .*out of memory"):
        server.host.run(video(task, f"{task} again"))
    fail(server.host, [CLIP, 1], [BLOCK, 3], how="kill")
    with pytest.raises(HostError, match="went away during the run"):
        server.host.run(video(task, f"{task} again"))
    server.again()
    assert len(clips_of(server.base, f"{task} again")) == 1
    assert "1 clip was there already" in said(server.host.run(video(task, f"{task} again")))
    made = clips_of(server.base, f"{task} again")
    assert len(made) == 2 and all(torch.equal(a, b) for a, b in zip(made, whole[task], strict=True))


def graph(name="test"):
    return base_graph() | {"sample": sampler(5), "save": save(name=name)}


@pytest.fixture(scope="module")
def expected(server):
    return latents(server.host, graph())


@pytest.mark.parametrize(
    "calls",
    [
        ([".comfy_bridge.models.diffusion:load_into", 1],),
        ([SAMPLE, 1], [LOAD, 1]),
        ([SAMPLE, 1], [LOAD, 2]),
        ([BLOCK, 1],),
        ([BLOCK, 6],),
    ],
    ids=["reading", "loading", "switch", "first block", "a later block"],
)
def test_memory_that_runs_out_is_named_and_the_next_prompt_is_right(server, expected, calls):
    server.host.free()
    fail(server.host, *calls)
    with pytest.raises(HostError, match=r"Wan.* failed: .*out of memory"):
        server.host.run(graph())
    assert torch.equal(latents(server.host, graph()), expected)


def test_memory_that_runs_out_in_decode_changes_no_other_video(server):
    """The host decodes in tiles then, and says so; where that takes too much as well, it is an error."""

    def pictures(name):
        made = named(TASKS["T2V official"].variant(random.Random(1)), name)
        made["sample"]["inputs"]["preset"] = "T2V-A14B 4-step LoRA"
        server.host.free()  # what it remembers of the same prompt, too
        files = [file for file in server.host.outputs(server.host.run(made)) if file.suffix == ".png"]
        return [Image.open(file).tobytes() for file in sorted(files)]

    whole = pictures("whole")
    fail(server.host, [DECODE, 1])
    assert len(pictures("tiles")) == len(whole) == 9
    assert "retrying with tiled VAE decoding" in server.host.log.read_text(errors="replace")
    assert pictures("again") == whole


def test_a_client_that_is_gone_without_a_word_ends_nothing(server, expected):
    client = Server(server.host.url)
    with closing(Events(client.url, client._client_id)) as events:
        slow = graph("gone")
        slow["sample"]["inputs"]["steps"] = 20
        prompt_id = client.queue(slow)
        while (event := events.next()) is None or event[0] != "progress":
            pass
        events._socket.shutdown()  # the connection breaks
        assert torch.equal(latents(server.host, graph("next")), expected)
    assert server.host.history(prompt_id)["status"]["completed"]


def test_a_server_too_busy_to_answer_at_once_is_heard_from_the_first_message(server):
    """What a server sends while its client is not connected is lost, previews too, of which it then makes none."""
    server.host.free()
    heard, pid = [], server.host.process.pid
    os.kill(pid, signal.SIGSTOP)
    wakes = threading.Timer(2.5, os.kill, (pid, signal.SIGCONT))
    wakes.start()
    server.host.run(graph("busy"), lambda kind, _: heard.append(kind))
    wakes.join()
    assert "execution_start" in heard and "wan22.preview" in heard
