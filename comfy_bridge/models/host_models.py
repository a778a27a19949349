"""The host's model objects around our networks: whole timesteps, true estimates of memory, where they are from."""

from pathlib import Path
from typing import Any

import comfy.conds
import comfy.model_base
from torch import Tensor

from ...wan_models.checkpoints.stamp import Stamp
from ...wan_models.content import tracked
from ...wan_models.memory import activation_bytes
from ...wan_models.sampling.schedule import timestep_of
from .. import compat
from .hosted import Hosted
from .identity import files_of
from .kept_conds import KeptCond, converted, kept


class _Official:
    """What our models have in common beside the host's class: whole timesteps, true estimates, where they are from."""

    def __init__(self, model_config: Any, network: Hosted, source: Path, **options: Any) -> None:
        super().__init__(model_config, comfy.model_base.ModelType.FLOW, **options)  # type: ignore[call-arg]
        self.diffusion_model = network
        self.source = source
        self.checkpoint_files = files_of(source)  # as they were when they were read
        self.stamps: tuple[Stamp, ...] = ()  # of those whose bytes are mapped
        self.workspace_bytes = 0
        self.is_converted = False  # whether the weights are in another dtype than in the file

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        return kept(super().extra_conds(**kwargs))  # type: ignore[misc]

    def _apply_model(self, x: Tensor, t: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # kept for process_timestep, which is told only what the host's model_sampling makes of the sigma
        options = kwargs.get("transformer_options") or (args[3] if len(args) > 3 else {})
        self._sigma, self._schedule = t, options.get("sample_sigmas")
        dtype = compat.inference_dtype(self)
        args = tuple(converted(value, dtype, x.device) for value in args)  # type: ignore[assignment]
        kwargs = {name: converted(value, dtype, x.device) for name, value in kwargs.items()}
        return super()._apply_model(x, t, *args, **kwargs)  # type: ignore[misc]

    def process_timestep(self, timestep: Tensor, **kwargs: Any) -> Tensor:
        """The official models are given whole timesteps, int(1000 * sigma), under any model_sampling."""
        whole = timestep_of(self._sigma, self._schedule).to(timestep)
        return super().process_timestep(whole, **kwargs)  # type: ignore[misc]

    def memory_required(self, input_shape: Any, cond_shapes: Any = None, **kwargs: Any) -> float:
        """Bytes of activations in one forward of a latent of `input_shape` [B, C, F, H, W]; none where it runs
        elsewhere."""
        return 0 if self.diffusion_model.remote is not None else self.working_bytes(input_shape)

    def working_bytes(self, shape: Any) -> float:
        """Bytes of activations in one forward of a latent of `shape`, and of unpacking weights."""
        network = self.diffusion_model
        return activation_bytes(network.config, shape, network.compute_dtype) + self.workspace_bytes


class WanBase(_Official, comfy.model_base.WAN21):
    """The host's model object of one of our networks; keeps the host's own Wan conditioning keys working."""


class WanTI2VBase(_Official, comfy.model_base.WAN22):
    """The same for TI2V-5B: known latent frames (noise_mask 0) have timestep 0 and stay as they are."""


class WanSpeechBase(_Official, comfy.model_base.WAN22_S2V):
    """The same for S2V-14B."""


class WanAnimateBase(_Official, comfy.model_base.WAN22_Animate):
    """The same for Animate-14B."""

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        out = super().extra_conds(**kwargs)
        if "face_pixel_values" in out:
            faces = out["face_pixel_values"].cond
            # a still face goes to the device as one picture, and all of them in the precision they are seen in
            faces = faces[:, :, :1] if bool((faces == faces[:, :, :1]).all()) else faces
            out["face_pixel_values"] = KeptCond(tracked(faces.to(compat.inference_dtype(self))))
        if (strength := kwargs.get("face_strength", 1.0)) != 1.0:
            out["face_strength"] = comfy.conds.CONDConstant(strength)
        return out
