"""Audio features against the official encoder, their steps per frame, and sound of every kind."""

import json
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import transformers
from example_files import write_voice
from packaging import version
from tests_support import randomize_, rel_l2

from wan_models.audio import wav2vec
from wan_models.audio.buckets import bucket_indices, per_frame
from wan_models.audio.speech_synthesis import speak
from wan_models.audio.wav2vec import Wav2Vec, mono
from wan_models.checkpoints.reader import CheckpointError

TINY = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48, "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "conv_bias": True, "vocab_size": 33,
    "feat_extract_norm": "layer", "do_stable_layer_norm": True,
}  # fmt: skip
BASE = {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False}
"""What the smaller wav2vec2 models have otherwise: norms before the layers, none at the end."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny encoder as the official release has it: with a head for letters, and its preprocessor."""
    path = tmp_path_factory.mktemp("wav2vec2")
    config = transformers.Wav2Vec2Config(**TINY)
    randomize_(transformers.Wav2Vec2ForCTC(config), std=0.2).save_pretrained(path)
    (path / "vocab.json").write_text('{"<pad>": 0, "<unk>": 1, "|": 2}')
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    letters = transformers.Wav2Vec2CTCTokenizer(str(path / "vocab.json"), unk_token="<unk>")
    transformers.Wav2Vec2Processor(extractor, letters).save_pretrained(path)
    return path


def speech(seconds, seed=0):
    """Something that changes over time, loud and quiet."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(int(seconds * 16000)) / 16000
    return torch.randn(time.shape, generator=generator) * (0.1 + time.mul(3).sin().abs()) * 0.3


def as_official_versions(model):
    """Has a whole model give the hidden states that the official code reads of the transformers it asks for (4.49 to
    4.51): the last one is the encoder's result. From 5.18 on it is what comes before the encoder's last norm."""
    results = []
    model.wav2vec2.register_forward_hook(lambda module, args, out: results.append(out[0]))

    def last_is_result(module, args, out):
        if version.parse(transformers.__version__) < version.parse("5.18"):
            assert torch.equal(out.hidden_states[-1], results[-1])
        out.hidden_states = (*out.hidden_states[:-1], results[-1])
        return out

    model.register_forward_hook(last_is_result)


@pytest.mark.parametrize("seconds", [0.3, 4.7])
@pytest.mark.parametrize("kind", [{}, BASE], ids=["large", "base"])
def test_features_equal_official(official, folder, tmp_path, seconds, kind):
    import soundfile
    from wan.modules.s2v.audio_encoder import AudioEncoder

    if kind:
        shutil.copytree(folder, tmp_path / "other")
        folder = tmp_path / "other"
        config = transformers.Wav2Vec2Config(**TINY | kind)
        randomize_(transformers.Wav2Vec2ForCTC(config), std=0.2).save_pretrained(folder)
    sound = speech(seconds)
    soundfile.write(tmp_path / "a.wav", sound.numpy(), 16000, subtype="FLOAT")
    encoder = AudioEncoder(model_id=str(folder))
    as_official_versions(encoder.model)
    expected = encoder.extract_audio_feat(str(tmp_path / "a.wav"), return_all_layers=True)
    buckets, clips = encoder.get_audio_embed_bucket_fps(expected, fps=16, batch_frames=20, m=0)
    hidden = Wav2Vec(folder).encode(mono(sound[None, None], 16000))
    found = per_frame(torch.cat(hidden), 20)
    assert rel_l2(found.permute(2, 0, 1), buckets) < 1e-5
    assert found.shape[-1] == clips * 20


def test_bucket_indices_equal_official(official, seed):
    """Of 0.3 s to 61 s, and clips of several lengths: the features are their own indices."""
    from wan.modules.s2v.audio_encoder import AudioEncoder

    encoder = object.__new__(AudioEncoder)
    encoder.video_rate = 30
    for frames in (80, 48, 4):
        for steps in [9, 10, 149, 150, 151, 300, 1830, *torch.randint(9, 1831, (20,)).tolist()]:
            features = torch.arange(1, steps + 1).view(1, steps, 1).expand(2, -1, 1).float()
            expected, clips = encoder.get_audio_embed_bucket_fps(features, fps=16, batch_frames=frames)
            indices, count = bucket_indices(steps, frames)
            found = torch.where(torch.from_numpy(indices < steps), torch.from_numpy(indices) + 1, 0)
            assert count == clips and found.tolist() == expected[:, 0, 0].int().tolist()


def test_windows_give_the_result_of_one_piece(folder, monkeypatch):
    encoder, sound = Wav2Vec(folder), speech(5.03)
    whole, seen = encoder.encode(sound), []
    monkeypatch.setattr(wav2vec, "_WINDOW_SECONDS", 1)
    parts = encoder.encode(sound, on_window=lambda done, total: seen.append((done, total)))
    assert len(parts) == len(whole) == 4
    assert all(rel_l2(a, b) < 1e-5 for a, b in zip(parts, whole, strict=True))
    assert len(seen) == 6 and seen[-1][0] == seen[-1][1] == whole[0].shape[1]


@pytest.mark.parametrize("rename", [lambda n: n, lambda n: "wav2vec2." + n])
def test_single_files_of_both_namings_load(folder, tmp_path, rename, monkeypatch):
    from safetensors.torch import load_file, save_file

    monkeypatch.setattr(wav2vec, "_LARGE", TINY)
    state = {k.removeprefix("wav2vec2."): v for k, v in load_file(folder / "model.safetensors").items()}
    parts = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    older = {}
    for name, weight in state.items():
        for new, old in parts.items():
            name = name.replace(new, old)
        older[rename(name)] = weight
    save_file(older, tmp_path / "a.safetensors")
    sound = speech(0.5)
    expected = Wav2Vec(folder).encode(sound)
    assert all(
        torch.equal(a, b)
        for a, b in zip(Wav2Vec(tmp_path / "a.safetensors").encode(sound), expected, strict=True)
    )
    del older[rename("encoder.layers.1.attention.k_proj.weight")]
    save_file(older, tmp_path / "b.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks 1 of .*k_proj"):
        Wav2Vec(tmp_path / "b.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "c.safetensors")
    with pytest.raises(CheckpointError, match="is no wav2vec2 model"):
        Wav2Vec(tmp_path / "c.safetensors")


def test_sound_of_every_kind(folder):
    sound = speech(1.0)
    eight = mono(sound.expand(1, 8, -1), 16000)
    assert torch.allclose(eight, sound, atol=1e-6)
    time = torch.arange(44100) / 44100
    tone = (time * 440 * 6.2831853).sin()
    resampled = mono(torch.stack([tone, tone])[None], 44100)
    assert abs(len(resampled) - 16000) <= 1
    expected = (torch.arange(len(resampled)) / 16000 * 440 * 6.2831853).sin()
    assert rel_l2(resampled[500:-500], expected[500:-500]) < 1e-3
    encoder = Wav2Vec(folder)
    silence = encoder.encode(torch.zeros(16000))
    assert all(torch.isfinite(x).all() for x in silence)
    with pytest.raises(ValueError, match="10 ms, where 25 ms is the least"):
        encoder.encode(mono(sound[None, None, :160], 16000))
    with pytest.raises(ValueError, match="180:00 minutes long, and up to 15"):
        mono(torch.zeros(1, 1, 1).expand(1, 1, 3 * 3600 * 8000), 8000)
    with pytest.raises(ValueError, match="holds no sound"):
        mono(torch.zeros(1, 2, 0), 16000)
    with pytest.raises(ValueError, match="no numbers"):
        mono(torch.full((1, 1, 800), float("nan")), 16000)
    with pytest.raises(ValueError, match="20 ms, where a video needs more than 20"):
        per_frame(torch.zeros(3, 1, 8), 80)


@pytest.fixture(scope="module")
def voice(tmp_path_factory):
    """A tiny VITS of random weights as transformers saves it."""
    return write_voice(tmp_path_factory.mktemp("voices") / "tiny")


def test_speech_from_text(voice, tmp_path, monkeypatch):
    cpu = torch.device("cpu")
    sound, rate = speak(voice, "two cats surf", 1, cpu)
    assert (
        rate == 16000 and sound.shape[:2] == (1, 1) and sound.shape[2] > 100 and torch.isfinite(sound).all()
    )
    assert torch.equal(speak(voice, "two cats surf", 1, cpu)[0], sound)
    assert speak(voice, "two cats surf in the evening", 1, cpu)[0].shape != sound.shape
    with pytest.raises(ValueError, match="the text to speak is empty"):
        speak(voice, "  ", 1, cpu)
    with pytest.raises(ValueError, match="takes no voice sample"):
        speak(voice, "a", 1, cpu, sample=(torch.zeros(1, 1, 16000), 16000))
    with pytest.raises(ValueError, match="holds no text-to-speech model"):
        speak(tmp_path, "a", 1, cpu)
    (tmp_path / "cosyvoice2.yaml").touch()
    with pytest.raises(ValueError, match="CosyVoice, which is not installed"):
        speak(tmp_path, "a", 1, cpu)


def test_no_code_of_a_voices_folder_runs(tmp_path, monkeypatch):
    (tmp_path / "model_code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    names = {"AutoConfig": "C", "AutoModelForTextToWaveform": "M", "AutoTokenizer": "T", "AutoProcessor": "P"}
    code = {name: f"model_code.{kind}" for name, kind in names.items()}
    for model_type in ("unheard-of", "vits"):
        config = {"model_type": model_type, "architectures": ["M"], "auto_map": code}
        (tmp_path / "config.json").write_text(json.dumps(config))
        monkeypatch.setattr("builtins.input", lambda *text: pytest.fail("the user was asked"))
        with pytest.raises(ValueError, match="holds no text-to-speech model"):
            speak(tmp_path, "hello", 1, torch.device("cpu"))
    assert not (tmp_path / "ran").exists()


def test_no_class_that_a_folder_chooses_may_be_its_own():
    root = Path(__file__).parents[2] / "wan_models"
    sources = {path: path.read_text(encoding="utf-8") for path in root.rglob("*.py")}
    auto = {
        path: source
        for path, source in sources.items()
        if re.search(r"Auto\w+.*from_pretrained\(", source, re.DOTALL)
    }
    assert len(auto) >= 3
    assert not [
        path for path, source in auto.items() if not re.search(r"trust_remote_code\W{1,4}False", source)
    ]


def test_cosyvoice_is_called_as_its_own_examples_do(tmp_path, monkeypatch):
    calls = []

    class CosyVoice2:
        sample_rate = 24000

        def __init__(self, folder):
            calls.append(folder)

        def inference_zero_shot(self, text, sample_text, sample):
            calls.append((text, sample_text, tuple(sample.shape)))
            yield {"tts_speech": torch.ones(1, 5)}
            yield {"tts_speech": torch.zeros(1, 3)}

        def inference_cross_lingual(self, text, sample):
            calls.append((text, tuple(sample.shape)))
            yield {"tts_speech": torch.ones(1, 4)}

    modules = {name: ModuleType(name) for name in ("cosyvoice", "cosyvoice.cli", "cosyvoice.cli.cosyvoice")}
    modules["cosyvoice.cli.cosyvoice"].CosyVoice2 = CosyVoice2
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    (tmp_path / "cosyvoice2.yaml").touch()
    sample = (torch.rand(1, 2, 8000), 8000)
    cpu = torch.device("cpu")
    sound, rate = speak(tmp_path, "hello", 1, cpu, sample, "what was said")
    assert rate == 24000 and sound.tolist() == [[[1, 1, 1, 1, 1, 0, 0, 0]]]
    assert speak(tmp_path, "hello", 1, cpu, sample)[0].shape == (1, 1, 4)
    assert calls == [
        str(tmp_path),
        ("hello", "what was said", (1, 16000)),
        str(tmp_path),
        ("hello", (1, 16000)),
    ]
    with pytest.raises(ValueError, match="give a voice sample"):
        speak(tmp_path, "hello", 1, cpu)
