"""Progress of the running node, which also is where Cancel takes effect."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import comfy.model_management
import comfy.utils

from ..wan_models.progress import OnProgress

_shown: ContextVar[bool] = ContextVar("shown", default=True)


@contextmanager
def without_progress() -> Iterator[None]:
    """Leaves the running node's bar to whoever calls a part of longer work."""
    token = _shown.set(False)
    try:
        yield
    finally:
        _shown.reset(token)


def progress() -> OnProgress:
    """A callable (done, total) that moves the running node's bar, and ends the work when Cancel was pressed."""
    bar = None

    def on_progress(done: int, total: int) -> None:
        nonlocal bar
        comfy.model_management.throw_exception_if_processing_interrupted()
        if _shown.get():
            bar = bar or comfy.utils.ProgressBar(total)
            bar.update_absolute(done, total)

    return on_progress
