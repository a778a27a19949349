"""Text -> speech, by a model that the user has: CosyVoice 2 where it is installed, else a transformers folder.

Nothing is ever downloaded. A folder with `cosyvoice2.yaml` is one of CosyVoice, one with `config.json` one of
transformers (VITS, as in the MMS voices, or Bark).
"""

from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from .wav2vec import SAMPLE_RATE, mono

_COSYVOICE = "cosyvoice2.yaml"


def is_voice(folder: Path) -> bool:
    """Whether a folder holds a model for `speak`."""
    return (folder / _COSYVOICE).is_file() or (folder / "config.json").is_file()


@torch.no_grad()
def speak(
    folder: str | Path,
    text: str,
    seed: int,
    device: torch.device,
    sample: tuple[Tensor, int] | None = None,
    sample_text: str = "",
) -> tuple[Tensor, int]:
    """Text -> (sound [1, 1, N] in -1..1, samples per second).

    sample: (sound [B, channels, N], its rate) of the voice to speak with, which CosyVoice needs and others do not
    have; sample_text: what is said in it. Raises ValueError where text or model cannot be used."""
    folder = Path(folder)
    if not text.strip():
        raise ValueError("the text to speak is empty")
    if not is_voice(folder):
        raise ValueError(
            f"{folder} holds no text-to-speech model: it must be a folder of CosyVoice 2 ({_COSYVOICE}) or of "
            "transformers (config.json), such as facebook/mms-tts-eng"
        )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if (folder / _COSYVOICE).is_file():
            sound, rate = _cosyvoice(folder, text, sample, sample_text)
        else:
            if sample is not None:
                raise ValueError(
                    f"{folder.name} speaks with its own voice and takes no voice sample: leave it out, or use "
                    "CosyVoice 2"
                )
            sound, rate = _transformers(folder, text, device)
    return rearrange(sound.detach().cpu().float(), "... -> 1 1 (...)").clamp(-1, 1), rate


def _cosyvoice(
    folder: Path, text: str, sample: tuple[Tensor, int] | None, sample_text: str
) -> tuple[Tensor, int]:
    try:
        from cosyvoice.cli.cosyvoice import CosyVoice2
    except ImportError:
        raise ValueError(
            f"{folder.name} is a model of CosyVoice, which is not installed: follow github.com/FunAudioLLM/CosyVoice, "
            "or use a text-to-speech folder of transformers, such as facebook/mms-tts-eng"
        ) from None
    if sample is None:
        raise ValueError("CosyVoice speaks with the voice of a sample: give a voice sample")
    voice = mono(*sample)[None]
    assert voice.shape[0] == 1  # as CosyVoice takes it
    assert SAMPLE_RATE == 16000
    model: Any = CosyVoice2(str(folder))
    if sample_text.strip():
        parts = model.inference_zero_shot(text, sample_text, voice)
    else:
        parts = model.inference_cross_lingual(text, voice)
    return torch.cat([part["tts_speech"] for part in parts], dim=1), model.sample_rate


def _transformers(folder: Path, text: str, device: torch.device) -> tuple[Tensor, int]:
    from transformers import AutoModelForTextToWaveform, AutoProcessor, AutoTokenizer

    own = {"local_files_only": True, "trust_remote_code": False}
    try:
        model: Any = AutoModelForTextToWaveform.from_pretrained(str(folder), **own)
        generates = model.can_generate()
        reader: Any = (AutoProcessor if generates else AutoTokenizer).from_pretrained(str(folder), **own)
    except Exception as error:  # the library raises many kinds for missing and foreign files
        raise ValueError(
            f"{folder} holds no text-to-speech model that transformers can use ({error})"
        ) from error
    model = model.eval().to(device)
    inputs = {k: v.to(device) for k, v in reader(text, return_tensors="pt").items() if isinstance(v, Tensor)}
    if not inputs["input_ids"].numel():
        raise ValueError(f"{folder.name} knows none of the letters of this text: use a voice of its language")
    sound = model.generate(**inputs) if generates else model(**inputs).waveform
    config = (
        model.generation_config
        if hasattr(getattr(model, "generation_config", None), "sample_rate")
        else model.config
    )
    return sound, getattr(config, "sampling_rate", None) or config.sample_rate
