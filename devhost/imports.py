"""Imports the large packages that ComfyUI needs, without the pauses of Python's garbage collector.

While thousands of modules come in it looks through all of them again and again, and finds nothing: that is a quarter of
the time in which a ComfyUI starts.
"""

import gc
import importlib
import os

PACKAGES = ("torchvision", "transformers", "scipy.stats", "alembic.context", "pydantic_settings")


def import_packages(more: tuple[str, ...] = ()) -> None:
    """Imports those of `PACKAGES` and `more` that are there; what they hold is left out of later collections, too."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # as ComfyUI does before it imports them
    gc.disable()
    for name in (*PACKAGES, *more):
        try:
            importlib.import_module(name)
        except ImportError:
            continue  # not every ComfyUI needs all of them
    gc.freeze()
    gc.enable()
