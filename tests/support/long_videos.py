"""What the tests of videos made clip by clip share."""

import av
from safetensors.torch import load_file


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
