"""Routes of the host's server for the page: the noise schedule of a sampler's settings, from the samplers' own code."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_type_hints

from ..wan_models.sampling.guidance import check_boundary
from . import compat
from .sampling.settings import CUSTOM, MAX_STEPS, Settings, StepRange, steps_of

SCHEDULE = "/wan22/schedule"
_DEFAULT = Settings.of_release("T2V-A14B")


def schedule(query: Mapping[str, str]) -> dict[str, Any]:
    """The steps of a sampler whose widgets have these values; T2V-A14B's where one is missing.

    sigmas [n + 1]; high [n], true for steps of the high-noise expert; first and last, the part that is run; shift and
    boundary. Raises ValueError on values that a sampler would refuse."""
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
    if first < 0:
        raise ValueError(f"start_step must be 0 or more, not {first}")
    steps = steps_of(settings, StepRange(first, last))
    return {
        "sigmas": [round(sigma, 5) for sigma in steps.whole.tolist()],
        "high": steps.high.tolist(),
        "first": steps.first,
        "last": steps.last,
        "at_high": steps.at_high,
        "shift": settings.shift,
        "boundary": settings.boundary,
    }


def _read(name: str, text: Any, kind: type) -> Any:
    try:
        value = kind(text)
    except ValueError:
        raise ValueError(f"{name} must be {_KINDS[kind]}, not {text!r}") from None
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, not {text}")
    return value


_KINDS = {int: "a whole number", float: "a number"}


def register() -> None:
    """Adds the routes to the host's server, where there is one."""
    routes = getattr(compat.prompt_server(), "routes", None)
    if routes is None:
        return
    from aiohttp import web  # comes with the server

    @routes.get(SCHEDULE)
    async def answer(request: web.Request) -> web.Response:
        try:
            return web.json_response(schedule(request.query))
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
