"""Parts that the nodes share: of their schemas, and of how they hand inputs on."""

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from functools import wraps
from typing import Any, TypeVar

from comfy_api.latest import io

from ..comfy_bridge.media.conditioning import FIT

T = TypeVar("T")

CATEGORY = "Wan2.2"
POSITIVE = "The prompt: positive of WanT5Encode, or what a conditioning node made of it."
NEGATIVE = "The negative prompt, of the same node as positive; not looked at where CFG is 1."
_KNOWN = inspect.signature(io.Schema).parameters


class FileInput(io.Combo.Input):
    """A choice among files. What loads one says what is wrong where it is missing."""


class WanNode(io.ComfyNode):
    """Base of our nodes, which run with nothing that their schema does not allow: hosts do not look at ranges of what
    comes over a wire, and older ones at no choice."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = vars(cls).get("execute")
        # hosts run copies of the class, which have it already
        if own and not hasattr(own.__func__, "__wrapped__"):
            cls.execute = classmethod(_checked(cls, own.__func__))  # type: ignore[assignment]


def _checked(node: type[WanNode], execute: Callable[..., Any]) -> Callable[..., Any]:
    names = list(inspect.signature(execute).parameters)[1:]

    @wraps(execute)
    def checked(cls: type[WanNode], *values: Any, **inputs: Any) -> Any:
        arguments = dict(zip(names, values, strict=False)) | inputs
        for entry in node.define_schema().inputs:
            _check(entry, arguments.get(entry.id))
        return execute(cls, *values, **inputs)

    return checked


def _check(entry: io.Input, value: Any) -> None:
    """Raises ValueError where an input does not allow this value."""
    match entry:
        case FileInput():
            pass
        case io.Combo.Input() if value is not None and value not in entry.options:
            choices = ", ".join(map(str, entry.options))
            raise ValueError(f"{entry.id} {value!r} is no choice: there are {choices}")
        case io.Int.Input() | io.Float.Input() if isinstance(value, int | float):
            if not entry.min <= value <= entry.max:  # nor does nan lie there
                least, most, given = (
                    f"{x:g}" if isinstance(x, float) else x for x in (entry.min, entry.max, value)
                )
                raise ValueError(f"{entry.id} must be {least} to {most}, not {given}")


def schema(
    node_id: str, title: str, aliases: list[str], *, folder: str, reports: bool = False, **parts: Any
) -> io.Schema:
    """A node's schema in our category.

    Hosts that can find nodes by `aliases`, and send again what a node `reports` where it need not run again: a page
    that was reloaded has it on the node once more."""
    newer = {"search_aliases": aliases, "has_intermediate_output": reports}
    parts |= {name: value for name, value in newer.items() if name in _KNOWN}
    return io.Schema(node_id=node_id, display_name=title, category=f"{CATEGORY}/{folder}", **parts)


def size_inputs(
    width: int = 832, height: int = 480, multiple: int = 16, tooltip: str = "Pixels; see fit."
) -> list[io.Int.Input]:
    """Width and height of pictures."""
    return [
        io.Int.Input(name, default=default, min=multiple, max=8192, step=multiple, tooltip=tooltip)
        for name, default in (("width", width), ("height", height))
    ]


def fit_input(tooltip: str) -> io.Combo.Input:
    """Input for how width and height go with the picture."""
    return io.Combo.Input("fit", options=FIT, default=FIT[0], optional=True, tooltip=tooltip)


def frame_offset_input(
    tooltip: str = "Frames of the video so far; the clip before gives it.",
) -> io.Int.Input:
    """First frame of a clip in its video."""
    return io.Int.Input("frame_offset", default=0, min=0, max=1_000_000, tooltip=tooltip)


def advanced(*inputs: Any) -> list:
    """Inputs that are rarely changed: pages that can fold them away do."""
    for entry in inputs:
        entry.extra_dict["advanced"] = True
    return list(inputs)


def conditioned_outputs() -> list:
    """A clip that is ready to be sampled."""
    return [
        io.Conditioning.Output(display_name="positive"),
        io.Conditioning.Output(display_name="negative"),
        io.Latent.Output(display_name="latent"),
    ]


def split(inputs: Mapping[str, Any], names: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The inputs of these names, and the others."""
    chosen = {name: value for name, value in inputs.items() if name in names}
    return chosen, {name: value for name, value in inputs.items() if name not in chosen}


def take(kind: type[T], inputs: Mapping[str, Any]) -> tuple[T, dict[str, Any]]:
    """A dataclass of those inputs that are its fields, and the other inputs.

    A node makes its last group of all that is left, so that a name that no group knows is a TypeError."""
    chosen, others = split(inputs, {field.name for field in fields(kind)})  # type: ignore[arg-type]
    return kind(**chosen), others
