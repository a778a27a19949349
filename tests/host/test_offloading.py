"""Offloading by the host's model management changes no result, and two experts keep to its limit."""

import json
import subprocess
import sys

import pytest

from demo.host import ROOT


@pytest.fixture(scope="module")
def results(comfyui, base):
    command = [
        sys.executable,
        str(ROOT / "tests" / "host" / "offload_script.py"),
        str(comfyui),
        str(ROOT),
        str(base),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=comfyui)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("part", ["dit", "t5", "vae"])
def test_same_result_however_it_is_loaded(results, part):
    assert results[part]["layers"] >= 15  # every layer with weights was cast on the fly
    assert results[part]["partial"] < 1e-6
    assert results[part]["reloaded"] < 1e-6


def test_experts_keep_to_the_hosts_limit(results):
    switch = results["switch"]
    assert switch["peak"] <= switch["room"] < switch["both"]
    assert switch["difference"] < 1e-6


def test_block_patches_see_both_sides_of_a_block(results):
    patch = results["patch"]
    assert patch["difference"] < 1e-6
    assert patch["calls"] >= 2 and patch["change"] > 1e-3
