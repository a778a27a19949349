"""The ways to store quantised weights with other tensors beside them. Another one is a file like `scaled_float8` and a
line in `SCHEMES`."""

from ...registry import resolve
from .notes import NOTE, noted
from .packing import Dtypes, Packing, Read, Scheme, Shapes

SCHEMES: tuple[Scheme, ...] = (
    resolve("checkpoints.packed.scaled_float8.SCALED_FLOAT8"),
    resolve("checkpoints.packed.block_float8.BLOCK_FLOAT8"),
    resolve("checkpoints.packed.block_float4.BLOCK_FLOAT4"),
    resolve("checkpoints.packed.scaled_int8.SCALED_INT8"),
    resolve("checkpoints.packed.rotated_int4.ROTATED_INT4"),
)

# scales of the activations, for arithmetic in 8 bits
_NOT_NEEDED = ("scale_input", "input_scale")
# tensors of repackaged files that are no weights: the sign of scaled fp8, and a whole tokenizer
_MARKERS = ("scaled_fp8", "spiece_model")
_SIDE_TENSORS = {NOTE, *_NOT_NEEDED, *(leaf for scheme in SCHEMES for leaf in scheme.side_tensors)}


def packings(shapes: Shapes, dtypes: Dtypes, read: Read) -> dict[str, Packing]:
    """Packings of the weights that are stored in one of `SCHEMES`, by name; read(name) gives a tensor of the file.

    Raises ValueError on weights that are quantised in another way."""
    _check_notes(shapes, dtypes, read)
    by_name: dict[str, Packing] = {}
    for scheme in SCHEMES:
        by_name |= scheme.find(shapes, dtypes, read)
    scales = {leaf for scheme in SCHEMES for leaf in scheme.side_tensors}
    for name, shape in shapes.items():
        module, _, leaf = name.rpartition(".")
        weight = f"{module}.weight"
        if leaf in scales and weight in shapes and weight not in by_name:
            raise ValueError(
                f"{weight} is stored as {str(dtypes[weight]).removeprefix('torch.')} with a scale of {list(shape)}: "
                "none of the formats that can be read stores it so. Get the fp8_scaled, bf16 or GGUF version of the "
                "model"
            )
    return by_name


def _check_notes(shapes: Shapes, dtypes: Dtypes, read: Read) -> None:
    """ValueError where a file says of a weight that it is stored in another way than `SCHEMES`."""
    readable = [name for scheme in SCHEMES for name in scheme.formats]
    for layer, note in noted(shapes, dtypes, read).items():
        if note["format"] not in readable:
            raise ValueError(
                f"{layer}.{NOTE} says that the weight's format is {note['format'][:80]!r}; of such formats "
                f"{', '.join(readable[:-1])} and {readable[-1]} can be read. Get another version of the model"
            )


def is_side_tensor(name: str) -> bool:
    """Whether a tensor only describes how another is stored."""
    return name.rpartition(".")[2] in _SIDE_TENSORS or name in _MARKERS
