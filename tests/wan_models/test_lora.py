"""Names of LoRA files: every trainer's way to write them, and files that were made for something else."""

import re

import pytest

from wan_models.checkpoints.lora import looks_like, match
from wan_models.config import DiTConfig
from wan_models.dit.base import WanModel

WEIGHTS = {
    name: tuple(weight.shape)
    for name, weight in WanModel(
        DiTConfig(dim=64, ffn_dim=96, freq_dim=32, text_dim=24, num_heads=2, num_layers=2), device="meta"
    )
    .state_dict()
    .items()
}
DOWN, UP = (4, 64), (64, 4)


@pytest.mark.parametrize(
    ("down", "up", "module"),
    [
        ("diffusion_model.blocks.1.self_attn.q.lora_A.weight", "lora_B.weight", "blocks.1.self_attn.q"),
        ("diffusion_model.blocks.1.self_attn.q.lora_down.weight", "lora_up.weight", "blocks.1.self_attn.q"),
        ("blocks.0.cross_attn.o.lora_down.weight", "lora_up.weight", "blocks.0.cross_attn.o"),
        ("base_model.model.blocks.1.self_attn.q.lora_A.weight", "lora_B.weight", "blocks.1.self_attn.q"),
        ("base_model.model.blocks.1.ffn.0.lora_A.default.weight", "lora_B.default.weight", "blocks.1.ffn.0"),
        ("transformer.blocks.1.attn1.to_q.lora_A.weight", "lora_B.weight", "blocks.1.self_attn.q"),
        ("transformer.blocks.0.attn2.to_out.0.lora.down.weight", "lora.up.weight", "blocks.0.cross_attn.o"),
        ("lora_unet_blocks_1_self_attn_q.lora_down.weight", "lora_up.weight", "blocks.1.self_attn.q"),
        ("lora_unet_blocks_1_attn1_to_q.lora_down.weight", "lora_up.weight", "blocks.1.self_attn.q"),
        ("model.diffusion_model.blocks.1.self_attn.q_lora.down.weight", "lora.up.weight", "blocks.1.self_attn.q"),
    ],
)  # fmt: skip
def test_every_naming_is_understood(down, up, module):
    stem = down.removesuffix(next(end for end in _ENDS if down.endswith(end)))
    names = {down: DOWN, stem + up: (WEIGHTS[f"{module}.weight"][0], 4), stem + "alpha": ()}
    found = match(names, WEIGHTS)
    assert found.names == {
        down: (module, "lora_down.weight"),
        stem + up: (module, "lora_up.weight"),
        stem + "alpha": (module, "alpha"),
    }
    assert not found.unmatched and not found.misfits
    assert found.report == "3 of 3 keys applied"


_ENDS = ("lora_A.default.weight", "lora_A.weight", "lora_down.weight", "lora.down.weight")


def test_norm2_of_diffusers_is_our_norm3():
    found = match(
        {"transformer.blocks.0.norm2.diff": (64,), "diffusion_model.blocks.0.norm3.diff": (64,)}, WEIGHTS
    )
    assert {module for module, _ in found.names.values()} == {"blocks.0.norm3"}


def test_report_names_what_was_left_out_and_whether_it_matters():
    names = {
        "diffusion_model.blocks.0.self_attn.q.lora_A.weight": DOWN,
        "diffusion_model.blocks.0.self_attn.q.lora_B.weight": UP,
        "diffusion_model.blocks.0.cross_attn.k_img.lora_A.weight": DOWN,
    }
    report = match(names, WEIGHTS).report
    assert report.startswith(
        "2 of 3 keys applied; not applied: diffusion_model.blocks.0.cross_attn.k_img.lora_A"
    )
    assert report.endswith("harmless)")
    names["diffusion_model.blocks.9.self_attn.q.lora_A.weight"] = DOWN
    assert "harmless" not in match(names, WEIGHTS).report


@pytest.mark.parametrize(
    ("name", "shape", "says"),
    [
        ("blocks.0.self_attn.q.lora_A.weight", (4, 128), r"is \[128\] where the model has \[64\]"),
        ("blocks.0.self_attn.q.lora_B.weight", (128, 4), r"is \[128\] where the model has \[64\]"),
        ("blocks.0.self_attn.q.diff", (64, 65), r"is \[64, 65\] where"),
        ("blocks.0.self_attn.q.diff_b", (65,), r"is \[65\] where"),
        ("blocks.0.diff_m", (1, 6, 65), r"is \[1, 6, 65\] where"),
    ],
)
def test_other_sizes_are_misfits(name, shape, says):
    (problem,) = match({name: shape}, WEIGHTS).misfits
    assert re.search(says, problem) and problem.startswith(name)


def test_other_models_are_named():
    assert looks_like(["lora_unet_double_blocks_0_img_attn_qkv.alpha"]) == "Flux or HunyuanVideo"
    assert looks_like(["audio_injector.injector.0.q.lora_A.weight"]) == "Wan S2V"
    assert looks_like(["something"]) == "no model this pack knows"
