"""A custom-node pack for the tests' host that makes a call inside it fail when it is told to: memory runs out there, or
the whole process is killed."""

from pathlib import Path

FAIL = "/faulty_pack/fail"

_CODE = f'''
import importlib
import os
import signal
from unittest import mock

import comfy.model_management
import nodes
from aiohttp import web
from server import PromptServer

NODE_CLASS_MAPPINGS = {{}}
patches = []


def out_of_memory():
    raise comfy.model_management.OOM_EXCEPTION("CUDA out of memory. Tried to allocate 9.99 GiB")


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def owner_of(path):
    """The module or class that a name stands in, and the name; those that begin with a dot are of the Wan pack."""
    pack = nodes.NODE_CLASS_MAPPINGS["WanMoESampler"].__module__.rsplit(".", 2)[0]
    module, names = path.split(":")
    *classes, name = names.split(".")
    owner = importlib.import_module(pack + module if module.startswith(".") else module)
    for one in classes:
        owner = getattr(owner, one)
    return owner, name


class Countdown:
    """Calls to wait for, one after the other: [path, how many of it]; the last one is the one that fails."""

    def __init__(self, calls, fault):
        self.calls, self.fault = calls, fault

    def heard(self, path):
        if not self.calls or self.calls[0][0] != path:
            return
        self.calls[0][1] -= 1
        if self.calls[0][1] == 0:
            del self.calls[0]
            if not self.calls:
                self.fault()


@PromptServer.instance.routes.post("{FAIL}")
async def fail(request):
    """{{"calls": [[path, number], ...], "how": "out of memory" or "kill"}}; no calls: nothing fails any more."""
    while patches:
        patches.pop().stop()
    asked = await request.json()
    countdown = Countdown(asked["calls"], {{"out of memory": out_of_memory, "kill": kill}}[asked["how"]])
    for path in {{path for path, _ in asked["calls"]}}:
        owner, name = owner_of(path)

        def call(*args, real=getattr(owner, name), path=path, **kwargs):
            countdown.heard(path)
            return real(*args, **kwargs)

        patches.append(mock.patch.object(owner, name, call))
        patches[-1].start()
    return web.json_response({{}})
'''


def write_faulty_pack(custom_nodes: Path) -> None:
    """Puts the pack into a host's folder."""
    folder = custom_nodes / "faulty_pack"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(_CODE)


def fail(host, *calls, how="out of memory"):
    """Has the host fail once: in the last of `calls`, each a path and how many calls of it there are to wait for since
    the one before. A path is module:name, and below the Wan pack where it begins with a dot."""
    answer = host.post(FAIL, {"calls": calls, "how": how})
    assert answer.ok, answer.text
