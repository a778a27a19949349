"""Tables of classes by their path in this package, so that a new one is a file and a line."""

from importlib import import_module
from typing import Any


def resolve(path: str) -> Any:
    """Object at a path such as "sampling.unipc.UniPC"."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(f".{module}", __package__), name)
