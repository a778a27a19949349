"""Notes of how single weights are stored, as ComfyUI's files have them: JSON beside the weight or in the metadata."""

import json
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..files.formats import WeightsFile
from ..files.stamp import Stamp
from ..json_text import parse
from .packing import Dtypes, Read, Shapes

NOTE = "comfy_quant"  # beside a weight, as a tensor of bytes
_LAYERS = "_quantization_metadata"  # of the whole file: {"layers": {name of a layer: note}}
_MAX_BYTES = 2**16


class Notes:
    """Notes that lie elsewhere in a file, under the names that they have beside the weights, as a file of their own."""

    format: ClassVar[str] = "notes"

    def __init__(self, stamp: Stamp, layers: Mapping[str, Mapping[str, Any]]) -> None:
        """stamp: of the file; layers: names to notes."""
        self.stamp = stamp
        self.metadata: Mapping[str, str] = {}
        self._notes = {f"{layer}.{NOTE}": to_tensor(note) for layer, note in layers.items()}

    @classmethod
    def of_metadata(cls, file: WeightsFile) -> "Notes | None":
        """Reads notes that ComfyUI's files have in the metadata. Raises ValueError where they cannot be read."""
        text = file.metadata.get(_LAYERS)
        if not text:
            return None
        said = parse(text.encode())
        layers = said.get("layers") if isinstance(said, dict) else None
        if not isinstance(layers, dict):
            raise ValueError("it names no layers")
        return cls(file.stamp, layers)

    @property
    def names(self) -> list[str]:
        return list(self._notes)

    def header(self, name: str) -> tuple[tuple[int, ...], torch.dtype]:
        """As of other files."""
        return tuple(self._notes[name].shape), torch.uint8

    def read(self, name: str) -> Tensor:
        """A note as bytes."""
        return self._notes[name]


def to_tensor(note: Mapping[str, Any]) -> Tensor:
    """A note as the bytes that files have."""
    return torch.tensor(list(json.dumps(note).encode()), dtype=torch.uint8)


def noted(shapes: Shapes, dtypes: Dtypes, read: Read) -> dict[str, dict[str, Any]]:
    """Layers to the notes on their weights; those that cannot be read say the format "unreadable"."""
    notes = {}
    for name in shapes:
        layer, _, leaf = name.rpartition(".")
        if leaf == NOTE:
            is_text = dtypes[name] == torch.uint8 and math.prod(shapes[name]) <= _MAX_BYTES
            notes[layer] = _of_text(read(name).numpy().tobytes() if is_text else b"")
    return notes


def of_older_file(shapes: Shapes, dtypes: Dtypes) -> dict[str, dict[str, Any]]:
    """Notes on the layers of a file of scaled 8-bit floats from before there were any. A marker of two values in it, or
    none, says that products are to be of unpacked weights."""
    exact = {"full_precision_matrix_mult": True} if math.prod(shapes.get("scaled_fp8", (2,))) == 2 else {}
    notes = {}
    for name in shapes:
        layer, _, leaf = name.rpartition(".")
        dtype = str(dtypes.get(f"{layer}.weight")).removeprefix("torch.")
        if leaf == "scale_weight" and dtype.startswith("float8_e") and f"{layer}.{NOTE}" not in shapes:
            notes[layer] = {"format": dtype} | exact
    return notes


def option(note: Mapping[str, Any], name: str, default: Any) -> Any:
    """A setting of a note, which may lie in its "params"."""
    more = note.get("params")
    return note.get(name, more.get(name, default) if isinstance(more, Mapping) else default)


def _of_text(text: bytes) -> dict[str, Any]:
    try:
        note = parse(text)
        return note if isinstance(note["format"], str) else {"format": "unreadable"}
    except (ValueError, KeyError, TypeError):
        return {"format": "unreadable"}
