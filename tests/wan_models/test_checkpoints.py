"""Reading, recognising and loading checkpoints, whole and broken."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from formats import write_gguf, write_scaled_fp8
from safetensors.torch import load_file, save_file

from demo.tiny_release import DIT, VAE, write_release
from wan_models.checkpoints.detect import identify
from wan_models.checkpoints.loading import expect, load_into
from wan_models.checkpoints.reader import Checkpoint, CheckpointError, open_checkpoint, open_model
from wan_models.config import DiTConfig
from wan_models.dit.base import WanModel
from wan_models.vae.wan21 import WanVAE21


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return write_release(tmp_path_factory.mktemp("wan") / "T2V-A14B")


@pytest.fixture
def copy(release, tmp_path):
    """A copy of a part of the release that a test may break."""
    import shutil

    def make(name):
        source = release / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
        return tmp_path / name

    return make


def test_release_is_recognised(release):
    kinds = {}
    for part in ("high_noise_model", "low_noise_model", "models_t5_umt5-xxl-enc-bf16.pth", "Wan2.1_VAE.pth"):
        info = identify(open_checkpoint(release / part))
        kinds[part] = (info.kind, info.format, info.dtype)
        if info.kind == "dit":
            assert info.config == DIT
    assert kinds == {
        "high_noise_model": ("dit", "sharded safetensors", torch.float32),
        "low_noise_model": ("dit", "safetensors", torch.float32),
        "models_t5_umt5-xxl-enc-bf16.pth": ("t5", "pth", torch.bfloat16),
        "Wan2.1_VAE.pth": ("vae", "pth", torch.float32),
    }
    assert identify(open_checkpoint(release / "Wan2.1_VAE.pth")).config == VAE


def test_shards_single_file_and_prefixed_file_give_the_same_model(release, tmp_path):
    sharded = open_checkpoint(release / "high_noise_model")
    state = dict(sharded)
    save_file(
        {"model.diffusion_model." + k: v for k, v in state.items()} | {"vae.x": torch.zeros(1)},
        tmp_path / "a.safetensors",
    )
    torch.save({"state_dict": state}, tmp_path / "b.pth")
    for path in (tmp_path / "a.safetensors", tmp_path / "b.pth"):
        checkpoint = open_model(path)
        info = expect(checkpoint, "dit")
        assert info.config == DIT  # two heads of 128, without a config.json
        model = WanModel(info.config, device="meta")
        load_into(model, checkpoint)
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_official_model_reads_the_release(official, release):
    """The layout is the official one: the official class loads it."""
    from wan.modules.model import WanModel as OfficialModel

    model = OfficialModel.from_pretrained(release, subfolder="high_noise_model")
    ours = open_checkpoint(release / "high_noise_model")
    assert all(torch.equal(v, ours[k]) for k, v in model.state_dict().items())


def broken_cases():
    def truncated(copy):
        file = copy("low_noise_model") / "diffusion_pytorch_model.safetensors"
        file.write_bytes(file.read_bytes()[:-1000])
        return file.parent

    def empty(copy):
        file = copy("low_noise_model") / "diffusion_pytorch_model.safetensors"
        file.write_bytes(b"")
        return file

    def garbage(copy):
        file = copy("low_noise_model") / "diffusion_pytorch_model.safetensors"
        file.write_bytes((20).to_bytes(8, "little") + b"not json at all" * 9)
        return file

    def missing_shard(copy):
        folder = copy("high_noise_model")
        next(folder.glob("*-00001-of-*.safetensors")).unlink()
        return folder

    def no_index(copy):
        folder = copy("high_noise_model")
        next(folder.glob("*.index.json")).unlink()
        return folder

    def edited_index(change):
        def make(copy):
            folder = copy("high_noise_model")
            index = next(folder.glob("*.index.json"))
            data = json.loads(index.read_text())
            change(data["weight_map"])
            index.write_text(json.dumps(data))
            return folder

        return make

    def cut_pth(copy):
        file = copy("Wan2.1_VAE.pth")
        file.write_bytes(file.read_bytes()[:-2000])
        return file

    def empty_pth(copy):
        file = copy("Wan2.1_VAE.pth")
        file.write_bytes(b"")
        return file

    def no_tensors(copy):
        file = copy("Wan2.1_VAE.pth")
        torch.save({"a": 1}, file)
        return file

    def no_weights(copy):
        folder = copy("low_noise_model")
        next(folder.glob("*.safetensors")).unlink()
        return folder

    return [
        pytest.param(
            truncated, "diffusion_pytorch_model.safetensors is cut short, 1,000 bytes", id="truncated"
        ),
        pytest.param(empty, "is empty", id="empty"),
        pytest.param(garbage, "broken header", id="garbage"),
        pytest.param(missing_shard, "00001-of-00002.safetensors, which is missing", id="missing shard"),
        pytest.param(no_index, "no index file", id="no index"),
        pytest.param(
            edited_index(lambda m: m.update(x="gone.safetensors")),
            "gone.safetensors, which is missing",
            id="index",
        ),
        pytest.param(
            edited_index(lambda m: m.update(x="../other.safetensors")),
            "not a file of its own folder",
            id="escape",
        ),
        pytest.param(
            edited_index(lambda m: m.update(new=next(iter(m.values())))), "which does not have it", id="lies"
        ),
        pytest.param(cut_pth, "Wan2.1_VAE.pth is damaged or cut short", id="cut pth"),
        pytest.param(empty_pth, "Wan2.1_VAE.pth is empty", id="empty pth"),
        pytest.param(no_tensors, "no named tensors", id="no tensors"),
        pytest.param(no_weights, "no .safetensors file", id="no weights"),
        pytest.param(lambda copy: Path("absent.safetensors"), "does not exist", id="absent"),
    ]


@pytest.mark.parametrize(("make", "message"), broken_cases())
def test_broken_files_say_what_is_wrong(copy, make, message):
    with pytest.raises(CheckpointError, match=message.replace("(", r"\(")):
        open_checkpoint(make(copy))


def test_code_in_a_pth_never_runs(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"weight": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(CheckpointError, match="holds more than weights, perhaps code, and was not opened"):
        open_checkpoint(tmp_path / "bomb.pth")
    assert not (tmp_path / "ran").exists()


def test_wrong_kind_names_the_right_loader(release):
    with pytest.raises(
        CheckpointError, match=r"Wan2.1_VAE.pth is a Wan 2.1 VAE .*diffusion model was expected.*WanVAELoader"
    ):
        expect(open_checkpoint(release / "Wan2.1_VAE.pth"), "dit")
    with pytest.raises(CheckpointError, match=r"UMT5 text encoder.*a VAE was expected.*WanT5Loader"):
        expect(open_checkpoint(release / "models_t5_umt5-xxl-enc-bf16.pth"), "vae")


@pytest.mark.parametrize("problem", ["missing", "extra", "shape"])
def test_a_misfit_names_file_and_tensors(release, tmp_path, problem):
    state = load_file(release / "low_noise_model" / "diffusion_pytorch_model.safetensors")
    if problem == "missing":
        del state["blocks.1.ffn.2.bias"]
    elif problem == "extra":
        state["blocks.0.surprise"] = torch.zeros(3)
    else:
        state["blocks.1.ffn.2.bias"] = torch.zeros(3)
    save_file(state, tmp_path / "odd.safetensors")
    checkpoint = open_checkpoint(tmp_path / "odd.safetensors")
    with pytest.raises(
        CheckpointError, match=r"odd.safetensors looks like a text-to-video .*(ffn.2.bias|surprise)"
    ):
        load_into(WanModel(expect(checkpoint, "dit").config, device="meta"), checkpoint)


def test_vae_of_another_width_loads(tmp_path):
    from wan_models.config import VAEConfig

    torch.save(WanVAE21(VAEConfig(base_dim=8)).state_dict(), tmp_path / "v.pth")
    assert expect(open_checkpoint(tmp_path / "v.pth"), "vae").config == VAEConfig(base_dim=8)


def test_a_stray_config_beside_a_file_is_not_believed(release, tmp_path):
    state = dict(open_checkpoint(release / "low_noise_model"))
    save_file(state, tmp_path / "single.safetensors")
    for stray in ({"num_heads": 40, "dim": 5120}, {"num_attention_heads": 24, "attention_head_dim": 128}):
        (tmp_path / "config.json").write_text(json.dumps(stray))
        assert identify(open_checkpoint(tmp_path / "single.safetensors")).config == DIT


def test_image_to_video_is_told_by_its_channels():
    class Headers:
        shapes = {
            name: tuple(tensor.shape)
            for name, tensor in WanModel(DiTConfig(family="i2v", in_dim=36), device="meta")
            .state_dict()
            .items()
        }

        def header(self, name):
            return self.shapes[name], torch.bfloat16

    info = identify(Checkpoint.of_file(Path("x.safetensors"), Headers(), Headers.shapes, "safetensors"))
    assert info.config == DiTConfig(family="i2v", in_dim=36)
    assert "image-to-video" in info.description and "14.3 billion" in info.description


_MEASURE = """
import re, sys, torch
from wan_models.checkpoints.reader import open_model
from wan_models.checkpoints.loading import load_into
class Layer(torch.nn.Linear):
    packing = None
module = torch.nn.Module()
for i in range(5):
    module.add_module(f"w{i}", Layer(4096, 2560, bias=False, device="meta"))
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) // 1024
checkpoint = open_model(sys.argv[1])
before = peak()
load_into(module, checkpoint, keep_packed=True)
loaded = peak()
for layer in module.children():
    layer.weight.view(torch.int64).sum()  # no conversion, so no copy
print(loaded - before, peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize("kind", ["fp32", "bf16", "scaled fp8", "Q8_0", "Q4_K"])
def test_loading_makes_no_second_copy(tmp_path, kind):
    """A large file adds no more than itself to the process, and nothing before its tensors are read."""
    state = {f"w{i}.weight": torch.rand(2560, 4096) for i in range(5)}
    path = tmp_path / "big.safetensors"
    if kind == "scaled fp8":
        write_scaled_fp8(path, state)
    elif kind in ("fp32", "bf16"):
        save_file(
            {
                k: v.to(getattr(torch, {"fp32": "float32", "bf16": "bfloat16"}[kind]))
                for k, v in state.items()
            },
            path,
        )
    else:
        path = tmp_path / "big.gguf"
        write_gguf(path, state, kind)
    out = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    loaded, read = map(int, out.stdout.split())
    size = path.stat().st_size / 2**20
    assert loaded < 10 and size - 20 < read < size + 20, (loaded, read, size)
