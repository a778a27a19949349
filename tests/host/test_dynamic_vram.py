"""Loading where the host has dynamic VRAM, whose layers are made without weights."""

import pytest
from forked import run_script

from demo.tiny_release import write_release


@pytest.fixture(scope="module")
def loaded(comfyui, tmp_path_factory):
    management = comfyui / "comfy" / "memory_management.py"
    if not management.is_file() or "aimdo_enabled" not in management.read_text(encoding="utf-8"):
        pytest.skip("this host has no dynamic VRAM")
    base = tmp_path_factory.mktemp("dynamic")
    write_release(base / "models" / "wan" / "Animate-14B", name="Animate-14B")
    return run_script("dynamic_vram_script.py", comfyui, base)


@pytest.mark.parametrize("kind", ["dit", "t5", "vae", "clip"])
def test_every_kind_of_model_gets_its_weights(loaded, kind):
    assert loaded[kind] > 1000
