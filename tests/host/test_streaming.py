"""What is copied to a card whose memory the weights do not fit, counted; see `streaming_script.py`."""

import pytest
from forked import run_script
from formats import write_gguf

from wan_models.checkpoints.reader import open_model

LORAS = ("plain", "alpha", "kernel", "part", "function", "length", "convolution")
CASES = ("plain", "LoRA", "NAG", "Q8_0", "Q8_0 LoRA", "Q8_0 host's LoRA", "Q4_K LoRA")
# of all weights' bytes, those so small that the host has them on the card all the time, and the alignment of the others
SMALL = 0.02


@pytest.fixture(scope="module")
def results(comfyui, base, tmp_path_factory):
    own = tmp_path_factory.mktemp("streaming")
    for name in ("wan", "loras"):
        (own / "models" / name).parent.mkdir(exist_ok=True)
        (own / "models" / name).symlink_to(base / "models" / name, target_is_directory=True)
    folder = own / "models" / "diffusion_models"
    folder.mkdir()
    dit = {
        k: v.clone() for k, v in open_model(base / "models" / "wan" / "T2V-A14B" / "low_noise_model").items()
    }
    for kind in ("Q8_0", "Q4_K"):
        write_gguf(folder / f"{kind}.gguf", dit, kind)
    return run_script("streaming_script.py", comfyui, own)


def of(results, how, *case):
    if how not in results:
        pytest.skip("this host has no dynamic VRAM")
    found = results[how]
    for name in case:
        found = found[name]
    return found


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("how", ["by layers", "paged", "paged, little room"])
def test_a_weight_comes_once_in_a_step_and_as_it_is_stored(results, how, case):
    found = of(results, how, case)
    for step in ("first", "second"):
        assert found[step]["most"] <= 1, step
        assert found[step]["bytes"] <= found["bytes"], step
    assert found["first"]["bytes"] > (1 - SMALL) * found["bytes"]
    assert found["difference"] < 1e-6
    assert found["in files"] > 1 - SMALL  # main memory has no copy of them
    assert found["LoRAs"] == (["LowRank"] if "LoRA" in case else [])
    assert results["NAG"] > 1e-3


@pytest.mark.parametrize("case", CASES)
def test_what_has_room_stays(results, case):
    """LoRAs of packed weights among it, which are not merged into them."""
    found = of(results, "paged", case)
    assert found["kind"] == ("PagedPackedPatcher" if "Q" in case else "ModelPatcherDynamic")
    assert found["second"]["bytes"] == 0
    if case != "NAG":  # whose text comes each time
        assert found["second"]["others"] == of(results, "paged", "plain")["second"]["others"]
    little = of(results, "paged, little room", case)
    assert 0 < little["second"]["bytes"] < little["first"]["bytes"] - 500_000


def test_patchers_of_packed_weights(results):
    found = of(results, "others")
    assert found["delegate"] == found["on CPU"] == "PackedPatcher"
    assert max(found[name] for name in ("with", "without", "delegate's")) < 1e-6


@pytest.mark.parametrize("room", ["both fit", "one fits"])
def test_experts_come_once_each_over_their_change(results, room):
    found = of(results, "switch", room)
    assert found["weights"] == found["of"] and found["most"] == 1
    assert found["bytes"] == found["all"]
    assert found["in files"] > 1 - SMALL


@pytest.mark.parametrize("kind", LORAS)
def test_a_low_rank_change_is_the_hosts_in_one_pass(results, kind):
    """Of matrices; all other changes are left to the host."""
    found = results["low rank"][kind]
    assert found["difference"] < 1e-6 and found["change"] > 1e-2
    in_one = kind in ("plain", "alpha", "kernel", "part")
    assert found["ours"] < found["host"] - 1 if in_one else found["difference"] == 0
