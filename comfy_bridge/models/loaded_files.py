"""Model files that were changed: loaded anew by the next prompt, refused where their bytes are about to be used."""

from collections.abc import Callable
from typing import Any

import comfy.patcher_extension

from ...wan_models.checkpoints.files.stamp import Stamp
from .. import folders
from .hints import check_mapped
from .identity import LOOKS_AT_FILES, files_of
from .lora import stamps_of


def fingerprint(name: str, *categories: str) -> str:
    """Text that changes with the files behind an entry of a loader's list (see `folders.options`): by it the host knows
    that it has to load again."""
    return repr(files_of(folders.resolve(name, *categories)))


def watch(patcher: Any, stamps: tuple[Stamp, ...]) -> None:
    """Has the files of a MODEL and of its LoRAs looked at before each run, before the host reads of the weights."""
    patcher.model.stamps = stamps
    if not patcher.get_wrappers(comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING, LOOKS_AT_FILES):
        patcher.add_wrapper_with_key(
            comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING, LOOKS_AT_FILES, _check
        )


def _check(prepare: Callable[..., Any], patcher: Any, *args: Any, **kwargs: Any) -> Any:
    check_mapped(getattr(patcher.model, "stamps", ()))
    check_mapped(stamps_of(patcher))
    return prepare(patcher, *args, **kwargs)
