"""Names of LoRA files: every trainer's way to write them, and files that were made for something else."""

import itertools
import re

import pytest
from tests_support import on_meta

from wan_models.checkpoints.lora import looks_like, match
from wan_models.config import DiTConfig
from wan_models.dit.base import WanModel

WEIGHTS = {
    name: tuple(weight.shape)
    for name, weight in on_meta(
        WanModel, DiTConfig(dim=64, ffn_dim=96, freq_dim=32, text_dim=24, num_heads=2, num_layers=2)
    )
    .state_dict()
    .items()
}
DOWN, UP = (4, 64), (64, 4)

# every kind of change to a weight [64, 64], as `diffusion_model.` files have it
KINDS = {
    "lora": {"lora_down.weight": DOWN, "lora_up.weight": UP, "alpha": ()},
    "dora": {"lora_A.weight": DOWN, "lora_B.weight": UP, "dora_scale": (64, 1)},
    "peft": {"lora_A.default.weight": DOWN, "lora_B.default.weight": UP},
    "named adapter": {"lora_A.my_style.weight": DOWN, "lora_B.my_style.weight": UP},
    "peft dora": {
        "lora_A.default.weight": DOWN,
        "lora_B.default.weight": UP,
        "lora_magnitude_vector.default.weight": (64,),
    },
    "older diffusers": {"lora.down.weight": DOWN, "lora.up.weight": UP},
    "loha": {"hada_w1_a": UP, "hada_w1_b": DOWN, "hada_w2_a": UP, "hada_w2_b": DOWN, "alpha": ()},
    "lokr": {"lokr_w1": (4, 4), "lokr_w2_a": (16, 2), "lokr_w2_b": (2, 16), "alpha": ()},
    "whole lokr": {"lokr_w1": (4, 4), "lokr_w2": (16, 16)},
    "oft": {"oft_blocks": (8, 8, 8), "alpha": ()},
    "boft": {"oft_blocks": (2, 8, 8, 8), "rescale": (64, 1)},
    "glora": {"a1.weight": UP, "a2.weight": DOWN, "b1.weight": UP, "b2.weight": DOWN},
    "differences": {"diff": (64, 64), "diff_b": (64,)},
    "replacement": {"set_weight": (64, 64)},
}  # fmt: skip
MODULES = {
    "blocks.1.self_attn.q": "blocks.1.attn1.to_q",
    "blocks.0.cross_attn.o": "blocks.0.attn2.to_out.0",
}
PREFIXES = [
    "", "diffusion_model.", "model.diffusion_model.", "model.", "module.", "_orig_mod.", "transformer.",
    "transformer_1.", "transformer_2.", "dit.", "unet.", "pipe.dit.", "pipe.dit2.", "base_model.model.",
    "transformer.base_model.model.", "unet.base_model.model.", "base_model.model.diffusion_model.",
    "diffusion_model._orig_mod.", "_orig_mod.module.", "module._orig_mod.model.", "high_noise_model.",
    "low_noise_model.", "high_noise.", "low_noise.", "low_noise_model.diffusion_model.",
    "diffusion_model.high_noise_model.", "diffusion_model.transformer_1.", "lycoris.",
]  # fmt: skip
UNDERSCORED = [
    "lora_unet_", "lora_unet__", "lycoris_", "lora_transformer_", "lora_unet_diffusion_model_", "lora_unet__orig_mod_",
    "lora_unet_low_noise_model_",
]  # fmt: skip


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


def named(stem, kind):
    return {f"{stem}.{end}": shape for end, shape in KINDS[kind].items()}


@pytest.mark.parametrize("prefix", PREFIXES + UNDERSCORED)
def test_every_prefix_and_every_kind_equal_diffusion_model(prefix):
    for (module, foreign), kind in itertools.product(MODULES.items(), KINDS):
        expected = match(named(f"diffusion_model.{module}", kind), WEIGHTS)
        assert not (expected.unmatched or expected.misfits or expected.faults), expected
        assert len(expected.names) == len(KINDS[kind])
        assert {place for place, _ in expected.names.values()} == {module}
        for name in (module, foreign):
            stem = prefix + (name.replace(".", "_") if prefix in UNDERSCORED else name)
            found = match(named(stem, kind), WEIGHTS)
            assert list(found.names.values()) == list(expected.names.values()), stem
            assert not (found.unmatched or found.misfits or found.faults), stem
            assert re.match(rf"{len(found.names)} of {len(found.names)} keys applied", found.report)


@pytest.mark.parametrize(
    "wrapped",
    [
        "blocks._orig_mod.1.self_attn.q",
        "blocks.1.self_attn.q._orig_mod",
        "blocks.1._orig_mod.self_attn.q",
        "blocks.1.attn1.processor.to_q",
    ],
)
@pytest.mark.parametrize("ends", [("lora_A.weight", "lora_B.weight"), ("lora.down.weight", "lora.up.weight")])
def test_wrappers_and_processors_within_a_name(wrapped, ends):
    for join in "._":
        found = match(
            {f"diffusion_model.{wrapped}{join}{end}": s for end, s in zip(ends, (DOWN, UP), strict=True)},
            WEIGHTS,
        )
        assert {module for module, _ in found.names.values()} == {"blocks.1.self_attn.q"} and len(
            found.names
        ) == 2
    pair = {f"blocks.0.attn2.processor.to_out_lora.{e}.weight": s for e, s in (("down", DOWN), ("up", UP))}
    assert set(match(pair, WEIGHTS).names.values()) == {
        ("blocks.0.cross_attn.o", "lora_down.weight"),
        ("blocks.0.cross_attn.o", "lora_up.weight"),
    }


@pytest.mark.parametrize(
    ("high", "low"),
    [
        ("transformer.", "transformer_2."),
        ("diffusion_model.transformer_1.", "diffusion_model.transformer_2."),
        ("pipe.dit.", "pipe.dit2."),
        ("high_noise_model.", "low_noise_model."),
        ("diffusion_model.high_noise.", "diffusion_model.low_noise."),
        ("lora_unet_high_noise_model_", "lora_unet_low_noise_model_"),
    ],
)
def test_each_expert_takes_its_own_part_of_a_file_for_both(high, low):
    join = (lambda name: name.replace(".", "_")) if high.endswith("_") else (lambda name: name)

    def part(p):
        return {
            p + join("blocks.0.self_attn.q") + f".lora_{e}.weight": s for e, s in (("A", DOWN), ("B", UP))
        }

    both = part(high) | part(low)
    for expert, own, other in (("high", part(high), part(low)), ("low", part(low), part(high))):
        found = match(both, WEIGHTS, expert)
        assert set(found.names) == set(own) and set(found.others) == set(other)
        assert not (found.faults or found.unmatched)
        assert found.report.startswith("2 of 2 keys applied (of both experts' parts in the file")
    assert "high-noise and one for the low-noise" in match(both, WEIGHTS).faults[0]
    # of one expert alone it is used wherever it is put, and the report says whose it is
    found = match(part(low), WEIGHTS, "high")
    assert len(found.names) == 2 and "for the low-noise expert" in found.report


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"q.lora_A.weight": DOWN}, "LoRA of blocks.0.self_attn.q is incomplete"),
        ({"q.lokr_w1": (4, 4)}, "LoKr of .* is incomplete"),
        ({"q.dora_scale": (64, 1)}, "no change that .*dora_scale goes with"),
        ({"q.lora_A.weight": DOWN, "q.lora_B.weight": UP, "q.diff": (64, 64)}, "two ways at once, by LoRA and diff"),
        ({"q.lora_A.a.weight": DOWN, "q.lora_A.b.weight": DOWN}, "lora_A.a.weight and .*lora_A.b.weight are both for"),
        ({"q.oft_R.weight": (8, 28)}, "OFT as peft and OneTrainer"),
        ({"q.oft_R.default.weight": (8, 28)}, "OFT as peft and OneTrainer"),
        ({"q.boft_R": (8, 8)}, "BOFT as peft"),
        ({"q.vera_lambda_b": (64,)}, "VeRA"),
        ({"q.ia3_l": (64,)}, "IA3"),
        ({"q.lora_A.weight": DOWN, "q.lora_B.weight": UP, "q.lora_B.bias": (64,)}, "LoRA with a bias"),
        ({"q.lora_A.weight": DOWN, "q.lora_B.weight": UP, "q.reshape_weight": (2,)}, "makes a layer larger"),
        ({"q.oft_blocks": (8, 8, 8), "q.rescale": (64, 1)}, "OFT with learnt scales"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named(names, says):
    found = match(
        {f"diffusion_model.blocks.0.self_attn.{name}": shape for name, shape in names.items()}, WEIGHTS
    )
    assert any(re.search(says, fault) for fault in (*found.faults, *found.unusable.values())), found


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ({"lora_A.weight": (4, 96)}, "LoRA of blocks.1.ffn.2 is incomplete, .* only .*lora_A"),
        ({"lora_B.weight": UP, "alpha": ()}, "LoRA of blocks.1.ffn.2 is incomplete, .* only .*lora_B"),
        ({"lora_A.weight": (4, 96), "lora_B.weight": (64, 8)}, r"blocks.1.ffn.2 .* lora_up.weight \[64, 8\]"),
        ({"lora_A.weight": (96,), "lora_B.weight": (64,)}, "blocks.1.ffn.2 .* do not go together"),
        ({"lora_A.weight": (4, 96), "lora_B.weight": UP, "lora_mid.weight": (4, 5)}, "do not go together"),
        ({"lora_A.weight": (4, 96), "lora_B.weight": UP, "alpha": (2,)}, r"blocks.1.ffn.2 .* alpha \[2\]"),
        ({"lora_A.weight": (4, 96), "lora_B.weight": UP, "dora_scale": (3,)}, r"lengths \[3\]"),
        ({"dora_scale": (64, 1)}, "no change that .*blocks.1.ffn.2.dora_scale goes with"),
        ({"hada_w1_a": UP, "hada_w1_b": (5, 96), "hada_w2_a": UP, "hada_w2_b": (4, 96)}, "LoHa of blocks.1.ffn.2"),
        ({"hada_w1_a": (), "hada_w1_b": (), "hada_w2_a": (), "hada_w2_b": ()}, "LoHa of blocks.1.ffn.2"),
        ({"hada_w1_a": UP, "hada_w1_b": (4, 96), "hada_w2_a": UP}, "LoHa of blocks.1.ffn.2 is incomplete"),
        ({"lokr_w1": (4,), "lokr_w2": (16, 24)}, "LoKr of blocks.1.ffn.2"),
        ({"lokr_w1": (4, 4), "lokr_w2_a": (16, 3), "lokr_w2_b": (2, 24)}, "LoKr of blocks.1.ffn.2"),
        ({"oft_blocks": (8,)}, "OFT of blocks.1.ffn.2"),
        ({"oft_blocks": (8, 8, 9)}, "OFT of blocks.1.ffn.2"),
        ({"a1.weight": (4,), "a2.weight": UP, "b1.weight": UP, "b2.weight": UP}, "GLoRA of blocks.1.ffn.2"),
    ],
)  # fmt: skip
def test_broken_layers_are_left_out_named_and_counted(broken, says):
    good = named("diffusion_model.blocks.0.self_attn.q", "lora") | {"blocks.1.ffn.2.diff_b": (64,)}
    found = match(good | {f"diffusion_model.blocks.1.ffn.2.{end}": s for end, s in broken.items()}, WEIGHTS)
    assert set(found.names) == set(good)
    assert len(found.unusable) == len(broken) and not (found.faults or found.misfits or found.unmatched)
    assert found.report.startswith(f"4 of {4 + len(broken)} keys applied; {len(broken)} key")
    assert re.search(says, found.report)


@pytest.mark.parametrize(
    "names",
    [
        {"hada_w1_a": UP, "hada_w1_b": (4, 65), "hada_w2_a": UP, "hada_w2_b": DOWN},
        {"lokr_w1": (4, 4), "lokr_w2": (16, 17)},
        {"oft_blocks": (8, 9, 9)},
        {"oft_blocks": (2, 7, 8, 8)},
        {"a1.weight": UP, "a2.weight": DOWN, "b1.weight": (65, 4), "b2.weight": (4, 65)},
        {"set_weight": (64, 63)},
    ],
)
def test_other_sizes_of_other_kinds_are_misfits(names):
    shapes = {f"blocks.0.self_attn.q.{name}": shape for name, shape in names.items()}
    found = match(shapes, WEIGHTS)
    assert found.misfits and not found.faults
    assert found.misfits.keys() <= shapes.keys()  # each counts once


def test_other_transformers_blocks_are_not_ours():
    for stem in (
        "transformer.transformer_blocks.0.attn1.to_q",
        "lora_transformer_transformer_blocks_0_attn1_to_q",
    ):
        found = match({f"{stem}.lora_A.weight": DOWN, f"{stem}.lora_B.weight": UP}, WEIGHTS)
        assert not found.names and len(found.unmatched) == 2


def test_unknown_tensors_are_counted():
    names = {
        "blocks.0.self_attn.q.lora_A.weight": DOWN,
        "blocks.0.self_attn.q.lora_B.weight": UP,
        "text.x": (1,),
    }
    assert match(names | {"blocks.1.ffn.0.alpha": ()}, WEIGHTS).report.startswith(
        "2 of 4 keys applied; not applied: text.x, blocks.1.ffn.0.alpha"
    )
    found = match({"diffusion_model.blocks.0.modulation.diff": (1, 6, 64)}, WEIGHTS)
    assert list(found.names.values()) == [("blocks.0", "diff_m")]


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
    (problem,) = match({name: shape}, WEIGHTS).misfits.values()
    assert re.search(says, problem) and problem.startswith(name)


def test_other_models_are_named():
    assert looks_like(["lora_unet_double_blocks_0_img_attn_qkv.alpha"]) == "Flux or HunyuanVideo"
    assert looks_like(["audio_injector.injector.0.q.lora_A.weight"]) == "Wan S2V"
    assert looks_like(["something"]) == "no model this pack knows"
