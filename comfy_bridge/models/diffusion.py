"""A Wan diffusion transformer as the host's MODEL: the patcher around one of `hosted.models`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension
import comfy.supported_models
import torch
from torch import Tensor

from ...wan_models import families
from ...wan_models.checkpoints.detect import ModelInfo
from ...wan_models.checkpoints.loading import load_into, to_stored
from ...wan_models.checkpoints.reader import Checkpoint
from ...wan_models.config import DiTConfig
from ...wan_models.models import build_network, open_as
from .. import compat
from .compiled import chosen_passes
from .foreign_patches import warn_of_unused
from .hints import loader_hints
from .hosted.families import FAMILIES
from .hosted.models import Storage
from .loaded_files import watch
from .packed import quantized
from .packed.layers import ops, set_unpacked_dtype, workspace_bytes
from .packed.patcher import packed_kind

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


def _model_config(config: DiTConfig, dtype: torch.dtype, load_device: Any) -> Any:
    """The host's description of the model, so that its nodes (shift, LoRA, EasyCache, saving) know what it is."""
    name, model_type = FAMILIES[config.family].described(config)
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
    out.sampling_settings = {**out.sampling_settings, "shift": families.FAMILIES[config.family].release.shift}
    manual_cast = comfy.model_management.unet_manual_cast(dtype, load_device, INFERENCE_DTYPES)
    compat.set_inference_dtype(out, dtype, manual_cast, load_device)
    return out


def _stored_dtype(info: ModelInfo) -> torch.dtype:
    """Dtype of weights nobody chose a precision for: 16 bits and less stay as in the file and need no second copy in
    memory; float32 becomes what the host would store. Packed weights count as what they are unpacked to."""
    if not info.packed and info.dtype.itemsize < 4:
        return info.dtype
    return comfy.model_management.unet_dtype(
        model_params=info.parameters, supported_dtypes=INFERENCE_DTYPES, weight_dtype=torch.float32
    )


def build(
    path: Path,
    config: DiTConfig,
    stored: torch.dtype,
    kind: type | None = None,
    packed: Checkpoint | None = None,
) -> Any:
    """A patcher (a `kind` of it) around a model whose network has no weights yet.

    packed: the checkpoint where its weights are to stay as they are stored in it."""
    family = FAMILIES[config.family]
    load_device = comfy.model_management.get_torch_device()
    model_config = _model_config(config, stored, load_device)
    compute = model_config.manual_cast_dtype or stored
    if packed is None:
        of_host = quantized.products(stored, compute, load_device)
    elif (of_host := quantized.layers(packed, compute, load_device)) is None:
        kind = packed_kind(kind)
    # manual_cast layers cast a weight to its input's dtype: the fp32 parts of the model stay fp32 over bf16 weights
    network = build_network(config, of_host or ops, stored, family.network)
    network.compute_dtype = compute
    network.use(chosen_passes(load_device))
    set_unpacked_dtype(network, stored)
    model = family.model(model_config, network, path, **family.options)
    patcher = compat.make_patcher(model, load_device, comfy.model_management.unet_offload_device(), kind)
    patcher.add_callback(comfy.patcher_extension.CallbacksMP.ON_PRE_RUN, warn_of_unused)
    return patcher


def load_diffusion_model(
    path: str | Path, dtype: str = "default", kind: str = "auto", disable_dynamic: bool = False
) -> Any:
    """Loads a DiT file or folder as a MODEL.

    dtype: of the stored weights, one of `DTYPES`; "default" keeps 16 bits and less, packed weights too, as they are
    in the file. Bare parameters and norms, tiny but sensitive, keep the precision of the file. kind: what a file is
    taken for that does not say whether it is image-to-video or Animate-2, one of `KINDS`.
    Raises CheckpointError (a ValueError) where the file is broken or holds something else."""
    with loader_hints():
        checkpoint, info = open_as(path, "dit", kind)
    stored = DTYPES[dtype] or _stored_dtype(info)
    keep_packed = bool(info.packed) and dtype == "default"
    as_in_file = keep_packed or (dtype == "default" and stored == info.dtype)
    other = comfy.model_patcher.ModelPatcher if disable_dynamic else None
    patcher = build(Path(path), info.config, stored, other, checkpoint if keep_packed else None)
    network = patcher.model.diffusion_model

    def convert(name: str, weight: Tensor) -> Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()  # a large model takes half a minute
        return to_stored(network, name, weight, stored)

    load_into(network, checkpoint, None if as_in_file else convert, keep_packed)
    watch(patcher, checkpoint.stamps)
    patcher.model.storage = Storage(kind, not as_in_file, workspace_bytes(network))
    # at the end of every run, and where the host lets go of the model
    for moment in (
        comfy.patcher_extension.CallbacksMP.ON_CLEANUP,
        comfy.patcher_extension.CallbacksMP.ON_DETACH,
    ):
        patcher.add_callback(moment, network.clear_cache)
    compat.archive_dtypes(network)
    compat.remember_origin(patcher, load_diffusion_model, str(path), dtype, kind)
    return patcher


def release_copy(patcher: Any) -> None:
    """Puts the file's own tensors, which take no memory of this process, in the place of converted ones.

    For a model that is worked on elsewhere. It stays as usable as before, its layers then convert at each use. What
    was unpacked from the file stays: layers that unpack at each use take another patcher than this one."""
    model = patcher.model
    if not model.storage.is_converted or patcher.loaded_size():
        return
    checkpoint, info = open_as(model.source, "dit")
    if not info.packed:
        load_into(model.diffusion_model, checkpoint)
        model.storage = replace(model.storage, is_converted=False)
