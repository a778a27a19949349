"""Checkpoints as they lie about: any ending, prefix and container, shards, links, and the files of other programs."""

import json

import pytest
import torch
from formats import write_gguf
from safetensors.torch import save_file
from tests_support import on_meta

from demo.tiny_release import CLIP, VAE
from wan_models.checkpoints.errors import CheckpointError
from wan_models.checkpoints.files.torch_file import TorchFile
from wan_models.checkpoints.loading import expect, load_into
from wan_models.checkpoints.reader import open_checkpoint, open_model
from wan_models.config import T5Config
from wan_models.dit.base import WanModel
from wan_models.text.umt5 import UMT5Encoder
from wan_models.vae.wan21 import WanVAE21
from wan_models.vision.clip import VisionTransformer


def named(prefix="", wrap=lambda name: name):
    return lambda state: {prefix + wrap(name): weight for name, weight in state.items()}


def within(*path):
    def nest(state):
        for key in reversed(path):
            state = {key: state, "step": torch.tensor(3)}
        return state

    return nest


def beside(name, other):
    return lambda state: {
        name: state,
        other: {k: v + 1 for k, v in state.items()},
        "optimizer": {"state": {0: {"m": torch.ones(1)}}},
    }


SAVED = {
    "single.safetensors": named(), "single.SAFETENSORS": named(), "single.SafeTensors": named(), "single.sft": named(),
    "single.SFT": named(), "single.pth": named(), "single.PTH": named(), "single.Pt": named(), "single.BIN": named(),
    "single.CKPT": named(), "old.pth": named(), "old.PTH": named("model."), "old.bin": within("state_dict"),
    "zip called.safetensors": named(), "header called.pth": named(),
    "a.safetensors": named("model."), "b.safetensors": named("model.diffusion_model."), "c.pth": named("module."),
    "d.safetensors": named("_orig_mod."), "e.safetensors": named("transformer."), "f.safetensors": named("dit."),
    "g.safetensors": named("module._orig_mod.model."), "h.safetensors": named("diffusion_model.model."),
    "i.safetensors": named("pipe.dit."), "j.pth": named("low_noise_model."), "k.safetensors": named("generator.model."),
    "l.safetensors": named("", lambda name: name.replace("blocks.1.", "blocks.1._orig_mod.")),
    "m.pth": named("_fsdp_wrapped_module.", lambda name: name.replace("ffn.", "_checkpoint_wrapped_module.ffn.")),
    "n.pth": within("state_dict"), "o.pth": within("model"), "p.pth": within("module"), "q.pth": within("ema"),
    "r.pth": within("checkpoint", "state_dict", "model"), "s.pth": within("generator"), "t.pth": within("whatever"),
    "u.pth": beside("model", "ema"), "v.pth": beside("generator", "critic"),
    "w.pth": beside("state_dict", "ema_state_dict"),
}  # fmt: skip


@pytest.mark.parametrize("name", SAVED)
def test_endings_prefixes_and_containers(release, tmp_path, name):
    state = dict(open_checkpoint(release / "low_noise_model"))
    saved, path = SAVED[name](state), tmp_path / name
    if name.startswith("old"):
        torch.save(saved, path, _use_new_zipfile_serialization=False)
    elif name.startswith("zip") or (
        not name.startswith("header") and path.suffix.lower() in TorchFile.suffixes
    ):
        torch.save(saved, path)
    else:
        save_file(saved, path)
    same_model(path, state)


def same_model(path, state):
    checkpoint = open_model(path)
    model = on_meta(WanModel, expect(checkpoint, "dit").config)
    load_into(model, checkpoint)
    assert all(torch.equal(weight, state[name]) for name, weight in model.state_dict().items())


def test_gguf_in_capitals(release, tmp_path):
    state = dict(open_checkpoint(release / "low_noise_model"))
    write_gguf(tmp_path / "m.gguf", {f"model.{name}": weight for name, weight in state.items()}, "F32")
    (tmp_path / "m.gguf").rename(tmp_path / "m.GGUF")
    same_model(tmp_path / "m.GGUF", state)


def test_shards_of_older_torch_files(release, tmp_path):
    """As transformers and diffusers wrote them before safetensors."""
    state = dict(open_checkpoint(release / "low_noise_model"))
    names, places = sorted(state), {}
    for i in range(2):
        file = f"pytorch_model-0000{i + 1}-of-00002.bin"
        torch.save({name: state[name] for name in names[i::2]}, tmp_path / file)
        places |= dict.fromkeys(names[i::2], file)
    for path in (tmp_path, tmp_path / file):
        same_model(path, state)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    for path in (tmp_path, tmp_path / file):
        same_model(path, state)


def test_shards_hidden_files_and_links(release, copy, tmp_path):
    state = dict(open_checkpoint(release / "high_noise_model"))
    folder = copy("high_noise_model")
    for name in ("._diffusion_pytorch_model.safetensors", ".x.safetensors", "._a.safetensors.index.json"):
        (folder / name).write_bytes(b"\0\5\x16\7\0\2")
    same_model(folder, state)
    (folder / "config.json").unlink()
    shards = sorted(folder.glob("diff*.safetensors"))
    for path in (folder, *shards):  # any one of a set stands for all
        same_model(path, state)
    next(folder.glob("diff*.index.json")).unlink()
    for path in (folder, *shards):
        same_model(path, state)
    linked, blobs = tmp_path / "linked", tmp_path / "blobs"
    linked.mkdir(), blobs.mkdir()
    for i, shard in enumerate(shards):  # as the cache of Hugging Face keeps them
        (linked / shard.name).symlink_to(shard.rename(blobs / f"{i}abc"))
    (tmp_path / "folder").symlink_to(linked)
    for path in (linked, linked / shards[0].name, tmp_path / "folder"):
        same_model(path, state)
    first = linked / shards[0].name.replace("-00001-", "-00000-")
    first.symlink_to(blobs / "0abc")  # numbered from 0, and one too many
    (linked / shards[1].name).unlink()
    with pytest.raises(CheckpointError, match=r"1 of the 2 files.*missing: .*00002-of-00002.safetensors"):
        open_model(linked)
    first.unlink()
    (linked / shards[1].name).symlink_to(blobs / "1abc")
    (blobs / "1abc").unlink()
    for path in (linked, linked / shards[0].name):
        with pytest.raises(CheckpointError, match=r"1 of the 2 files.*missing: .*00002-of-00002.safetensors"):
            open_model(path)
    with pytest.raises(
        CheckpointError, match=r"00002.safetensors is a link to .*1abc, where there is nothing"
    ):
        open_model(linked / shards[1].name)


@pytest.mark.parametrize("prefix", ["model.", "module._orig_mod.", "state_dict.model."])
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("vae", "first_stage_model."), ("vae", "vae."), ("t5", "text_encoders.umt5xxl.transformer."),
        ("t5", "text_encoder."), ("clip_vision", "clip_vision."),
    ],
)  # fmt: skip
def test_other_models_prefixes(tmp_path, prefix, kind, more):
    network = {
        "vae": lambda: WanVAE21(VAE),
        "t5": lambda: UMT5Encoder(
            T5Config(vocab_size=9, dim=8, dim_attn=8, dim_ffn=8, num_heads=2, num_layers=1)
        ),
        "clip_vision": lambda: VisionTransformer(CLIP),
    }[kind]()
    roots = {"clip_vision": "visual."}
    state = {roots.get(kind, "") + name: weight for name, weight in network.state_dict().items()}
    for before in (prefix, more):
        torch.save({before + name: weight for name, weight in state.items()}, tmp_path / "m.pth")
        checkpoint = open_model(tmp_path / "m.pth")
        assert expect(checkpoint, kind) and set(checkpoint) == set(state)


def test_two_models_in_one_file_are_refused(release, tmp_path):
    state = dict(open_checkpoint(release / "low_noise_model"))
    both = {f"{p}_noise_model.{name}": w.clone() for p in ("high", "low") for name, w in state.items()}
    save_file(both, tmp_path / "both.safetensors")
    with pytest.raises(CheckpointError, match=r"several models \(high_noise_model.\*, low_noise_model.\*\)"):
        open_model(tmp_path / "both.safetensors")
