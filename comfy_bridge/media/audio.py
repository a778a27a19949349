"""wav2vec2 as the host's audio encoder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import comfy.model_management
import torch

from ...wan_models.audio import speech_synthesis
from ...wan_models.audio.wav2vec import SAMPLE_RATE, Wav2Vec, check_seconds, mono, resample
from .. import compat, folders
from ..host_types import Audio
from ..models.hints import check_mapped
from ..progress import progress

_FILM_RATE = 48000
"""Samples per second of a film whose sound has a rate that AAC lacks."""


class WanAudioEncoder:
    """AUDIO_ENCODER: the one call that the host's own node makes, with the outputs that the host's S2V nodes read."""

    def __init__(self, wav2vec: Wav2Vec) -> None:
        self.wav2vec = wav2vec
        # the host writes attributes on what it manages, which transformers' model does not let it
        self.patcher = compat.make_patcher(
            torch.nn.ModuleDict({"network": wav2vec.network}),
            comfy.model_management.text_encoder_device(),
            comfy.model_management.text_encoder_offload_device(),
        )

    def encode_audio(self, audio: torch.Tensor, sample_rate: int) -> dict[str, Any]:
        """Sound [B, channels, N] of any rate -> AUDIO_ENCODER_OUTPUT of its first item.

        Raises ValueError on sound that is empty, too short or too long."""
        sound = mono(audio, sample_rate)
        check_mapped(self.wav2vec.stamps)
        comfy.model_management.load_model_gpu(self.patcher)
        layers = [
            hidden.cpu() for hidden in self.wav2vec.encode(sound.to(self.patcher.load_device), progress())
        ]
        return {
            "encoded_audio": layers[-1],
            "encoded_audio_all_layers": layers,
            "audio_samples": len(sound),
            "seconds": len(sound) / SAMPLE_RATE,
        }


def check_sound(audio: Any) -> tuple[torch.Tensor, int]:
    """AUDIO -> its one sound [1, channels, N], float32, and the rate. ValueError where it cannot be used."""
    if not isinstance(audio, Mapping) or not {"waveform", "sample_rate"} <= set(audio):
        problem = "none is connected" if audio is None else f"there is a {type(audio).__name__}"
        raise ValueError(f"this node needs audio, and {problem}: connect Load Audio, or the audio of a video")
    waveform, rate = audio["waveform"], audio["sample_rate"]
    if not isinstance(waveform, torch.Tensor) or not waveform.is_floating_point():
        kind = getattr(waveform, "dtype", type(waveform).__name__)
        raise ValueError(
            f"the audio holds {kind}, where AUDIO has floating-point numbers from -1 to 1: load it with Load Audio, or "
            "mend the node that made it"
        )
    waveform = waveform[None] if waveform.dim() == 2 else waveform
    rate = _whole(rate)
    if waveform.dim() != 3 or not waveform.numel() or rate < 1:
        raise ValueError(
            f"the audio of shape {list(waveform.shape)} at {audio['sample_rate']} Hz holds no sound: AUDIO is (1, "
            "channels, samples) at a whole number of samples per second"
        )
    if waveform.shape[0] != 1:
        raise ValueError(
            f"the audio is a batch of {waveform.shape[0]} sounds, and a video has one: join them one after the other "
            "(Audio Concat), or take one of them"
        )
    waveform = waveform.detach().cpu().float()
    check_seconds(waveform.shape[-1] / rate)
    if not torch.isfinite(waveform).all():
        raise ValueError("the audio holds values that are no numbers: load it again")
    return waveform, rate


def _whole(rate: Any) -> int:
    """A rate as a whole number; 0 where it is none."""
    try:
        return int(rate) if int(rate) == float(rate) else 0
    except (TypeError, ValueError, OverflowError):
        return 0


def encodable(waveform: torch.Tensor, rate: int, seconds: float) -> Audio:
    """AUDIO of the first `seconds` of a sound [1, channels, N], such as the host can write into a film: one or two
    channels (more are mixed into one), and a rate that AAC has."""
    waveform = waveform[..., : round(seconds * rate)]
    if waveform.shape[1] > 2:
        waveform = waveform.mean(dim=1, keepdim=True)
    rates = av.codec.Codec("aac", "w").audio_rates
    if rates and rate not in rates:
        waveform, rate = resample(waveform, rate, _FILM_RATE), _FILM_RATE
    return {"waveform": waveform, "sample_rate": rate}


def speak(text: str, voice: str, seed: int, *, sample: Audio | None, sample_text: str) -> Audio:
    """Text -> AUDIO, by a voice of models/tts; sample: the voice to speak with, saying `sample_text`."""
    folder = folders.voices().get(voice)
    if folder is None:
        raise ValueError(
            f"there is no text-to-speech model {voice!r} in models/{folders.VOICES}. Put a folder there: one of "
            "transformers, such as facebook/mms-tts-eng, or CosyVoice2-0.5B where CosyVoice is installed"
        )
    voice_sample = None if sample is None else (sample["waveform"], sample["sample_rate"])
    device = comfy.model_management.get_torch_device()
    waveform, rate = speech_synthesis.speak(folder, text, seed, device, voice_sample, sample_text)
    return {"waveform": waveform, "sample_rate": rate}


def load_audio_encoder(path: str | Path) -> WanAudioEncoder:
    """Loads a wav2vec2 file or folder as an AUDIO_ENCODER.

    Raises CheckpointError (a ValueError) where it is broken or holds something else."""
    return WanAudioEncoder(Wav2Vec(path))
