"""Wan models that are not run here, by name; and Animate-2, which has the shapes of another model."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from only_headers import header, headers
from safetensors.torch import save_file
from tests_support import on_meta

from demo.tiny_release import DIT, DITS
from wan_models.checkpoints.detect import identify
from wan_models.checkpoints.errors import CheckpointError
from wan_models.checkpoints.keys import to_foreign
from wan_models.checkpoints.loading import expect
from wan_models.checkpoints.reader import open_model
from wan_models.config import DISTILLED_BIAS, DiTConfig, DrivenConfig
from wan_models.dit.animate import WanAnimateModel
from wan_models.dit.base import WanModel
from wan_models.tools import quantize
from wan_models.tools.small_models import write_dit

I2V_2_1 = header(on_meta(WanModel, DiTConfig(family="i2v", in_dim=36, image_dim=1280)))
IS_ANIMATE_2 = [
    ("Wan2.2-Animate-2-14B", {}), ("wan_animate_2_bf16.safetensors", {}),
    ("wan_animate_2_distill_bf16.safetensors", {}),
    ("Wan2.2_animate2_fp8.safetensors", {}), ("WanAnimate2-Q4_K.gguf", {}), ("wan animate v2.safetensors", {}),
    ("wan/Wan2.2-Animate-2-14B/transformer/x.safetensors", {}), ("Wan2.2-Animate-2-14B-Diffusers/transformer", {}),
    ("model.safetensors", {"config": '{"transformer": {"model_type": "animate2"}}'}),
    ("i2v.safetensors", {"config": '{"model_type": "animate2"}'}),
    ("model.safetensors", {"modelspec.title": "Wan2.2-Animate-2-14B"}),
]  # fmt: skip
IS_NOT = [
    ("Wan2.1-I2V-14B-720P", {}), ("wan2.1_i2v_480p_14B_fp16.safetensors", {}), ("wan2.2-animate-14b.safetensors", {}),
    ("Wan2_2-Animate-14B_v2.safetensors", {}), ("animate-2.5.safetensors", {}), ("animate_20.safetensors", {}),
    ("Wan2.2-Animate-2-14B/wan2.1_i2v_480p.safetensors", {}), ("x.safetensors", {"title": "Wan2.1 I2V"}),
    ("animate_2.safetensors", {"config": '{"transformer": {"model_type": "t2v"}}'}),
]  # fmt: skip


def config_of(name, told, kind="auto"):
    return expect(headers(I2V_2_1, Path("models/diffusion_models", name), told), "dit", kind).config


@pytest.mark.parametrize(("name", "told"), IS_ANIMATE_2)
def test_animate_2_is_known_by_name(name, told):
    config = config_of(name, told)
    assert (config.family, config.num_layers, config.image_dim) == ("animate2", 40, 1280)
    assert config.driven.bias == (DISTILLED_BIAS if "distill" in name else 0)


@pytest.mark.parametrize(("name", "told"), IS_NOT)
def test_its_likes_are_not(name, told):
    config = config_of(name, told)
    assert config.family == "i2v" and config.driven is None


@pytest.mark.parametrize("scheme", ["Animate-2 release", "diffusers Animate-2"])
@pytest.mark.parametrize(
    "file", ["x.safetensors", "wan_x_distillation.safetensors", "Wan-Distilled/transformer"]
)
def test_animate_2_is_known_by_the_names_in_its_releases(scheme, file):
    foreign = to_foreign(scheme, I2V_2_1)
    shapes = {foreign[name]: shape for name, shape in I2V_2_1.items()}
    checkpoint = headers(shapes, Path("models/diffusion_models", file)).for_model()
    assert checkpoint.shapes == I2V_2_1
    driven = expect(checkpoint, "dit").config.driven
    assert driven.bias == (DISTILLED_BIAS if "istil" in file else 0)


def test_a_kind_that_is_named_counts():
    for name, told in [*IS_ANIMATE_2, *IS_NOT]:
        for kind, family, bias in (
            ("animate2", "animate2", 0), ("animate2 distilled", "animate2", DISTILLED_BIAS), ("i2v", "i2v", None),
        ):  # fmt: skip
            config = config_of(name, told, kind)
            assert config.family == family and (config.driven.bias if config.driven else None) == bias
    for shapes in (header(on_meta(WanModel, DITS["I2V-A14B"])), header(on_meta(WanModel, DITS["T2V-A14B"]))):
        with pytest.raises(
            CheckpointError, match=r"x.safetensors cannot be of the kind 'animate2'.*CLIP context"
        ):
            expect(headers(shapes), "dit", "animate2")
    with pytest.raises(ValueError, match="unknown kind 'animate'; choose one of auto, animate2"):
        expect(headers(I2V_2_1), "dit", "animate")


@pytest.mark.parametrize("name", [name for name, _ in IS_ANIMATE_2[:4]])
def test_models_of_other_shape_are_never_animate_2(name):
    for release in ("T2V-A14B", "I2V-A14B", "Animate-14B"):
        network = WanAnimateModel if release == "Animate-14B" else WanModel
        shapes = header(on_meta(network, DITS[release]))
        assert expect(headers(shapes, Path(name)), "dit").config == DITS[release]


def test_config_pipeline_and_metadata_of_a_file_tell_it_too(tmp_path):
    folder = tmp_path / "release" / "transformer"
    folder.mkdir(parents=True)
    for told in ({"_class_name": "WanAnimate2Transformer3DModel"}, {"model_type": "animate2", "dim": 1}):
        (folder / "config.json").write_text(json.dumps(told))
        assert identify(headers(I2V_2_1, folder)).config.family == "animate2"
    (folder / "config.json").unlink()
    assert identify(headers(I2V_2_1, folder)).config.family == "i2v"
    (folder.parent / "model_index.json").write_text(json.dumps({"_class_name": "WanAnimate2Pipeline"}))
    assert identify(headers(I2V_2_1, folder)).config.family == "animate2"
    state = WanModel(replace(DITS["I2V-A14B"], image_dim=16)).state_dict()
    quantised = {"blocks.0.ffn.0.comfy_quant": torch.tensor(list(b'{"format": "int8"}'), dtype=torch.uint8)}
    save_file(
        state | quantised,
        tmp_path / "x.safetensors",
        {"config": '{"transformer": {"model_type": "animate2"}}'},
    )
    checkpoint = open_model(tmp_path / "x.safetensors")
    assert checkpoint.metadata["config"].startswith('{"transformer"')
    assert identify(checkpoint).config.family == "animate2"  # though its format cannot be read
    with pytest.raises(CheckpointError, match="format is 'int8'"):
        expect(open_model(tmp_path / "x.safetensors"), "dit")


@pytest.mark.parametrize(
    ("more", "channels", "says"),
    [
        ({"vace_patch_embedding.weight": (256, 96, 1, 2, 2)}, (16, 16), "Wan VACE"),
        ({"control_adapter.conv.weight": (256, 1536, 2, 2)}, (32, 16), "Fun-Camera"),
        ({"control_adapter.conv.weight": (256, 1536, 2, 2)}, (36, 16), "Fun-Camera"),
        ({"ref_conv.weight": (256, 16, 2, 2)}, (52, 16), "Fun-Control"),
        ({}, (48, 16), "Fun-Control"),
        ({}, (52, 16), "Fun-A14B-Control"),
        ({}, (100, 48), "Fun-5B-InP"),
        ({}, (64, 16), "64 channels in and 16 out"),
        ({"audio_proj.audio_proj_glob_1.layer.bias": (1,)}, (36, 16), "HuMo"),
        ({"audio_proj.proj1.weight": (1,)}, (36, 16), "InfiniteTalk"),
        ({"patch_embedding_pose.weight": (1,)}, (20, 16), "SCAIL"),
        ({"patch_embedding_global.weight": (1,)}, (36, 16), "WanDancer"),
        ({"blocks.0.cam_encoder.weight": (1,)}, (16, 16), "ReCamMaster"),
    ],
)
def test_other_wan_models_are_named(more, channels, says):
    shapes = header(on_meta(WanModel, replace(DIT, in_dim=channels[0], out_dim=channels[1]))) | more
    with pytest.raises(CheckpointError, match=rf"x.safetensors is .*{says}.*none of the models"):
        expect(headers(shapes), "dit")


def test_parts_and_loras_are_named():
    for name, says in (
        ("controlnet_patch_embedding.weight", "Uni3C"),
        ("audio_proj.proj1.weight", "audio blocks of MultiTalk"),
        ("vace_patch_embedding.weight", "VACE blocks alone"),
        ("diffusion_model.blocks.0.self_attn.q.lora_A.weight", "a LoRA file"),
    ):
        with pytest.raises(CheckpointError, match=says):
            expect(headers({name: (4, 4)}), "dit")


@pytest.mark.parametrize("bias", [0.0, DISTILLED_BIAS])
def test_a_quantised_copy_says_what_it_is(tmp_path, monkeypatch, bias):
    config = replace(DITS["Animate-2-14B"], driven=DrivenConfig(bias))
    write_dit(tmp_path / "a", config, 1)
    monkeypatch.setattr(
        "sys.argv", ["quantize", "float8_e4m3fn", f"{tmp_path}/a", f"{tmp_path}/x.safetensors"]
    )
    quantize.main()
    copy = identify(open_model(tmp_path / "x.safetensors"))
    assert copy.packed and (copy.config.family, copy.config.driven) == ("animate2", DrivenConfig(bias))


@pytest.mark.parametrize("damage", ["unreadable", "missing"])
def test_what_cannot_be_quantised_is_said(tmp_path, monkeypatch, capsys, damage):
    file, copy = tmp_path / "x.safetensors", tmp_path / "copy.safetensors"
    if damage == "unreadable":
        note = torch.tensor(list(b'{"format": "int8"}'), dtype=torch.uint8)
        save_file(WanModel(DIT).state_dict() | {"blocks.0.ffn.0.comfy_quant": note}, file)
    monkeypatch.setattr("sys.argv", ["quantize", "float8_e4m3fn", str(file), str(copy)])
    with pytest.raises(SystemExit):
        quantize.main()
    assert str(file) in capsys.readouterr().err and not copy.exists()
