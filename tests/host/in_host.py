"""Makes the running process one of ComfyUI's, with this pack in it: arguments COMFYUI PACK BASE. For scripts that tests
run with `runpy`; leaves `nodes`, ours by class name, and `pack_name`, under which the pack was imported."""

import asyncio
import importlib.util
import runpy
import sys
from pathlib import Path

comfyui, pack, base = map(Path, sys.argv[1:4])
sys.argv = [sys.argv[0], "--cpu", "--base-directory", str(base)]
sys.path[:] = [
    str(comfyui),
    *(p for p in sys.path if Path(p or ".").resolve() not in (pack, pack / "tests" / "host")),
]
runpy.run_path(str(pack / "demo" / "cpu_torch.py"))["repair_torchvision"]()

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

# the host imports a pack by its path, under a name made of it
pack_name = str(pack).replace(".", "_x_")
spec = importlib.util.spec_from_file_location(
    pack_name, pack / "__init__.py", submodule_search_locations=[str(pack)]
)
module = importlib.util.module_from_spec(spec)
sys.modules[pack_name] = module
spec.loader.exec_module(module)
nodes = {cls.__name__: cls for cls in asyncio.run(asyncio.run(module.comfy_entrypoint()).get_node_list())}
