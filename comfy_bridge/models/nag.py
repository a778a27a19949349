"""Normalized Attention Guidance on a MODEL of ours: a wrapper of the host's hands it to each call of the model, which
gives it to its blocks, or as plain data to the workers."""

from dataclasses import dataclass
from typing import Any

from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...wan_models.dit.text_guidance import NAG
from ..host_types import Conditioning
from .hosted.models import SCHEDULE_KEY
from .hosted.networks import NAG_OPTION, Hosted


@dataclass(frozen=True)
class NAGWrapper:
    """Guides the calls of a model by `nag` from `start` to `end` of its schedule, 0 to 1, as the host counts it."""

    nag: NAG
    start: float
    end: float

    def __call__(
        self,
        executor: Any,
        x: Tensor,
        t: Tensor,
        c_concat: Any = None,
        c_crossattn: Any = None,
        control: Any = None,
        transformer_options: dict | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Around the host's BaseModel.apply_model, which goes on in `executor`; t: noise levels [B]."""
        options = transformer_options or {}
        to_sigma = executor.class_obj.model_sampling.percent_to_sigma
        if to_sigma(self.end) <= float(t.max()) <= to_sigma(self.start):
            options = {**options, NAG_OPTION: self.nag}
        return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)


def nag_of(negative: Conditioning, scale: float, tau: float, alpha: float) -> NAG:
    """Guidance away from the text of a CONDITIONING; see `NAG`. ValueError where that is not one text
    for the whole video."""
    if len(negative) != 1 or len(negative[0][0]) != 1:
        raise ValueError(
            "the negative of WanNAG must be one text, and several were combined: connect it to a text encoding node"
        )
    if SCHEDULE_KEY in negative[0][1]:
        raise ValueError(
            "the negative of WanNAG has a schedule, which it does not follow: encode it with WanT5Encode"
        )
    return NAG(negative[0][0], scale, tau, alpha)


def with_nag(model: Any, nag: NAG, start: float = 0.0, end: float = 1.0) -> Any:
    """A MODEL of ours whose positive prompt is guided, in the place of what another call of this has put on it.

    start, end: the part of the schedule, 0 to 1. Raises ValueError on MODELs of other loaders, on the text of another
    encoder, and on a part that ends before it begins or goes past the schedule."""
    network = getattr(model.model, "diffusion_model", None)
    if not isinstance(network, Hosted):
        raise ValueError(
            "WanNAG works inside the models of WanDiTLoader, and this MODEL is of another loader: load the file with "
            "WanDiTLoader"
        )
    if nag.text.shape[-1] != network.config.text_dim:
        raise ValueError(
            f"the negative of WanNAG has text features {nag.text.shape[-1]} wide, and the model looks at "
            f"{network.config.text_dim}: encode it with the text encoder of the prompt"
        )
    if start > end:
        raise ValueError(f"start_percent of WanNAG ({start:g}) is after its end_percent ({end:g}): swap them")
    patched = model.clone()
    patched.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, NAG_OPTION)
    patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, NAG_OPTION, NAGWrapper(nag, start, end))
    return patched
