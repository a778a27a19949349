"""Weights stored quantised: what is left of them, some rows alone, and files that do not hold what their notes say."""

import json

import pytest
import torch
from safetensors.torch import save_file

from demo.tiny_release import DITS
from wan_models.checkpoints.errors import CheckpointError
from wan_models.checkpoints.loading import expect
from wan_models.checkpoints.packed.block_scales import tiled, untiled
from wan_models.checkpoints.packed.notes import NOTE
from wan_models.checkpoints.packed.quantized import packings
from wan_models.checkpoints.packed.rotation import rotate
from wan_models.checkpoints.reader import open_model
from wan_models.dit.base import WanModel
from wan_models.tools.quantize import PACKERS, quantized

# greatest relative error of weights that are distributed normally, of the formats that others define
ERRORS = {
    "float8_e4m3fn": 0.03, "float8_e5m2": 0.06, "mxfp8": 0.03, "nvfp4": 0.1, "int8_tensorwise": 0.01,
    "convrot_w4a4": 0.15, "asym_w4a8_int8": 0.08,
}  # fmt: skip
HALF = ("nvfp4", "convrot_w4a4", "asym_w4a8_int8")  # of a byte each
LARGEST_ERROR = 0.2
"""Of a format with another in the place of that."""
# what lies in files of formats that a dtype alone does not tell; those of others may do without their note
LEAVES = [
    (kind, leaf)
    for kind, pack in PACKERS.items()
    if not kind.startswith("float8")
    for leaf in pack(torch.randn(32, 256), kind)
    if leaf != NOTE or kind in ERRORS
]


def packing_of(tensors):
    """Of the layer "a" of a file with these tensors."""
    file = {f"a.{leaf}": tensor for leaf, tensor in tensors.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in file.items()}
    return packings(shapes, {name: tensor.dtype for name, tensor in file.items()}, file.__getitem__)[
        "a.weight"
    ]


@pytest.mark.parametrize("size", [(128, 256), (160, 512), (352, 1280)])
@pytest.mark.parametrize("kind", PACKERS)
def test_values_and_rows(kind, size):
    weight = torch.randn(size) * torch.rand(size[0], 1)
    weight[:, 5] *= 20  # an outlier
    weight[3] = 0
    tensors = PACKERS[kind](weight, kind)
    packing = packing_of(tensors)
    found = packing.unpack(tensors["weight"], torch.float32)
    assert packing.shape == size
    stored = sum(tensor.nbytes for leaf, tensor in tensors.items() if leaf != NOTE)
    assert packing.nbytes == pytest.approx(stored, rel=0.1)
    if kind in ERRORS:
        assert packing.nbytes == pytest.approx(weight.numel() * (0.55 if kind in HALF else 1), rel=0.1)
    per_row = (found - weight).norm(dim=1) / weight.norm(dim=1).clamp_min(1e-9)
    assert (found - weight).norm() / weight.norm() < 2 * ERRORS.get(kind, LARGEST_ERROR)
    assert per_row[3] == 0
    rows = torch.randint(size[0], (7,))
    assert torch.equal(packing.unpack(tensors["weight"][rows], torch.float32, rows), found[rows])
    assert torch.equal(packing.unpack(tensors["weight"], torch.bfloat16), found.bfloat16())


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_are_those_of_the_format(kind):
    weight = torch.randn(256, 1024)
    tensors = PACKERS[kind](weight, kind)
    found = packing_of(tensors).unpack(tensors["weight"], torch.float32)
    assert ERRORS[kind] / 3 < (found - weight).norm() / weight.norm() < ERRORS[kind]


def test_codes_of_four_bits():
    """Each value that there is, ties to even codes, the first of two in the upper half of a byte."""
    exact = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.5, -6.0, -3.0]
    row = torch.tensor([[*exact, 0.25, 0.75, 2.5, 5.0, -1.25]]).repeat(16, 1)
    tensors = PACKERS["nvfp4"](row * 448, "nvfp4")  # so that the scales are 1 and 448
    found = packing_of(tensors).unpack(tensors["weight"], torch.float32)[0] / 448
    assert found.tolist() == [*exact, 0.0, 1.0, 2.0, 4.0, -1.0]
    assert tensors["weight"][0, :2].tolist() == [0x01, 0x23]


@pytest.mark.parametrize("shape", [(1, 1), (128, 4), (130, 9), (300, 2)])
def test_scales_lie_in_tiles(shape):
    scales = torch.randint(1, 256, shape, dtype=torch.uint8)
    flat = tiled(scales).flatten()
    columns = -(-shape[1] // 4)
    for row, block in ((0, 0), (shape[0] - 1, shape[1] - 1), (shape[0] // 2, shape[1] // 2)):
        tile = row // 128 * columns + block // 4
        assert flat[tile * 512 + row % 32 * 16 + row % 128 // 32 * 4 + block % 4] == scales[row, block]
    assert torch.equal(untiled(tiled(scales), *shape), scales)


@pytest.mark.parametrize("size", [4, 16, 256])
def test_rotation_is_its_own_inverse_and_keeps_lengths(size):
    weight = torch.randn(5, 512)
    turned = rotate(weight, size)
    assert torch.allclose(rotate(turned, size), weight, atol=1e-5)
    assert torch.allclose(turned.norm(dim=1), weight.norm(dim=1))
    assert (turned - weight).norm() > weight.norm() / 2


@pytest.mark.parametrize(("kind", "leaf"), [(k, leaf) for k, leaf in LEAVES if leaf != "weight_codebook"])
def test_files_that_lack_a_part(kind, leaf):
    tensors = dict(PACKERS[kind](torch.randn(32, 256), kind))
    del tensors[leaf]
    with pytest.raises(ValueError, match=r"cannot be read as|is stored as|weight's format is"):
        packing_of(tensors)


@pytest.mark.parametrize(("kind", "leaf"), [(k, leaf) for k, leaf in LEAVES if leaf != "weight_scale_2"])
def test_files_with_a_part_of_another_size(kind, leaf):
    tensors = dict(PACKERS[kind](torch.randn(32, 256), kind))
    tensors[leaf] = tensors[leaf].flatten()[:-1]
    with pytest.raises(ValueError, match=r"cannot be read as|is stored as|weight's format is"):
        packing_of(tensors)


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"format": 3}', b'{"format": "nf4"}', b"\xff"])
def test_notes_that_say_nothing_known(note):
    tensors = dict(PACKERS["mxfp8"](torch.randn(32, 256), "mxfp8"))
    tensors["comfy_quant"] = torch.tensor(list(note), dtype=torch.uint8)
    with pytest.raises(ValueError, match="says that the weight's format is"):
        packing_of(tensors)


@pytest.mark.parametrize("size", [0, -4, 3, 8, 512, 1.5, "256", None, True, [4]])
@pytest.mark.parametrize("kind", ["int8_tensorwise", "convrot_w4a4", "asym_w4a8_int8"])
def test_groups_that_no_rotation_has(kind, size):
    tensors = dict(PACKERS[kind](torch.randn(32, 256), kind))
    note = json.dumps({"format": kind, "convrot": True, "convrot_groupsize": size}).encode()
    tensors["comfy_quant"] = torch.tensor(list(note), dtype=torch.uint8)
    with pytest.raises(ValueError, match="are no rotation of 256"):
        packing_of(tensors)


@pytest.mark.parametrize("where", ["beside", "metadata", "nowhere"])
@pytest.mark.parametrize("kind", PACKERS)
def test_models_and_where_notes_lie(tmp_path, kind, where):
    config = DITS["I2V-A14B"]
    state = WanModel(config).state_dict()
    for name, weight in state.items():
        if weight.dim() == 2:
            state[name] = torch.randn(256, 256) if name.startswith("blocks.") else weight
    names = [name for name in state if name.startswith("blocks.") and state[name].dim() == 2]
    file = {f"model.diffusion_model.{name}": tensor for name, tensor in quantized(state, kind).items()}
    notes = {name: file[name] for name in file if name.endswith("comfy_quant")}
    metadata = None
    if where != "beside":
        layers = {name.rpartition(".")[0]: json.loads(file.pop(name).numpy().tobytes()) for name in notes}
        if where == "metadata":
            layers["text_encoders.a"] = {"format": kind}  # of another model that lay beside this one
            metadata = {"_quantization_metadata": json.dumps({"layers": layers})}
    save_file(file, tmp_path / "m.safetensors", metadata)
    model = open_model(tmp_path / "m.safetensors")
    if where == "nowhere" and notes and not kind.startswith("float8"):
        with pytest.raises(CheckpointError, match="is stored as"):
            expect(model, "dit")
        return
    assert set(model) == set(state)
    assert {name for name in model if model.packing(name)} == set(names)
    errors = [(model.unpacked(name) - state[name]).norm() / state[name].norm() for name in names]
    assert max(errors) < ERRORS.get(kind, LARGEST_ERROR)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"layers": 3}', '{"layers": {"blocks.0.ffn.0": 3}}', '{"other": 1}']
)
def test_metadata_that_cannot_be_read(tmp_path, text):
    save_file(
        WanModel(DITS["I2V-A14B"]).state_dict(), tmp_path / "m.safetensors", {"_quantization_metadata": text}
    )
    with pytest.raises(CheckpointError, match=r"m\.safetensors"):
        expect(open_model(tmp_path / "m.safetensors"), "dit")


def noted(**note):
    return torch.tensor(list(json.dumps(note).encode()), dtype=torch.uint8)


def test_factors_of_columns_that_were_taken_out():
    tensors = dict(PACKERS["nvfp4"](torch.randn(128, 64), "nvfp4"))
    plain = packing_of(tensors).unpack(tensors["weight"], torch.float32)
    factors = torch.rand(64) + 0.5
    tensors["pre_quant_scale"] = factors.bfloat16()
    found = packing_of(tensors).unpack(tensors["weight"], torch.float32)
    assert torch.equal(found, plain * factors.bfloat16())


def test_whole_numbers_with_one_scale_and_with_settings_of_their_own():
    raw = torch.randint(-128, 128, (32, 64), dtype=torch.int8)
    tensors = {
        "weight": raw,
        "weight_scale": torch.tensor(0.25),
        "comfy_quant": noted(format="int8_tensorwise"),
    }
    assert torch.equal(packing_of(tensors).unpack(raw, torch.float32), raw * 0.25)
    rows = torch.tensor([4, 9])
    assert torch.equal(packing_of(tensors).unpack(raw[rows], torch.float32, rows), raw[rows] * 0.25)
    settings = {"convrot": True, "convrot_groupsize": 16}
    for note in (settings, {"params": settings}):
        tensors["comfy_quant"] = noted(format="int8_tensorwise", **note)
        found = packing_of(tensors).unpack(raw, torch.float32)
        assert torch.equal(found, rotate(raw * 0.25, 16))


def test_places_without_a_table_are_whole_numbers():
    codes = torch.randint(0, 16, (32, 256))
    tensors = {
        "weight": (codes[:, ::2] | codes[:, 1::2] << 4).to(torch.uint8).view(torch.int8),
        "weight_s_rel": torch.full((32, 8), 2.0).to(torch.float8_e4m3fn).view(torch.uint8),
        "weight_s_channel": torch.rand(32),
        "comfy_quant": noted(format="asym_w4a8_int8", group_size=32, convrot_groupsize=64),
    }
    found = packing_of(tensors).unpack(tensors["weight"], torch.float32)
    expected = rotate((codes - 8.0) * 2 * tensors["weight_s_channel"][:, None], 64)
    assert torch.allclose(found, expected, atol=1e-5)


def test_scales_that_are_stored_as_bytes():
    for kind in ("nvfp4", "mxfp8"):
        tensors = dict(PACKERS[kind](torch.randn(128, 64), kind))
        found = packing_of(tensors | {"weight_scale": tensors["weight_scale"].view(torch.uint8)})
        expected = packing_of(tensors).unpack(tensors["weight"], torch.float32)
        assert torch.equal(found.unpack(tensors["weight"], torch.float32), expected)
