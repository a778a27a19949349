"""Lists of files that a node offers, on disks that fail: a node whose list cannot be made is lost, and while the host
starts the whole pack with it."""

import functools
import logging
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import folder_paths

P = ParamSpec("P")
R = TypeVar("R")

_logged: set[str] = set()


def warn_once(text: str) -> None:
    """Logs a line the first time only; lists are made anew whenever the page asks for them."""
    if text not in _logged:
        _logged.add(text)
        logging.warning("[Wan2.2] %s", text)


def or_else(empty: Callable[[], Any]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator of functions that look at files: returns `empty()` where the disk fails, and logs why."""

    def decorate(look: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(look)
        def tried(*args: P.args, **options: P.kwargs) -> R:
            try:
                return look(*args, **options)
            except OSError as error:
                warn_once(
                    f"not all files can be listed: {error}. Check that folder, its permissions and its disk"
                )
                return empty()

        return tried

    return decorate


@or_else(list)
def files_of(category: str) -> list[str]:
    """The host's list of a category's files."""
    try:
        return folder_paths.get_filename_list(category)
    except OSError:
        # what the host remembers of a category names a folder that has been removed since
        folder_paths.filename_list_cache.pop(category, None)
        return folder_paths.get_filename_list(category)
