"""What the tests of videos made clip by clip share."""

import av
import torch
from safetensors.torch import load_file

from wan_models.checkpoints.loading import expect, load_into
from wan_models.checkpoints.reader import open_model


def load(path, kind, network):
    """A checkpoint in plain PyTorch, in float32."""
    checkpoint = open_model(path)
    with torch.device("meta"):
        model = network(expect(checkpoint, kind).config).eval()
    load_into(model, checkpoint, convert=lambda _, w: w.float())
    return model


def clips_of(folder, name):
    """The frames of each finished clip in a checkpoint folder."""
    return [
        load_file(file)["frames"] for file in sorted((folder / "output" / name).glob("clip_*.safetensors"))
    ]


def film_length(host, entry):
    """Frames of the one film that a run saved."""
    (file,) = [f for f in host.outputs(entry) if f.suffix == ".mp4"]
    with av.open(str(file)) as film:
        return sum(1 for _ in film.decode(video=0))
