"""Runs inside a ComfyUI's own Python process: `film_script.py COMFYUI PACK BASE`; prints one JSON object.

Digests of films of the same frames, as a process makes them whose free memory holds what it held before.
"""

import ctypes
import hashlib
import importlib
import json
import runpy
import sys
from pathlib import Path

inside = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "inside_host.py"))
comfyui, pack, base = map(Path, sys.argv[1:4])
inside["enter"](comfyui, pack, base)

import folder_paths  # noqa: E402
import torch  # noqa: E402

Film = importlib.import_module(f"{inside['import_name'](pack)}.comfy_bridge.media.film").Film
folder_paths.set_output_directory(str(base))
FRAMES, HEIGHT, WIDTH = 9, 240, 416
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1
system = ctypes.CDLL(None)
system.malloc.restype, system.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
system.free.argtypes = [ctypes.c_void_p]
for what in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):  # what is freed stays with the process
    system.mallopt(what, 1 << 29)


def fill_free_memory(value: int) -> None:
    """Leaves this byte in the memory that is taken next."""
    blocks = []
    for count, size in ((20, 4 << 20), (100, 100_000), (300, 5_000)):
        for _ in range(count):
            blocks.append(system.malloc(size))
            ctypes.memset(blocks[-1], value, size)
    for block in blocks:
        system.free(block)


rows, columns = torch.arange(HEIGHT).view(-1, 1, 1) / HEIGHT, torch.arange(WIDTH).view(1, -1, 1) / WIDTH
colours, times = torch.arange(3).view(1, 1, 3), torch.arange(FRAMES).view(-1, 1, 1, 1)
video = 0.5 + 0.4 * torch.sin(3 * columns + 0.3 * times + colours) * torch.cos(2 * rows)
found = []
for value in (0, 255, 127, 64):
    fill_free_memory(value)
    with Film("film", (WIDTH, HEIGHT), 16.0, {}) as film:
        film.write(video)
    found.append(hashlib.sha256(film.path.read_bytes()).hexdigest())
print(json.dumps(found))  # noqa: T201
