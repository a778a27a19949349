"""Sound -> all hidden states of wav2vec2, through transformers' model, with memory that does not grow unseen.

The convolutions at its beginning, which need most memory, run in windows that overlap by what they see, so the
result is that of one piece.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..checkpoints.json_text import read_object
from ..checkpoints.reader import Checkpoint, CheckpointError, open_model
from ..progress import OnProgress

SAMPLE_RATE = 16000
MAX_SECONDS = 15 * 60
"""All hidden states of 15 minutes take about 5 GB."""
_WINDOW_SECONDS = 20
# of the models that Wan uses, where a single file brings no config.json: wav2vec2-large-xlsr-53
_LARGE = {
    "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
    "conv_bias": True, "feat_extract_norm": "layer", "do_stable_layer_norm": True, "vocab_size": 33,
}  # fmt: skip


def mono(waveform: Tensor, rate: int) -> Tensor:
    """Sound [B, channels, N] or [channels, N] of any rate -> one channel [N] at 16 kHz, of the first of the batch.

    Raises ValueError on sound that is empty, too long, or no numbers."""
    sound = waveform[0] if waveform.dim() == 3 else waveform
    if sound.dim() != 2 or not sound.numel() or rate <= 0:
        raise ValueError(f"the audio of shape {list(waveform.shape)} at {rate} Hz holds no sound")
    check_seconds(sound.shape[1] / rate)
    single = sound.detach().cpu().float().mean(dim=0)
    if not torch.isfinite(single).all():
        raise ValueError("the audio holds values that are no numbers: load it again")
    return resample(single, rate, SAMPLE_RATE)


def check_seconds(seconds: float) -> None:
    """ValueError on sound that is longer than can be encoded."""
    if seconds > MAX_SECONDS:
        minutes, rest = divmod(math.ceil(seconds), 60)
        raise ValueError(
            f"the audio is {minutes}:{rest:02} minutes long, and up to {MAX_SECONDS // 60} can be encoded at once: cut "
            "it into parts, and make a video of each"
        )


def resample(sound: Tensor, rate: int, target_rate: int) -> Tensor:
    """Sound [..., N], float32 on the CPU, of `rate` samples per second -> [..., N * target_rate / rate]."""
    from scipy.signal import resample_poly

    if rate == target_rate:
        return sound
    divisor = math.gcd(rate, target_rate)
    return torch.from_numpy(
        resample_poly(sound.numpy(), target_rate // divisor, rate // divisor, axis=-1).copy()
    ).float()


class Wav2Vec:
    """The encoder behind a file or folder; `network` is transformers' model, for the caller to place on a device;
    stamps: of the files that its weights are mapped from."""

    def __init__(self, path: str | Path) -> None:
        checkpoint = open_model(path)
        self.network = _build(checkpoint)
        self.stamps = checkpoint.stamps
        self.normalizes = _normalizes(checkpoint)

    @torch.no_grad()
    def encode(self, sound: Tensor, on_window: OnProgress | None = None) -> list[Tensor]:
        """Sound [N] at 16 kHz -> the hidden states of every layer, [1, T, C] each, 50 steps per second.

        on_window(done, total) is called after each part. Raises ValueError on less than 25 ms of sound."""
        parameter = next(self.network.parameters())
        sound = sound.to(parameter.device, torch.float32)
        if self.normalizes:
            sound = (sound - sound.mean()) / torch.sqrt(sound.var(unbiased=False) + 1e-7)
        features = self._convolve(sound.to(parameter.dtype), on_window)
        hidden, _ = self.network.feature_projection(rearrange(features, "b c t -> b t c"))
        return _hidden_states(self.network.encoder, hidden)

    def _convolve(self, sound: Tensor, on_window: OnProgress | None) -> Tensor:
        config = self.network.config
        stride = int(np.prod(config.conv_stride))
        sees, jump = 1, 1
        for kernel, step in zip(config.conv_kernel, config.conv_stride, strict=True):
            sees, jump = sees + (kernel - 1) * jump, jump * step
        total = (len(sound) - sees) // stride + 1
        if total < 1:
            length, least = 1000 * len(sound) // SAMPLE_RATE, math.ceil(1000 * sees / SAMPLE_RATE)
            raise ValueError(
                f"the audio is too short: {length} ms, where {least} ms is the least. Use a longer recording"
            )
        # a norm over all of time (the base models) cannot be windowed
        window = _WINDOW_SECONDS * SAMPLE_RATE // stride if config.feat_extract_norm == "layer" else total
        parts = []
        for start in range(0, total, window):
            end = min(start + window, total)
            # to the very end, past what makes a last step: it counts in a norm over all of time
            piece = sound[start * stride : (end - 1) * stride + sees if end < total else None]
            parts.append(self.network.feature_extractor(piece[None]))
            if on_window is not None:
                on_window(end, total)
        return torch.cat(parts, dim=2)


def _hidden_states(encoder: Any, hidden: Tensor) -> list[Tensor]:
    """Inputs of every layer, and the encoder's result: the last one is normed where the encoder ends in a norm.

    transformers itself names them `hidden_states`, but from 5.18 on only for a whole model, and then with the last one
    before its norm; the official code was made with versions where it is normed."""
    states: list[Tensor] = []

    def note(_layer: Any, args: tuple, options: dict[str, Any]) -> None:
        states.append(args[0] if args else options["hidden_states"])

    hooks = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in encoder.layers]
    try:
        result = encoder(hidden)[0]
    finally:
        for hook in hooks:
            hook.remove()
    return [*states, result]


def _build(checkpoint: Checkpoint) -> Any:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    state = {_name(name): name for name in checkpoint}
    if "feature_extractor.conv_layers.0.conv.weight" not in state or "masked_spec_embed" not in state:
        raise CheckpointError(
            f"{checkpoint.path} is no wav2vec2 model: load wav2vec2-large-xlsr-53-english, the folder of the official "
            "S2V release or the file for models/audio_encoders"
        )
    stated = checkpoint.config or _LARGE
    layers = {name.split(".")[2] for name in state if name.startswith("encoder.layers.")}
    if stated.get("num_hidden_layers", len(layers)) != len(layers):
        problem = "its config.json says otherwise (num_hidden_layers): download both again"
        if not checkpoint.config:
            problem = f"S2V-14B's speech encoder has {_LARGE['num_hidden_layers']}: load wav2vec2-large-xlsr-53-english"
        raise CheckpointError(f"{checkpoint.path} has {len(layers)} layers, and {problem}")
    try:
        with torch.device("meta"):
            network = Wav2Vec2Model(Wav2Vec2Config(**stated))
    except Exception as error:  # of many kinds, on values that are not meant
        raise CheckpointError(
            f"{checkpoint.path} has a config.json that makes no network ({str(error)[:300]}): download it again"
        ) from None
    expected = network.state_dict()
    missing = [name for name in expected if name not in state]
    if missing:
        raise CheckpointError(
            f"{checkpoint.path} lacks {len(missing)} of {len(expected)} tensors ({', '.join(missing[:3])}): it is "
            f"incomplete or {'its config.json belongs to' if checkpoint.config else 'of'} another model"
        )
    try:
        network.load_state_dict({name: checkpoint[state[name]] for name in expected}, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{checkpoint.path} does not fit its config: {error}") from None
    return network.eval().requires_grad_(False)


def _name(name: str) -> str:
    """Older files name the two parts of a normed weight otherwise, and put the model's name before all of it."""
    name = name.removeprefix("wav2vec2.")
    for old, new in (
        ("weight_g", "parametrizations.weight.original0"),
        ("weight_v", "parametrizations.weight.original1"),
    ):
        name = name.removesuffix(old) + new if name.endswith(f"conv.{old}") else name
    return name


def _normalizes(checkpoint: Checkpoint) -> bool:
    """Whether sound is normalised, as the preprocessor_config.json beside the model says."""
    folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    file = folder / "preprocessor_config.json"
    stated = read_object(file).get("do_normalize", True) if file.is_file() else True
    if not isinstance(stated, bool):
        raise CheckpointError(f"{file}: do_normalize must be true or false")
    return stated
