"""A custom-node pack for the tests' host. It gives the host samplers and schedulers in the ways that packs do, long
after start-up; logs a warning of its own wherever a VAE is made; lets the file system fail; and saves an
IMAGE to the bit."""

from pathlib import Path

SAMPLERS = ("late_named", "late_listed", "late_replaced")
SCHEDULERS = ("late_handled", "late_sigmas")
REGISTER = "/other_pack/register"
BREAK = "/other_pack/break"
WARNING = "other_pack was asked for a VAE"

_CODE = f'''
import logging
import os
import pathlib
import sys
from unittest import mock
import comfy.samplers
import comfy.sd
import folder_paths
import nodes
from comfy.samplers import KSampler, SchedulerHandler, k_diffusion_sampling
from aiohttp import web
from safetensors.torch import save_file
from server import PromptServer

class SaveTensor:
    INPUT_TYPES = classmethod(lambda cls: {{"required": {{"images": ("IMAGE",), "name": ("STRING",)}}}})
    RETURN_TYPES, FUNCTION, OUTPUT_NODE, CATEGORY = (), "save", True, "tests"

    def save(self, images, name):
        file = os.path.join(folder_paths.get_output_directory(), name + ".safetensors")
        save_file({{"images": images.contiguous()}}, file)
        return {{"ui": {{}}}}


NODE_CLASS_MAPPINGS = {{"SaveTensor": SaveTensor}}
make_vae = comfy.sd.VAE.__init__


def warn_and_make(self, *args, **kwargs):
    logging.warning("{WARNING}")
    make_vae(self, *args, **kwargs)


comfy.sd.VAE.__init__ = warn_and_make


def register():
    for name in {SAMPLERS!r}:
        setattr(k_diffusion_sampling, "sample_" + name, k_diffusion_sampling.sample_euler)
    comfy.samplers.SAMPLER_NAMES.append("late_named")
    comfy.samplers.KSAMPLER_NAMES.append("late_listed")
    KSampler.SAMPLERS = [*KSampler.SAMPLERS, "late_replaced"]
    handlers = comfy.samplers.SCHEDULER_HANDLERS
    handlers["late_handled"] = SchedulerHandler(comfy.samplers.simple_scheduler)
    handlers["late_sigmas"] = SchedulerHandler(k_diffusion_sampling.get_sigmas_exponential, use_ms=False)
    comfy.samplers.SCHEDULER_NAMES.append("late_sigmas")


@PromptServer.instance.routes.post("{REGISTER}")
async def answer(request):
    register()
    return web.json_response({{}})


@PromptServer.instance.routes.post("{BREAK}")
async def break_and_list(request):
    """Has the Wan nodes listed while a call of the file system fails; answers with what was raised, by node."""
    asked, raised = await request.json(), {{}}
    kind, _, name = asked["call"].rpartition(".")
    owner = {{"Path": pathlib.Path, "os": os, "os.path": os.path}}[kind]
    pack = sys.modules[nodes.NODE_CLASS_MAPPINGS["WanMoESampler"].__module__.rpartition(".")[0]]
    ours = {{k: v for k, v in nodes.NODE_CLASS_MAPPINGS.items() if v.__module__.startswith(pack.__name__)}}

    def fail(path=".", *args, **options):
        raise OSError(asked["errno"], os.strerror(asked["errno"]), str(path))

    folder_paths.filename_list_cache.clear()
    with mock.patch.object(owner, name, fail):
        try:
            assert len(await pack.WanExtension().get_node_list()) == len(ours)
        except OSError as error:
            raised["start"] = repr(error)
        for key, node in ours.items():
            try:
                node.GET_SCHEMA()
            except Exception as error:
                raised[key] = repr(error)
    folder_paths.filename_list_cache.clear()
    return web.json_response({{"raised": raised, "asked": len(ours)}})
'''


def write_other_pack(custom_nodes: Path) -> None:
    """Puts the pack into a host's folder; what it has is registered when its route is called."""
    folder = custom_nodes / "other_pack"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(_CODE)
