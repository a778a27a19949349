"""What is done with a model file, up to the weights in a network; ValueErrors that name it are the only errors."""

from pathlib import Path

from wan_models import load_text_encoder
from wan_models.audio.wav2vec import Wav2Vec
from wan_models.checkpoints.detect import identify
from wan_models.checkpoints.lora import match
from wan_models.checkpoints.reader import open_checkpoint, open_model
from wan_models.dit.base import WanModel
from wan_models.models import build_network, load_model

from .seeds import DIT


def use(kind: str, path: Path) -> None:
    """Opens a file as a `kind` of model and loads it."""
    if kind == "text":
        load_text_encoder(path).tokenizer(["a cat surfs", "二"])
    elif kind == "audio":
        Wav2Vec(path)
    elif kind == "lora":
        file = open_checkpoint(path)
        network: WanModel = build_network(DIT)
        found = match(file.shapes, {name: tuple(w.shape) for name, w in network.state_dict().items()}, "high")
        assert found.report and all(
            isinstance(fault, str) for fault in (*found.faults, *found.misfits.values())
        )
        for name in found.names:
            file[name].float().sum()
    else:
        checkpoint = open_model(path)
        identify(checkpoint)
        assert checkpoint.stored_bytes >= 0 and isinstance(checkpoint.metadata, dict)
        for weight in load_model(path, kind, keep_packed=False).state_dict().values():
            weight.float().sum()  # some of a damaged file stays in 8 bits, which cannot be added up
