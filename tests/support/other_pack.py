"""A custom-node pack that gives the host samplers and schedulers in the ways that packs do, long after start-up, and
that logs a warning of its own wherever a VAE is made."""

from pathlib import Path

SAMPLERS = ("late_named", "late_listed", "late_replaced")
SCHEDULERS = ("late_handled", "late_sigmas")
REGISTER = "/other_pack/register"
WARNING = "other_pack was asked for a VAE"

_CODE = f'''
import logging
import comfy.samplers
import comfy.sd
from comfy.samplers import KSampler, SchedulerHandler, k_diffusion_sampling
from aiohttp import web
from server import PromptServer

NODE_CLASS_MAPPINGS = {{}}
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
'''


def write_other_pack(custom_nodes: Path) -> None:
    """Puts the pack into a host's folder; what it has is registered when its route is called."""
    folder = custom_nodes / "other_pack"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(_CODE)
