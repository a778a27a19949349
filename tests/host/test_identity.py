"""What a checkpoint folder notes of a run: the same in every process, other where a pixel may be other."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from forked import run_script
from safetensors.torch import load_file, save_file

from devhost.host import ROOT


@pytest.fixture(scope="module")
def runs(comfyui, base):
    """What two processes of other hash seeds say."""
    edited = load_file(base / "models/diffusion_models/high.safetensors")
    edited["blocks.1.ffn.0.weight"] = edited["blocks.1.ffn.0.weight"].clone()
    edited["blocks.1.ffn.0.weight"][3, 3] += 1
    save_file(edited, base / "models/diffusion_models/edited.safetensors")
    vae = load_file(base / "models/vae/vae.safetensors")
    name = next(name for name in vae if name.startswith("decoder"))
    save_file({**vae, name: vae[name] * 1.01}, base / "models/vae/other_vae.safetensors")
    script = [sys.executable, str(ROOT / "tests/host/identity_script.py"), str(comfyui), str(ROOT), str(base)]
    # the process that forks has a seed that Python drew, or that of the environment
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"

    def start():
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            script, capture_output=True, text=True, timeout=300, cwd=comfyui, env=environment
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.strip().splitlines()[-1])

    with ThreadPoolExecutor() as pool:
        other = pool.submit(start)
        return [run_script("identity_script.py", comfyui, base, seconds=300), other.result()]


@pytest.fixture(scope="module")
def found(runs):
    return runs[0]


def differ(a, b):
    return sorted(name for name in a | b if a.get(name) != b.get(name))


def test_another_process_says_the_same(runs):
    one, two = runs
    for part in one:
        names = one[part] if isinstance(one[part], dict) else range(len(one[part]))
        assert not [name for name in names if one[part][name] != two[part][name]], part


def test_values_of_all_kinds_are_told_apart(found):
    wrong = [name for name, (a, again, other) in found["values"].items() if a != again or a == other]
    assert len(found["values"]) > 60 and not wrong


def test_what_cannot_be_looked_into_is_refused_by_name(found):
    for what, text in found["unknown"].items():
        assert (
            "checkpoint_folder cannot be used here: the input" in text
            and "leave checkpoint_folder empty" in text
        ), what
        assert "0x" not in text
    assert "generator" in found["unknown"]["generator"] and "TextIOWrapper" in found["unknown"]["file"]
    assert "closure.<locals>.<lambda>), its scale" in found["unknown"]["in a closure"]


def test_everything_on_a_model_counts(found):
    for what, (plain, again, *kinds) in found["patched"].items():
        assert again == kinds[0], what
        seen = [plain, *kinds]
        pairs = [(a, b) for i, a in enumerate(seen) for b in seen[i + 1 :]]
        assert all(differ(a, b) for a, b in pairs), what


@pytest.mark.parametrize(
    ("what", "part"),
    [
        ("lora", "the LoRAs of the model"),
        ("merge", "the LoRAs of the model"),
        ("shift", "the sampling settings of the model (shift)"),
        ("SLG", "the patches of the model (guidance, attention, caching ...)"),
        ("bound to a layer", "the patches of the model (guidance, attention, caching ...)"),
    ],
)
def test_the_part_that_differs_is_named(found, what, part):
    _, _, *kinds = found["patched"][what]
    assert all(differ(kinds[0], other) == [part] for other in kinds[1:])


def test_models_are_told_apart(found):
    models = found["models"]
    names = list(models)
    same = {(a, b) for a in names for b in names if a < b and not differ(models[a], models[b])}
    assert same == {("high", "high again"), ("host's high", "host's high again")}
    assert differ(models["high"], models["low"]) == ["the file of the model"]
    assert differ(models["high"], models["high fp16"]) == ["the precision of the model"]


def test_loading_and_running_change_nothing(found):
    assert len(found["loaded"]) == 16
    for what, seen in found["loaded"].items():
        assert [differ(seen[0], other) for other in seen] == [[]] * 5, what


def test_a_patch_that_keeps_notes_is_known_again(found):
    before, after, settled, other = found["states"]
    assert differ(before, after) and not differ(before, settled) and differ(before, other)


def test_vaes_are_told_apart(found):
    vaes = found["vaes"]
    names = [name for name in vaes if name not in ("again", "used")]
    assert vaes["ours"] == vaes["again"] == vaes["used"]
    assert all(differ(vaes[a], vaes[b]) for a in names for b in names if a != b)
    assert "the precision of the VAE" in differ(vaes["ours"], vaes["bf16"])
    assert differ(vaes["ours"], vaes["other"]) == ["the VAE"]
