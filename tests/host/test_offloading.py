"""Offloading by the host's model management changes no result, and two experts keep to its limit."""

from dataclasses import replace

import pytest
from forked import run_script
from formats import write_gguf
from safetensors.torch import save_file

from demo.tiny_release import DIT, write_release
from wan_models.checkpoints.reader import open_model
from wan_models.config import SpeechConfig
from wan_models.dit.base import WanModel
from wan_models.dit.speech import WanSpeechModel
from wan_models.random_weights import random_state_dict


@pytest.fixture(scope="module")
def results(comfyui, base):
    models = base / "models" / "diffusion_models"
    state = {
        k: v.clone() for k, v in open_model(base / "models" / "wan" / "T2V-A14B" / "low_noise_model").items()
    }
    write_gguf(models / "packed.gguf", state, "Q8_0")
    clip = replace(DIT, family="i2v", in_dim=36, image_dim=1280)
    save_file(random_state_dict(lambda: WanModel(clip), 6), models / "i2v_clip.safetensors")
    write_release(base / "models" / "wan" / "S2V-14B", seed=30, name="S2V-14B")
    s2v = replace(
        DIT, family="s2v", speech=SpeechConfig()
    )  # the sizes that the host's own loader takes for granted
    save_file(random_state_dict(lambda: WanSpeechModel(s2v), 7), models / "s2v_host.safetensors")
    return run_script("offload_script.py", comfyui, base)


@pytest.mark.parametrize("part", ["dit", "t5", "vae"])
def test_same_result_however_it_is_loaded(results, part):
    assert results[part]["layers"] >= 15  # every layer with weights was cast on the fly
    assert results[part]["partial"] < 1e-6
    assert results[part]["reloaded"] < 1e-6


def test_tables_of_positions_end_with_a_run(results):
    assert results["tables"] == results["tables after Cancel"] == 0


def test_experts_keep_to_the_hosts_limit(results):
    switch = results["switch"]
    assert switch["peak"] <= switch["room"] < switch["both"]
    # layers that are cast on the fly round in another order on some CPUs: the bound of a model's forward
    assert switch["difference"] < 1e-5


def test_packed_weights_under_a_lora_however_they_are_loaded(results):
    packed = results["packed"]
    assert packed["layers"] >= 15
    for how in ("again", "half loaded", "partial", "reloaded"):
        assert packed[how] < 1e-6, how
    assert min(packed["strength"], packed["plain"]) > 1e-3  # the LoRA is seen, and its strength


def test_clip_features_reach_the_model_of_wan_2_1(results):
    clip = results["clip"]
    assert clip["finite"] and min(clip["without"], clip["other"]) > 1e-3


def test_speech_is_prepared_once_per_clip(results):
    """Two clips of four steps: one call of the audio encoder each, and of the frame packer in the second one."""
    speech = results["speech"]
    assert speech["calls"] == {"casual_audio_encoder": 2, "frame_packer": 1}
    assert speech["kept"] == 0  # nothing stays behind after a run
    assert speech["compared"] == []  # that it is one clip is known without a look at its content
    assert speech["layers"] >= 15 and speech["partial"] < 1e-5


def test_speech_nodes_and_models_of_the_host_mix_with_ours(results):
    speech = results["speech"]
    assert speech["their node"] < 1e-4
    assert min(speech["their model hears"], speech["single file"]) > 1e-3


def test_models_here_and_on_the_workers_make_room_for_each_other(results):
    workers = results["workers"]
    assert workers["difference"] < 1e-5
    # the second text with the first one, and both again where the experts change; in the other steps none
    assert len(workers["compared"]) <= 4
    assert workers["loads"] == 1 and workers["bytes"] == pytest.approx(workers["model bytes"], rel=0.01)
    assert workers["identities"] == {"default": True, "fp16": True, "vae": True}
    assert workers["made room"] >= workers["bytes"]  # text encoder or VAE went before the workers loaded
    assert workers["after"] == {
        "loads": 0,
        "runs": True,
    }  # its model went for the memory, the processes stayed
    assert workers["ended"]


def test_block_patches_see_both_sides_of_a_block(results):
    patch = results["patch"]
    assert patch["difference"] < 1e-6
    assert patch["calls"] >= 2 and patch["change"] > 1e-3


def test_decoding_takes_bands_or_half_precision_where_the_other_does_not_fit(results):
    found = results["decoding"]
    said = {
        name: [line.removeprefix("[Wan2.2] this video is decoded ") for line in room["said"]]
        for name, room in found.items()
    }
    assert said == {
        "float32": [], "bfloat16": ["in bf16"], "neither": [],
        "in bands": ["in two bands of rows"], "in bands, bfloat16": ["in two bands of rows and in bf16"],
    }  # fmt: skip
    differences = {name: room["difference"] for name, room in found.items()}
    assert differences["float32"] == differences["neither"] == 0
    assert differences["in bands"] < 1e-5
    for name in ("bfloat16", "in bands, bfloat16"):
        assert 1e-4 < differences[name] < 0.05
    assert all(room["afterwards"] == 0 for room in found.values())
