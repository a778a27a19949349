"""What to do, in the words of this pack's nodes, where a file holds another model than a loader takes."""

from collections.abc import Iterator
from contextlib import contextmanager

from ...wan_models.checkpoints.errors import CheckpointError, UnsupportedModelError, WrongModelError
from .other_models import road

# by kind of `ModelInfo`
_LOADERS = {
    "dit": "WanDiTLoader",
    "vae": "WanVAELoader",
    "t5": "WanT5Loader",
    "clip_vision": "WanCLIPVisionLoader",
}


@contextmanager
def loader_hints() -> Iterator[None]:
    """Ends the message of a file that holds another model with the node that loads it."""
    try:
        yield
    except WrongModelError as error:
        loader = _LOADERS.get(error.info.kind)
        if loader is None:
            raise
        raise CheckpointError(f"{error} Load it with {loader}.") from None
    except UnsupportedModelError as error:
        raise CheckpointError(f"{error} {road(error.info)}") from None
