"""Runs inside a ComfyUI's own Python process: `tiny_vae_script.py COMFYUI PACK BASE`; prints one JSON object.

Tiny autoencoders of our loader against the host's own network on the same weights (largest difference of pixels, and of
latents, by file); previews against the decoded video; and a budget of previews over steps of a clock that is not real.
"""

import importlib
import json
import runpy
import sys
from pathlib import Path

inside = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "inside_host.py"))
comfyui, pack, base = map(Path, sys.argv[1:4])
wan = inside["enter"](comfyui, pack, base)

import comfy.latent_formats as formats  # noqa: E402
import torch  # noqa: E402
from comfy.taesd.taehv import TAEHV  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

bridge = f"{inside['import_name'](pack)}.comfy_bridge"
tiny_preview = importlib.import_module(f"{bridge}.sampling.tiny_preview")
torch.set_num_threads(1)
torch.set_grad_enabled(False)
# by file: channels of the latents, and the format by which the host's network has to change raw ones
FILES = {
    "taew2_1": (16, formats.Wan21), "lighttaew2_1": (16, None),
    "taew2_2": (48, formats.Wan22), "lighttaew2_2": (48, None),
}  # fmt: skip


def largest(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape, (a.shape, b.shape)
    return float((a.double() - b.double()).abs().max() / b.double().abs().max())


def images(video: torch.Tensor) -> torch.Tensor:
    """Of the host's network [B, 3, T, H, W], as IMAGEs are."""
    return video.clamp(0, 1).movedim(1, -1)


def encoded(network: TAEHV, pixels: torch.Tensor) -> torch.Tensor:
    """By the host's layers, from patches that are made here: older hosts make wrong ones of 48 channels' videos."""
    patch = network.patch_size
    video = torch.nn.functional.pixel_unshuffle(pixels.movedim(-1, 1)[None], patch).movedim(1, 2)
    network.patch_size = 1
    try:
        return network.encode(video)
    finally:
        network.patch_size = patch


def compared(name: str) -> dict[str, float]:
    file = f"{name}.safetensors"
    channels, latent_format = FILES[name]
    theirs = TAEHV(channels, latent_format=latent_format, show_progress_bar=False)
    theirs.load_state_dict(load_file(base / "models" / "vae_approx" / file))
    vae = wan["WanVAELoader"].execute(file).args[0]
    found = {}
    for frames in (1, 9):
        cells = (frames + 3) // 4
        z = torch.randn(2, channels, cells, 2, 3) * 2
        size = 8 if channels == 16 else 16
        pixels = torch.rand(frames, 2 * size, 3 * size, 3)
        found[f"decode {frames}"] = largest(vae.decode(z), images(theirs.decode(z)))
        found[f"encode {frames}"] = largest(vae.encode(pixels), encoded(theirs, pixels))
    return found


def previewed(name: str) -> dict[str, object]:
    """Each of the calls after a step until there are pictures, and those beside the decoded video's."""
    file = base / "models" / "vae_approx" / f"{name}.safetensors"
    latent_format = formats.Wan21() if name.endswith("2_1") else formats.Wan22()
    raw = torch.randn(1, latent_format.latent_channels, 3, 2, 5)
    tiny_preview.SHARE = 1e6
    preview = tiny_preview.TinyPreview(file, latent_format)
    calls = [preview.pictures(latent_format.process_in(raw)[0], 4, 20) for _ in range(4)]
    video = wan["WanVAELoader"].execute(file.name).args[0].decode(raw)[0]
    expected = tiny_preview.to_pixels(video[[0, 3, 5, 8]].movedim(-1, 1) * 2 - 1, 20)
    return {
        "calls": [shown is not None for shown in calls],
        "shape": list(calls[-1].shape),
        "difference": int((calls[-1].int() - expected.int()).abs().max()),
    }


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now

    def run(self, seconds: float) -> None:
        self.now += seconds


def spent(a_step: float, a_preview: float, steps: int = 200) -> tuple[float, int]:
    """The part of the steps' time that previews took, and how many there were."""
    clock, count = Clock(), 0
    budget = tiny_preview.Budget(0.05, clock)
    for _ in range(steps):
        clock.run(a_step)
        budget.step_ends()
        if budget.seconds > a_preview:
            budget.spend(lambda: clock.run(a_preview))
            count += 1
    return count * a_preview / (steps * a_step), count


results = {
    "budget": {f"{c} of a step": spent(2.0, 2.0 * c) for c in (0.001, 0.04, 0.3, 4.0, 50.0)},
    "previews": {name: previewed(name) for name in FILES},
    "differences": {name: compared(name) for name in FILES},
}
print(json.dumps(results))  # noqa: T201
