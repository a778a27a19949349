"""Routes of the host's server for the page: the noise schedule of a sampler's settings, from the samplers' own code,
and what a node's video can be like."""

import asyncio
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, get_type_hints

from ..wan_models.checkpoints.detect import identify
from ..wan_models.checkpoints.reader import open_checkpoint
from ..wan_models.config import VAE_2_2, DiTConfig, TinyVAEConfig, VAEConfig
from ..wan_models.families import RELEASES
from ..wan_models.sampling.guidance import check_boundary
from . import compat, folders
from .sampling import samplers
from .sampling.settings import CUSTOM, MAX_STEPS, Settings, StepRange, steps_of

SCHEDULE = "/wan22/schedule"
VIDEO = "/wan22/video"
_DEFAULT = Settings.of_release("T2V-A14B")
_SETTINGS = [
    "preset", *(field.name for field in fields(Settings)), "start_step", "end_step", "base_steps", "base_cfg",
]  # fmt: skip
_RELEASE_OF = {
    "WanTI2VLatent": "TI2V-5B",
    "WanPoseAnimate": "Animate-14B",
    "WanAnimateCondition": "Animate-14B",
    "WanAnimate2": "Animate-2-14B",
    "WanAnimate2Condition": "Animate-2-14B",
}
"""Nodes of one release; the others' videos are T2V-A14B's, or TI2V-5B's where its VAE is connected."""
_VAES = 16
"""Names of files that are looked at for one question."""
_VAE_2_2_NAME = re.compile(r"wan.?2[._]2.?vae", re.IGNORECASE)
"""The names under which the VAE of TI2V-5B is published."""


def schedule(query: Mapping[str, str]) -> dict[str, Any]:
    """The steps of a sampler whose widgets have these values; T2V-A14B's where one is missing.

    sigmas [n + 1]; high [n], true for steps at high noise; base, how many of these, from the first on, are the base
    model's; first and last, the part that is run; at_base and at_high, how many steps of it are the base's and the
    high-noise expert's; shift and boundary; settings, the names of the widgets that count. Raises ValueError on values
    that a sampler would refuse."""
    custom = {
        name: _read(name, query[name], kind)
        for name, kind in get_type_hints(Settings).items()
        if name in query
    }
    settings = Settings.of_preset(query.get("preset", CUSTOM), replace(_DEFAULT, **custom))
    check_boundary(settings.boundary)
    if settings.steps > MAX_STEPS:
        raise ValueError(f"steps must be {MAX_STEPS} or less, not {settings.steps}")
    first, last = (
        _read(name, query.get(name, default), int)
        for name, default in (("start_step", 0), ("end_step", MAX_STEPS))
    )
    for name, step in (("start_step", first), ("end_step", last)):
        if step < 0:
            raise ValueError(f"{name} must be 0 or more, not {step}")
    _read("base_cfg", query.get("base_cfg", 1), float)
    steps = steps_of(settings, StepRange(first, last), _read("base_steps", query.get("base_steps", 0), int))
    samplers.check_sampler(settings.sampler)
    return {
        "sigmas": [round(sigma, 5) for sigma in steps.whole.tolist()],
        "high": steps.high.tolist(),
        "first": steps.first,
        "last": steps.last,
        "at_high": steps.at_high,
        "base": steps.base,
        "at_base": steps.at_base,
        "shift": settings.shift,
        "boundary": settings.boundary,
        "settings": _SETTINGS,
    }


def video(node: str, vae_names: Iterable[str]) -> dict[str, Any]:
    """fps of the videos of a node class, and the number that their sizes are multiples of with one of these VAEs (None
    where it is no VAE of Wan's)."""
    vae = next(filter(None, map(_vae, vae_names)), None)
    usual = "TI2V-5B" if vae is not None and vae.version == VAE_2_2.version else "T2V-A14B"
    return {
        "fps": RELEASES[_RELEASE_OF.get(node, usual)].fps,
        "multiple": vae and vae.stride[1] * DiTConfig.patch_size[1],
    }


def _vae(name: str) -> VAEConfig | TinyVAEConfig | None:
    """The VAE in a file that a loader lists; one that is not there is known by the name it is published under."""
    try:
        info = identify(open_checkpoint(folders.resolve(name, "vae", folders.APPROXIMATE)).for_model())
    except (ValueError, OSError):
        return VAE_2_2 if _VAE_2_2_NAME.search(name) else None
    return info.config if info.kind == "vae" else None


def _read(name: str, text: Any, kind: type) -> Any:
    try:
        value = kind(text)
    except ValueError:
        raise ValueError(f"{name} must be {_KINDS[kind]}, not {text[:_SHOWN]!r}") from None
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, not {text[:_SHOWN]}")
    if kind is int and abs(value) > _LARGEST:
        raise ValueError(f"{name} is too large: {text[:_SHOWN]}")
    return value


_SHOWN = 40  # characters of a wrong value
_LARGEST = 10**12
_KINDS = {int: "a whole number", float: "a number"}


def register() -> None:
    """Adds the routes to the host's server, where there is one."""
    routes = getattr(compat.prompt_server(), "routes", None)
    if routes is None:
        return
    from aiohttp import web  # comes with the server

    @routes.get(SCHEDULE)
    async def schedule_of(request: web.Request) -> web.Response:
        try:
            return web.json_response(schedule(request.query))
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)

    @routes.get(VIDEO)
    async def video_of(request: web.Request) -> web.Response:
        names = request.query.getall("vae", [])[:_VAES]
        return web.json_response(await asyncio.to_thread(video, request.query.get("node", ""), names))
