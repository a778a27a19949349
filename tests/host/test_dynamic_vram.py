"""Loading where the host has dynamic VRAM, whose layers are made without weights."""

import pytest
from forked import run_script
from safetensors.torch import save_file

from demo.tiny_release import write_release
from wan_models.checkpoints.reader import open_model
from wan_models.tools.quantize import quantized


@pytest.fixture(scope="module")
def loaded(comfyui, tmp_path_factory):
    management = comfyui / "comfy" / "memory_management.py"
    if not management.is_file() or "aimdo_enabled" not in management.read_text(encoding="utf-8"):
        pytest.skip("this host has no dynamic VRAM")
    base = tmp_path_factory.mktemp("dynamic")
    release = write_release(base / "models" / "wan" / "Animate-14B", name="Animate-14B")
    (base / "models" / "diffusion_models").mkdir()
    model = open_model(release)
    state = quantized({name: model[name] for name in model}, "nvfp4")
    save_file(state, base / "models" / "diffusion_models" / "nvfp4.safetensors")
    return run_script("dynamic_vram_script.py", comfyui, base)


@pytest.mark.parametrize("kind", ["dit", "dit nvfp4", "t5", "vae", "clip"])
def test_every_kind_of_model_gets_its_weights(loaded, kind):
    assert loaded[kind] > 1000
