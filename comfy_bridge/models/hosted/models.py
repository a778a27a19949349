"""The host's model objects around our networks: whole timesteps, true estimates of memory, where they are from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.conds
import comfy.model_base
from einops import rearrange
from torch import Tensor

from ....wan_models.checkpoints.files.stamp import Stamp
from ....wan_models.content import tracked
from ....wan_models.dit.text_schedule import Schedule
from ....wan_models.images.resize import resize_area
from ....wan_models.memory import activation_bytes
from ....wan_models.sampling.schedule import timestep_of
from ... import compat
from ..compiled import block_by_block
from ..identity import files_of
from ..kept_conds import KeptCond, converted, kept
from .networks import SCHEDULE_COND, Hosted

SCHEDULE_KEY = "wan_prompt_schedule"
"""Under this key a CONDITIONING holds the schedule of its text: what `Schedule.plain` gives."""


@dataclass(frozen=True)
class Storage:
    """Storage of weights. taken_for: what their file was taken for, see `load_diffusion_model`. is_converted: whether
    they are in another dtype than in the file. workspace_bytes: what unpacking them takes in a forward."""

    taken_for: str = "auto"
    is_converted: bool = False
    workspace_bytes: int = 0


class _Official:
    """Common to our models beside the host's class: whole timesteps, true estimates, where they are from."""

    def __init__(self, model_config: Any, network: Hosted, source: Path, **options: Any) -> None:
        super().__init__(model_config, comfy.model_base.ModelType.FLOW, **options)  # type: ignore[call-arg]
        self.diffusion_model = network
        self.source = source
        self.checkpoint_files = files_of(source)  # as they were when they were read
        self.stamps: tuple[Stamp, ...] = ()  # of those whose bytes are mapped
        self.storage = Storage()

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        out = kept(super().extra_conds(**kwargs))  # type: ignore[misc]
        if (schedule := kwargs.get(SCHEDULE_KEY)) is not None:
            out[SCHEDULE_COND] = comfy.conds.CONDConstant(Schedule.of_plain(schedule))
        return out

    def _apply_model(self, x: Tensor, t: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # kept for process_timestep, which is told only what the host's model_sampling makes of the sigma
        options = kwargs.get("transformer_options") or (args[3] if len(args) > 3 else {})
        self._sigma, self._schedule = t, options.get("sample_sigmas")
        if (window := options.get("context_window")) is not None and not compat.cuts_conditioning():
            args = tuple(self._cut(value, x, window) for value in args)
            kwargs = {name: self._cut(value, x, window) for name, value in kwargs.items()}
        dtype = compat.inference_dtype(self)
        args = tuple(converted(value, dtype, x.device) for value in args)  # type: ignore[assignment]
        kwargs = {name: converted(value, dtype, x.device) for name, value in kwargs.items()}
        with block_by_block(self):
            return super()._apply_model(x, t, *args, **kwargs)  # type: ignore[misc]

    def _cut(self, value: Any, x: Tensor, window: Any) -> Any:
        """Conditioning of a whole video at the frames of x, a context window of older hosts, which cut x alone."""
        is_whole = isinstance(value, Tensor) and value.dim() == x.dim() and value.shape[2] != x.shape[2]
        return value[:, :, window.index_list] if is_whole else value

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
        return activation_bytes(network.config, shape, network.compute_dtype) + self.storage.workspace_bytes


class WanBase(_Official, comfy.model_base.WAN21):
    """The host's model object of one of our networks; keeps the host's own Wan conditioning keys working."""


class WanTI2VBase(_Official, comfy.model_base.WAN22):
    """The same for TI2V-5B: known latent frames (noise_mask 0) have timestep 0 and stay as they are."""


class _Clips(_Official):
    """The same for models whose conditioning runs at rates of its own, which a host that cuts none of it in context
    windows cannot give them in parts."""

    longer = ""
    """The node that makes longer videos with this model."""

    def _cut(self, value: Any, x: Tensor, window: Any) -> Any:
        raise ValueError(
            "this ComfyUI's context windows cut the video and leave sound, poses and faces as long as they are: take "
            f"the node out, and make longer videos with {self.longer}; or update ComfyUI"
        )


class WanSpeechBase(_Clips, comfy.model_base.WAN22_S2V):
    """The same for S2V-14B."""

    longer = "WanSpeechToVideo"


class WanAnimateBase(_Clips, comfy.model_base.WAN22_Animate):
    """The same for Animate-14B."""

    longer = "WanPoseAnimate"

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        out = super().extra_conds(**kwargs)
        if "face_pixel_values" in out:
            faces = out["face_pixel_values"].cond
            # a still face goes to the device as one picture, and all of them in the precision they are seen in
            faces = faces[:, :, :1] if bool((faces == faces[:, :, :1]).all()) else faces
            faces = _in_size(faces, self.diffusion_model.config.face.size)
            out["face_pixel_values"] = KeptCond(tracked(faces.to(compat.inference_dtype(self))))
        if (strength := kwargs.get("face_strength", 1.0)) != 1.0:
            out["face_strength"] = comfy.conds.CONDConstant(strength)
        return out


def _in_size(faces: Tensor, size: int) -> Tensor:
    """Faces [B, 3, T, H, W] in the size that a model sees: conditioning has that of the release."""
    if faces.shape[-2:] == (size, size):
        return faces
    frames = resize_area(rearrange(faces, "b c t h w -> (b t) h w c"), size, size)
    return rearrange(frames, "(b t) h w c -> b c t h w", b=len(faces))


class WanAnimate2Base(_Clips, comfy.model_base.WAN21):
    """The host's model object of Animate-2-14B, with the conditioning keys of its WanAnimate2ToVideo, which older hosts
    do not know."""

    longer = "WanAnimate2"

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        out = super().extra_conds(**kwargs)
        if (driving := kwargs.get("pose_video_latent")) is not None:
            out["pose_latents"] = KeptCond(tracked(self.process_latent_in(driving)))
        if (seen := kwargs.get("clip_vision_output_pose")) is not None:
            out["clip_fea_pose"] = KeptCond(tracked(seen.penultimate_hidden_states))
        if (text := kwargs.get("cross_attn_pose")) is not None:
            out["context_pose"] = KeptCond(tracked(text))
        for name in ("pose_strength", "reference_strength"):
            if (strength := kwargs.get(name, 1.0)) != 1.0:
                out[name] = comfy.conds.CONDConstant(strength)
        if place := kwargs.get("driving_cache"):
            out["driving_cache"] = comfy.conds.CONDConstant(place)
        return out

    def resize_cond_for_context_window(
        self, cond_key: str, cond_value: Any, window: Any, x_in: Tensor, device: Any, **kwargs: Any
    ) -> Any:
        """Called by newer hosts only: the driving video has no frame for the reference's slot."""
        if cond_key == "pose_latents":
            from comfy.context_windows import slice_cond

            return slice_cond(cond_value, window, x_in, device, temporal_dim=2, temporal_offset=1)
        inherited: Any = super()
        return inherited.resize_cond_for_context_window(cond_key, cond_value, window, x_in, device, **kwargs)
