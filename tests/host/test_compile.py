"""torch.compile of our MODELs: nothing breaks off, and nothing is compiled again in the course of a run."""

from dataclasses import replace

import pytest
from forked import run_script
from formats import write_gguf
from safetensors.torch import save_file

from demo.tiny_release import DITS
from wan_models.families import FAMILIES
from wan_models.random_weights import random_state_dict

pytestmark = pytest.mark.long
NAMES = {
    "high": "T2V-A14B", "i2v": "I2V-A14B", "ti2v": "TI2V-5B", "s2v": "S2V-14B", "animate": "Animate-14B",
    "animate2": "Animate-2-14B", "packed": "T2V-A14B",
}  # fmt: skip


def write(folder, name, seed):
    # two blocks are enough to see whether one graph serves all
    config = replace(DITS[NAMES.get(name, "T2V-A14B")], ffn_dim=256)
    state = random_state_dict(lambda: FAMILIES[config.family].network_class(config), seed)
    if name == "packed":
        write_gguf(folder / "compiled_packed.gguf", state, "Q8_0")
    else:
        save_file(state, folder / f"compiled_{name}.safetensors")


@pytest.fixture(scope="module")
def models(base):
    for seed, name in enumerate((*NAMES, "low")):
        write(base / "models" / "diffusion_models", name, 60 + seed)
    return base


@pytest.fixture(scope="module")
def results(comfyui, models):
    return run_script("compile_script.py", comfyui, models, "eager", *NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_one_graph_serves_all_blocks_of_a_run(results, name):
    check(results[name], with_lora=int(name == "packed"))


@pytest.mark.parametrize("name", NAMES)
def test_patches_and_cancel_stay_outside(results, name):
    assert results[name]["is interrupted"]


def test_the_compiler_that_people_use(comfyui, models):
    check(run_script("compile_script.py", comfyui, models, "inductor", "high")["high"])


def check(result, with_lora=0):
    """with_lora: graphs that the first LoRA brings."""
    assert result["breaks"] == {}
    counts = dict(result["graphs"])
    first = counts.pop("first")
    assert 1 <= first <= 2  # Animate-2 has a second for the driving video
    assert (counts.pop("steps"), counts.pop("prompts")) == (first, first)
    packs = [counts.pop(name) for name in list(counts) if name.startswith("TorchCompile")]
    assert set(counts.values()) == {first + with_lora}, counts
    assert max(packs, default=0) <= first + with_lora + 1  # with settings of its own, a graph of its own
    assert result["differs"] < 1e-4
    changes = {result[f"LoRA {strength}"] for strength in (0.5, -0.25, 1.0)}
    assert len(changes) == 3
    assert min(changes) > 1e-3  # a LoRA that does nothing shows nothing
