"""wav2vec2 as the host's audio encoder."""

from pathlib import Path
from typing import Any

import comfy.model_management
import torch

from ..wan_models.audio import speech_synthesis
from ..wan_models.audio.wav2vec import SAMPLE_RATE, Wav2Vec, mono
from . import compat, folders
from .progress import progress


class WanAudioEncoder:
    """AUDIO_ENCODER: has the one call that the host's own node makes, and gives what the host's S2V nodes read."""

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


def speak(voice: str, text: str, seed: int, sample: dict | None, sample_text: str) -> dict[str, Any]:
    """Text -> AUDIO, by a voice of models/tts; sample is an AUDIO of the voice to speak with."""
    folder = folders.voices().get(voice)
    if folder is None:
        raise ValueError(
            f"there is no text-to-speech model {voice!r} in models/{folders.VOICES}. Put a folder there: one of "
            "transformers, such as facebook/mms-tts-eng, or CosyVoice2-0.5B where CosyVoice is installed"
        )
    given = None if sample is None else (sample["waveform"], sample["sample_rate"])
    device = comfy.model_management.get_torch_device()
    waveform, rate = speech_synthesis.speak(folder, text, seed, device, given, sample_text)
    return {"waveform": waveform, "sample_rate": rate}


def load_audio_encoder(path: str | Path) -> WanAudioEncoder:
    """Loads a wav2vec2 file or folder as an AUDIO_ENCODER.

    Raises CheckpointError (a ValueError) where it is broken or holds something else."""
    return WanAudioEncoder(Wav2Vec(path))
