"""Turns this process into a ComfyUI without a server, for scripts that look at the host's objects.

Run by its path (`runpy`), not imported: the pack's own folder must not be on the path of such a process."""

import asyncio
import gc
import importlib.util
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def enter(comfyui: Path, pack: Path, base: Path, options: Sequence[str] = ("--cpu",)) -> dict[str, type]:
    """Sets up the host of folder `comfyui` with `base` for models; returns the pack's nodes by name.

    options: of the host's command line."""
    sys.argv = [sys.argv[0], *options, "--base-directory", str(base)]
    sys.path[:] = [str(comfyui), *(p for p in sys.path if not _is_ours(Path(p or ".").resolve(), pack))]
    gc.disable()  # until all is imported, see imports.py
    runpy.run_path(str(pack / "devhost" / "cpu_torch.py"))["repair_torchvision"]()
    runpy.run_path(str(pack / "devhost" / "imports.py"))["import_packages"]()
    import comfy.options

    comfy.options.enable_args_parsing()
    import utils.extra_config  # noqa: F401  as main.py does, before the host puts its comfy/utils.py in front

    module = load_pack(pack)
    return {cls.__name__: cls for cls in asyncio.run(asyncio.run(module.comfy_entrypoint()).get_node_list())}


def _is_ours(path: Path, pack: Path) -> bool:
    """Whether a folder is the pack's own; its nodes/ would hide the host's nodes.py."""
    return path.is_relative_to(pack) and not any(p.startswith(".") for p in path.relative_to(pack).parts)


def load_pack(folder: Path) -> Any:
    """A pack of nodes, imported as the host does it: by its path."""
    name = import_name(folder)
    places = [str(folder)]
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=places
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def import_name(folder: Path) -> str:
    """The name under which the host imports a pack, made of its path."""
    return str(folder).replace(".", "_x_")
