"""PyTorch files of every make, tensor by tensor as torch itself reads them."""

import io
import zipfile
from collections import OrderedDict

import pytest
import torch
from torch import nn

from wan_models.checkpoints.files.torch_file import TorchFile

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.int64,
    torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool,
    torch.complex64,
]  # fmt: skip
NEW = (torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16, torch.uint32, torch.uint64)
FORMATS = {
    "zip": {},
    "protocol 3": {"pickle_protocol": 3},
    "protocol 4": {"pickle_protocol": 4},
    "protocol 5": {"pickle_protocol": 5},
    "older": {"_use_new_zipfile_serialization": False},
    "older, protocol 4": {"_use_new_zipfile_serialization": False, "pickle_protocol": 4},
}


def random(dtype, *shape):
    return (
        torch.randint(0, 2, shape).to(dtype) if not dtype.is_floating_point else torch.rand(shape).to(dtype)
    )


def views():
    whole = torch.rand(6, 8)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    with_attribute = torch.rand(3)
    with_attribute.note = "of a trainer"
    return {
        "transposed": whole.T,
        "a column": whole[:, 3],
        "a part": whole[2:5, 1:7:2],
        "all of it": whole,
        "the same once more": whole,
        "one value": torch.tensor(7.5),
        "nothing": torch.zeros(0, 4),
        "a parameter": nn.Parameter(torch.rand(2, 2)),
        "a frozen one": nn.Parameter(torch.rand(2, 2), requires_grad=False),
        "a buffer": nn.Buffer(torch.rand(2)),
        "with an attribute": with_attribute,
        "half of a storage": torch.rand(1000).half()[500:],
        "一 é": torch.rand(2),
        **module.state_dict(),
    }


def equal(path, expected):
    file = TorchFile(path)
    assert file.names == list(expected)
    for name, tensor in expected.items():
        found = file.read(name)
        assert file.header(name) == (tuple(tensor.shape), tensor.dtype) == (tuple(found.shape), found.dtype)
        assert found.stride() == tensor.stride()
        assert torch.equal(found.contiguous().view(-1).view(torch.uint8), raw(tensor)), name


def raw(tensor):
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


@pytest.mark.parametrize("made", FORMATS)
def test_every_dtype(tmp_path, made):
    older = "older" in made  # than some dtypes
    state = {str(dtype): random(dtype, 5, 7) for dtype in DTYPES if not (older and dtype in NEW)}
    torch.save(state, tmp_path / "m.pth", **FORMATS[made])
    equal(tmp_path / "m.pth", torch.load(tmp_path / "m.pth", weights_only=False))


@pytest.mark.parametrize("made", FORMATS)
def test_views_parameters_and_what_shares_a_storage(tmp_path, made):
    torch.save(OrderedDict(views()), tmp_path / "m.pth", **FORMATS[made])
    equal(tmp_path / "m.pth", torch.load(tmp_path / "m.pth", weights_only=False))


@pytest.mark.parametrize("made", FORMATS)
def test_what_else_trainers_save(tmp_path, made):
    """Beside the weights: optimizers, numbers, texts, sets, bytes, devices, and things that belong to one another."""
    network = nn.Linear(3, 3)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.rand(2, 3)).sum().backward()
    optimizer.step()
    beside = {
        "optimizer": optimizer.state_dict(), "epoch": 3, "loss": 0.5, "done": True, "name": "é", "none": None,
        "set": {1, 2}, "frozen": frozenset([1]), "bytes": b"\0\xff", "array": bytearray(3), "complex": 1j, "big": 2**70,
        "device": torch.device("cpu"), "size": torch.Size([1, 2]), "dtype": torch.float16, "pair": (1, [2, {"a": 3}]),
        "generator": torch.get_rng_state(),
    }  # fmt: skip
    torch.save({"model": network.state_dict()} | beside, tmp_path / "m.pth", **FORMATS[made])
    equal(tmp_path / "m.pth", network.state_dict())


def test_an_archive_that_another_program_wrote(tmp_path):
    """With folders of their own, in another order, and values that lie unaligned."""
    made = io.BytesIO()
    state = {"w": torch.rand(9), "v": torch.rand(3).half()}
    torch.save(state, made)
    with zipfile.ZipFile(made) as old, zipfile.ZipFile(tmp_path / "m.pth", "w") as new:
        new.writestr("archive/", b"")
        for record in reversed(old.infolist()):
            new.writestr(record.filename, old.read(record))
    equal(tmp_path / "m.pth", state)
