"""A Wan diffusion transformer as the host's MODEL.

`WanBase` and its kin are the host's model objects around a network of `hosted`; `load_diffusion_model` makes the
patcher.
"""

from pathlib import Path
from typing import Any

import comfy.conds
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension
import comfy.supported_models
import torch
from torch import Tensor

from ...wan_models.checkpoints.detect import ModelInfo
from ...wan_models.checkpoints.loading import expect, load_into, to_stored
from ...wan_models.checkpoints.reader import open_model
from ...wan_models.config import DiTConfig
from ...wan_models.content import tracked
from ...wan_models.families import FAMILIES
from ...wan_models.memory import activation_bytes
from ...wan_models.sampling.schedule import timestep_of
from .. import compat
from .foreign_patches import warn_of_unused
from .hints import loader_hints
from .hosted import HostAnimateDiT, HostDiT, Hosted, HostSpeechDiT
from .identity import files_of
from .kept_conds import KeptCond, converted, kept
from .packed import PackedPatcher, ops, set_unpacked_dtype, workspace_bytes

DTYPES = {
    "default": None,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}
# the official code computes in bfloat16, so it goes first where a device can do both half precisions
INFERENCE_DTYPES = [torch.bfloat16, torch.float16, torch.float32]


class _Official:
    """What our models have in common beside the host's class: whole timesteps, true estimates, where they are from."""

    def __init__(self, model_config: Any, network: Hosted, source: Path, **options: Any) -> None:
        super().__init__(model_config, comfy.model_base.ModelType.FLOW, **options)  # type: ignore[call-arg]
        self.diffusion_model = network
        self.source = source
        self.checkpoint_files = files_of(source)  # as they were when they were read
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

    def working_bytes(self, shape: Any) -> float:
        batch, channels, frames, *size = shape
        # reference and motion together have about the tokens of three latent frames
        return super().working_bytes((batch, channels, frames + 3, *size))


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

    def working_bytes(self, shape: Any) -> float:
        network = self.diffusion_model
        face = network.config.face
        # the first, widest level of the motion encoder, blurred and not
        pixels = network.motion_encoder.BATCH * face.channels[0] * face.size**2
        return super().working_bytes(shape) + 4 * pixels * network.compute_dtype.itemsize


_HOST_KINDS = {
    "ti2v": ("WAN22_T2V", "t2v"),
    "s2v": ("WAN22_S2V", "s2v"),
    "animate": ("WAN22_Animate", "animate"),
}


def _model_config(config: DiTConfig, dtype: torch.dtype, load_device: Any) -> Any:
    """The host's description of the model, so that its nodes (shift, LoRA, EasyCache, saving) know what it is."""
    name, model_type = _HOST_KINDS.get(
        config.family, ("WAN21_I2V", "i2v") if config.image_dim else ("WAN21_T2V", "t2v")
    )
    out = getattr(comfy.supported_models, name)(
        {
            "image_model": "wan2.1",
            "model_type": model_type,
            "dim": config.dim,
            "ffn_dim": config.ffn_dim,
            "num_heads": config.num_heads,
            "num_layers": config.num_layers,
            "in_dim": config.in_dim,
            "out_dim": config.out_dim,
            "disable_unet_model_creation": True,
        }
    )
    out.sampling_settings = {**out.sampling_settings, "shift": FAMILIES[config.family].release.shift}
    manual_cast = comfy.model_management.unet_manual_cast(dtype, load_device, INFERENCE_DTYPES)
    compat.set_inference_dtype(out, dtype, manual_cast, load_device)
    return out


# network, the host's model object around it, and what that is told, by family
_KINDS: dict[str, tuple[type[Hosted], type, dict[str, Any]]] = {
    "t2v": (HostDiT, WanBase, {"image_to_video": False}),
    "i2v": (HostDiT, WanBase, {"image_to_video": True}),
    "ti2v": (HostDiT, WanTI2VBase, {"image_to_video": True}),
    "s2v": (HostSpeechDiT, WanSpeechBase, {}),
    "animate": (HostAnimateDiT, WanAnimateBase, {}),
}


def _stored_dtype(info: ModelInfo) -> torch.dtype:
    """Of weights nobody chose a precision for: 16 bits and less stay as in the file and need no second copy in
    memory; float32 becomes what the host would store. Packed weights count as what they are unpacked to."""
    if not info.packed and info.dtype.itemsize < 4:
        return info.dtype
    return comfy.model_management.unet_dtype(
        model_params=info.parameters, supported_dtypes=INFERENCE_DTYPES, weight_dtype=torch.float32
    )


def network_kind(config: DiTConfig) -> type[Hosted]:
    """The class of network for models of that family."""
    return _KINDS[config.family][0]


def build(
    path: Path, config: DiTConfig, stored: torch.dtype, network: type[Hosted], kind: type | None = None
) -> Any:
    """A patcher (a `kind` of it) around a model whose network, of that class, has no weights yet."""
    _, model_kind, options = _KINDS[config.family]
    load_device = comfy.model_management.get_torch_device()
    model_config = _model_config(config, stored, load_device)
    # manual_cast layers cast a weight to its input's dtype: the fp32 parts of the model stay fp32 over bf16 weights
    with torch.device("meta"):
        made = network(config, ops).to(stored)
    made.dtype, made.compute_dtype = stored, model_config.manual_cast_dtype or stored
    set_unpacked_dtype(made, stored)
    made.eval().requires_grad_(False)
    model = model_kind(model_config, made, path, **options)
    patcher = compat.make_patcher(model, load_device, comfy.model_management.unet_offload_device(), kind)
    patcher.add_callback(comfy.patcher_extension.CallbacksMP.ON_PRE_RUN, warn_of_unused)
    return patcher


def load_diffusion_model(path: str | Path, dtype: str = "default", disable_dynamic: bool = False) -> Any:
    """Loads a DiT file or folder as a MODEL.

    dtype: of the stored weights, one of `DTYPES`; "default" keeps 16 bits and less, packed weights too, as they are
    in the file. Bare parameters and norms, tiny but sensitive, keep the precision of the file.
    Raises CheckpointError (a ValueError) where the file is broken or holds something else."""
    checkpoint = open_model(path)
    with loader_hints():
        info = expect(checkpoint, "dit")
    stored = DTYPES[dtype] or _stored_dtype(info)
    keep_packed = bool(info.packed) and dtype == "default"
    as_in_file = keep_packed or (dtype == "default" and stored == info.dtype)
    # packed layers unpack themselves, which the patcher of dynamic VRAM does not know of
    kind = PackedPatcher if keep_packed else comfy.model_patcher.ModelPatcher if disable_dynamic else None
    patcher = build(Path(path), info.config, stored, network_kind(info.config), kind)
    model = patcher.model
    network = model.diffusion_model
    model.is_converted = not as_in_file

    convert = (lambda name, weight: to_stored(network, name, weight, stored)) if model.is_converted else None
    load_into(network, checkpoint, convert, keep_packed)
    model.workspace_bytes = workspace_bytes(network)
    # at the end of every run, and where the host lets go of the model
    for moment in (
        comfy.patcher_extension.CallbacksMP.ON_CLEANUP,
        comfy.patcher_extension.CallbacksMP.ON_DETACH,
    ):
        patcher.add_callback(moment, network.clear_cache)
    compat.archive_dtypes(network)
    compat.remember_origin(patcher, load_diffusion_model, str(path), dtype)
    return patcher


def release_copy(patcher: Any) -> None:
    """Puts the file's own tensors, which take no memory of this process, in the place of converted ones.

    For a model that is worked on elsewhere. It stays as usable as before, its layers then convert at each use. What
    was unpacked from the file stays: layers that unpack at each use take another patcher than this one."""
    model = patcher.model
    if not model.is_converted or patcher.loaded_size():
        return
    file = open_model(model.source)
    if not expect(file, "dit").packed:
        load_into(model.diffusion_model, file)
        model.is_converted = False
