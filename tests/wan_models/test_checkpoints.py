"""Reading, recognising and loading checkpoints, whole and broken."""

import json
import math
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from formats import write_gguf, write_scaled_fp8
from only_headers import header, headers
from safetensors.torch import load_file, save_file
from tests_support import on_meta

from demo.tiny_release import DIT, DITS, VAE
from wan_models.checkpoints.detect import identify
from wan_models.checkpoints.errors import CheckpointError, WrongModelError
from wan_models.checkpoints.files.formats import FORMATS, SUFFIXES, open_file
from wan_models.checkpoints.files.torch_file import TorchFile
from wan_models.checkpoints.loading import expect, load_into
from wan_models.checkpoints.packed.packing import Scheme
from wan_models.checkpoints.packed.quantized import SCHEMES
from wan_models.checkpoints.reader import open_checkpoint, open_model
from wan_models.config import DiTConfig, SpeechConfig
from wan_models.dit.base import WanModel
from wan_models.dit.speech import WanSpeechModel
from wan_models.vae.wan21 import WanVAE21


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
        model = on_meta(WanModel, info.config)
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
        next(folder.glob("*-00002-of-*.safetensors")).unlink()
        return folder

    def two_models(copy):
        file = copy("low_noise_model") / "diffusion_pytorch_model.safetensors"
        (file.parent / "other.safetensors").write_bytes(file.read_bytes())
        return file.parent

    def written(content, name="model.safetensors"):
        def make(copy):
            file = copy("low_noise_model") / name
            file.write_bytes(content)
            return file

        return make

    def pickled(data):
        def make(copy):
            file = copy("Wan2.1_VAE.pth")
            torch.save(data, file)
            return file

        return make

    def cut_old_pth(copy):
        file = copy("Wan2.1_VAE.pth")
        torch.save(torch.load(file), file, _use_new_zipfile_serialization=False)
        file.write_bytes(file.read_bytes()[:-2000])
        return file

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
        pytest.param(
            no_index, "holds 1 of the 2 files.*missing: diffusion_pytorch_model-00002-of-00002", id="no index"
        ),
        pytest.param(two_models, "no index file", id="two models"),
        pytest.param(
            written(b"version https://git-lfs.github.com/spec/v1\noid"), "a Git LFS pointer", id="lfs"
        ),
        pytest.param(written(b"<!DOCTYPE html>\n<html>" * 9), "a web page that was saved", id="html"),
        pytest.param(written(b"\n<html>" * 9, "m.GGUF"), "a web page that was saved", id="html as GGUF"),
        pytest.param(written(b'{"error":"Invalid credentials"}' * 9), "text, not a model", id="answer"),
        pytest.param(written(b"Entry not found", "m.pth"), "text, not a model", id="not found"),
        pytest.param(written(bytes(4096), "m.pth"), "only zeros at its beginning", id="zeros"),
        pytest.param(written(b"\0\5\x16\7\0\2" * 9), "what macOS keeps beside a file", id="macOS"),
        pytest.param(written(b"", "m.Pt"), "is empty", id="empty pt"),
        pytest.param(cut_old_pth, "Wan2.1_VAE.pth is damaged or cut short", id="cut old pth"),
        pytest.param(
            pickled({n: {"w": torch.ones(1)} for n in ("first", "second")}),
            "several groups of weights (first, second",
            id="groups",
        ),
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


def test_a_file_begins_as_one_format_only(release, tmp_path):
    write_gguf(tmp_path / "m.gguf", {f"w{i}": torch.zeros(32) for i in range(ord("{"))}, "F32")
    for file in (
        release / "Wan2.1_VAE.pth",
        next((release / "low_noise_model").glob("*.safetensors")),
        tmp_path / "m.gguf",
    ):
        head = file.read_bytes()[:64]
        assert [type(open_file(file))] == [kind for kind in FORMATS if kind.recognises(head)]


def test_a_new_format_is_a_line_in_the_table(monkeypatch, release, tmp_path):
    class Pickled(TorchFile):
        """Bytes of a PyTorch file after a word of its own."""

        format, suffixes = "pickled", (".pickled",)

        @staticmethod
        def recognises(head):
            return head.startswith(b"pickled!")

        def __init__(self, path):
            (tmp_path / "inner.pth").write_bytes(path.read_bytes()[8:])
            super().__init__(tmp_path / "inner.pth")

    file = tmp_path / "vae.pickled"
    file.write_bytes(b"pickled!" + (release / "Wan2.1_VAE.pth").read_bytes())
    with pytest.raises(CheckpointError, match=r"no checkpoint: expected \.safetensors, \.sft, \.gguf, \.pth"):
        open_checkpoint(file)
    monkeypatch.setattr("wan_models.checkpoints.files.formats.FORMATS", (*FORMATS, Pickled))
    monkeypatch.setattr("wan_models.checkpoints.files.formats.SUFFIXES", (*SUFFIXES, *Pickled.suffixes))
    info = expect(open_model(file), "vae")
    assert (info.config, info.format) == (VAE, "pickled")


def test_a_new_scheme_is_a_line_in_the_table(monkeypatch, release, tmp_path):
    """Weights of 8-bit whole numbers with a scale, which are a fault until a scheme reads them."""

    @dataclass(frozen=True)
    class Int8:
        shape: tuple
        scale: float
        name: str = "int8"

        @property
        def nbytes(self):
            return math.prod(self.shape)

        def unpack(self, raw, dtype):
            return raw.to(dtype) * self.scale

    def find(shapes, dtypes, read):
        return {
            name: Int8(shape, float(read(f"{name.removesuffix('weight')}weight_scale")))
            for name, shape in shapes.items()
            if dtypes[name] == torch.int8
        }

    state = dict(open_checkpoint(release / "low_noise_model"))
    weight = state["blocks.0.ffn.0.weight"]
    scale = weight.abs().max() / 127
    state["blocks.0.ffn.0.weight"] = (weight / scale).round().to(torch.int8)
    state["blocks.0.ffn.0.weight_scale"] = scale
    note = torch.tensor(list(b'{"format": "int8"}'), dtype=torch.uint8)
    save_file(state | {"blocks.0.ffn.0.comfy_quant": note}, tmp_path / "m.safetensors")
    with pytest.raises(
        CheckpointError,
        match=r"format is 'int8'; of such formats float8_e4m3fn, .*asym_w4a8_int8.* can",
    ):
        expect(open_model(tmp_path / "m.safetensors"), "dit")
    save_file(state, tmp_path / "n.safetensors")
    with pytest.raises(CheckpointError, match="is stored as int8 with a scale"):
        expect(open_model(tmp_path / "n.safetensors"), "dit")
    monkeypatch.setattr(
        "wan_models.checkpoints.packed.quantized.SCHEMES",
        (*SCHEMES, Scheme(find, ("weight_scale",), ("int8",))),
    )
    for name in ("m.safetensors", "n.safetensors"):
        checkpoint = open_model(tmp_path / name)
        model = on_meta(WanModel, expect(checkpoint, "dit").config)
        load_into(model, checkpoint)
        assert (model.blocks[0].ffn[0].weight - weight).abs().max() <= scale / 2 * 1.001


@pytest.mark.parametrize("is_new", [True, False])
def test_code_in_a_pth_never_runs(tmp_path, is_new):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"weight": Bomb()}, tmp_path / "bomb.pth", _use_new_zipfile_serialization=is_new)
    with pytest.raises(CheckpointError, match="holds more than weights, perhaps code, and was not opened"):
        open_checkpoint(tmp_path / "bomb.pth")
    assert not (tmp_path / "ran").exists()


def test_wrong_kind_says_what_it_is(release):
    file = release / "Wan2.1_VAE.pth"
    with pytest.raises(
        WrongModelError, match=r"VAE.pth is a Wan 2.1 VAE .*diffusion model was expected"
    ) as caught:
        expect(open_checkpoint(file), "dit")
    assert (caught.value.path, caught.value.info.kind, caught.value.expected) == (file, "vae", "dit")
    with pytest.raises(WrongModelError, match=r"UMT5 text encoder.*a VAE was expected"):
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
        load_into(on_meta(WanModel, expect(checkpoint, "dit").config), checkpoint)


def test_vae_of_another_width_loads(tmp_path):
    from wan_models.config import VAEConfig

    torch.save(WanVAE21(VAEConfig(base_dim=8)).state_dict(), tmp_path / "v.pth")
    assert expect(open_checkpoint(tmp_path / "v.pth"), "vae").config == VAEConfig(base_dim=8)


@pytest.mark.parametrize(
    "stray",
    [
        {"num_heads": 40, "dim": 5120},
        {"num_attention_heads": 24, "attention_head_dim": 128},
        {"text_len": 77, "eps": 0.1, "num_heads": 4},
        {"dim": 256, "num_layers": 40, "text_len": 77, "eps": 0.1, "num_heads": 8},
        {"dim": 256, "num_layers": 2, "ffn_dim": 512, "in_dim": 36, "text_len": 77, "num_heads": 8},
        {"d_model": 4096, "num_heads": 64, "num_layers": 24, "text_len": 77},
        None,
    ],
)  # fmt: skip
def test_a_stray_config_beside_a_file_is_not_believed(release, tmp_path, stray):
    state = dict(open_checkpoint(release / "low_noise_model"))
    save_file(state, tmp_path / "single.safetensors")
    (tmp_path / "config.json").write_text("not json" if stray is None else json.dumps(stray))
    assert identify(open_checkpoint(tmp_path / "single.safetensors")).config == DIT


def test_the_models_own_config_is_believed(release, tmp_path):
    own = {"dim": 256, "num_heads": 4, "num_layers": 2, "text_len": 300, "eps": 1e-5}
    save_file(dict(open_checkpoint(release / "low_noise_model")), tmp_path / "single.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(own))
    expected = replace(DIT, num_heads=4, text_len=300, eps=1e-5)
    for path in (tmp_path, tmp_path / "single.safetensors"):
        assert identify(open_checkpoint(path)).config == expected


@pytest.mark.parametrize("layers", [[0, 1, 2], [0, 40], [0], "01"])
def test_layers_of_another_speech_model_are_not_believed(tmp_path, layers):
    config = DITS["S2V-14B"]
    (tmp_path / "config.json").write_text(json.dumps({"dim": 256, "audio_inject_layers": layers}))
    shapes = header(on_meta(WanSpeechModel, config))
    found = identify(headers(shapes, tmp_path / "x.safetensors")).config.speech
    assert found.inject_layers == SpeechConfig.inject_layers[:2]
    (tmp_path / "config.json").write_text(json.dumps({"dim": 256, "audio_inject_layers": [1, 0]}))
    found = identify(headers(shapes, tmp_path / "x.safetensors")).config.speech
    assert found.inject_layers == (1, 0)


def test_image_to_video_is_told_by_its_channels():
    config = DiTConfig(family="i2v", in_dim=36)
    info = identify(headers(header(on_meta(WanModel, config))))
    assert info.config == config
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
