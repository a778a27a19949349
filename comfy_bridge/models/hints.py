"""Advice where a file cannot be used, in the names of this pack's nodes and the host's folders."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ...wan_models.checkpoints.errors import (
    ChangedFileError,
    CheckpointError,
    UnsupportedModelError,
    WrongModelError,
)
from ...wan_models.checkpoints.files import stamp
from ...wan_models.text.tokenizer import TokenizerNotFoundError
from .. import folders
from .other_models import advice

# by kind of `ModelInfo`
_LOADERS = {
    "dit": "WanDiTLoader",
    "vae": "WanVAELoader",
    "t5": "WanT5Loader",
    "clip_vision": "WanCLIPVisionLoader",
    "wav2vec2": "WanAudioEncoderLoader",
}


@contextmanager
def loader_hints() -> Iterator[None]:
    """Ends what is said of a file with what to do: the node that loads such a model, the folder for what is missing,
    how files are loaded anew."""
    try:
        yield
    except WrongModelError as error:
        loader = _LOADERS.get(error.info.kind)
        if loader is None:
            raise
        raise CheckpointError(f"{error} Load it with {loader}.") from None
    except ChangedFileError as error:
        raise CheckpointError(f"{error}: queue the prompt again") from None
    except UnsupportedModelError as error:
        raise CheckpointError(f"{error} {advice(error.info)}") from None
    except TokenizerNotFoundError as error:
        raise ValueError(
            f"{error} Or drop the whole release folder into models/{folders.CATEGORY}."
        ) from None


def check_mapped(stamps: Iterable[stamp.Stamp]) -> None:
    """`stamp.check_mapped` with these hints."""
    with loader_hints():
        stamp.check_mapped(stamps)
