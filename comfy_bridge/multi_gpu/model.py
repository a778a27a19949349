"""A MODEL whose forward is done by a group of worker processes, one per GPU; sampling stays here.

So previews, progress, Cancel and every sampler of the host work as ever. The network in this process has names and
shapes of weights, for LoRA loaders, and no weights. What the workers hold is one entry of the host's memory
management (`Workers`): it goes when memory is needed here or is freed by hand.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.weight_adapter
import torch
from torch import Tensor, nn

from ...wan_models.attention import Backend
from ...wan_models.checkpoints.patches import Patch, Patches
from ...wan_models.distributed import plan
from ...wan_models.distributed.group import Group
from ...wan_models.distributed.mesh import Layout, check
from ...wan_models.distributed.weights import Recipe
from ...wan_models.memory import tokens_of
from ...wan_models.vae.base import VideoVAE
from ..models import autoencoder, diffusion, text_encoder
from ..models.foreign_patches import refuse_on_workers, refuse_options_on_workers
from ..models.hosted import Hosted
from ..models.lora import DoRA
from ..models.text_encoder import HostUMT5

MODES = ["auto", "explicit"]
FSDP = ["auto", "on", "off"]
ATTENTION = [backend.value for backend in Backend]
_PREFIX = "diffusion_model."


@dataclass(frozen=True)
class Settings:
    """How a group works. gpus: 0 for all (two processes where there is none). mode "auto" picks the degrees, "explicit"
    takes them. fsdp: one of `FSDP`. The rest as in `Group`."""

    gpus: int = 0
    mode: str = "auto"
    cfg_parallel: int = 1
    ulysses: int = 1
    fsdp: str = "auto"
    offload: bool = False
    attention: str = "auto"
    address: str = ""
    timeout: float = 120.0


_workers: "Workers | None" = None


class Workers(comfy.model_patcher.ModelPatcher):
    """The group as something that the host can unload; there is one at a time."""

    def __init__(self, settings: Settings) -> None:
        device = comfy.model_management.get_torch_device()
        super().__init__(nn.Module(), device, torch.device("cpu"))
        self.model.device = device
        check_cancelled = comfy.model_management.throw_exception_if_processing_interrupted
        self.group = Group(settings.gpus, settings.address, settings.timeout, check_cancelled)
        self._measured: list[dict[str, float]] = []

    def suits(self, settings: Settings) -> bool:
        """Whether this is the group that the settings ask for."""
        group = self.group
        return settings.address == group.address and settings.gpus in (group.size, group.requested)

    def load(
        self, recipe: Recipe, patches: Callable[[], Patches] = dict, version: Any = None, needed: float = 0.0
    ) -> str:
        """`Group.load`, for which the models of this process make room on the device that they share."""
        if not self.group.address and str(recipe) not in self.group.loads:
            management = comfy.model_management
            keep = [
                one
                for one in management.current_loaded_models
                if isinstance(one.model, (Workers, WeightlessPatcher))
            ]
            management.free_memory(needed, self.load_device, keep)
        return self.group.load(recipe, patches, version, needed)

    def measured(self) -> list[dict[str, float]]:
        """What each process can do, looked at when the group is started."""
        if not self.group.is_running or not self._measured:
            self._measured = self.group.measure()
        return self._measured

    def model_size(self) -> int:
        """Bytes that the process on the host's own device holds."""
        return sum(loaded.bytes for loaded in self.group.loads.values())

    def loaded_size(self) -> int:
        return self.model_size()

    def partially_load(self, *args: Any, **kwargs: Any) -> int:
        return 0

    def partially_unload(self, device_to: Any, memory_to_free: int = 0, *args: Any, **kwargs: Any) -> int:
        """Lets models go, the one that has been there longest first."""
        freed = 0
        for key in list(self.group.loads):
            if freed >= memory_to_free:
                break
            freed += self.group.loads[key].bytes
            self.group.drop(key)
        return freed

    def detach(self, unpatch_all: bool = True) -> Any:
        if unpatch_all:
            self.group.close()
        return self.model


def workers_of(settings: Settings) -> Workers:
    """The group for these settings; one of other GPUs is ended for it."""
    global _workers
    if _workers is not None and not _workers.suits(settings):
        _workers.group.close()
        _workers = None
    if _workers is None:
        _workers = Workers(settings)
    _workers.group.set_timeout(settings.timeout)
    return _workers


def current_workers() -> Workers:
    """The group that is there, or one of all GPUs."""
    return workers_of(Settings()) if _workers is None else _workers


class WeightlessPatcher(comfy.model_patcher.ModelPatcher):
    """The host's patcher for a network without weights: there is nothing to load."""

    def model_size(self) -> int:
        return 0

    def load(self, device_to: Any = None, *args: Any, **kwargs: Any) -> None:
        self.model.device = device_to
        self.model.current_weight_patches_uuid = self.patches_uuid

    def model_patches_models(self) -> list:
        """What the host loads, and can unload, with this one."""
        return [*super().model_patches_models(), current_workers()]


class RemotePatcher(WeightlessPatcher):
    """That of a diffusion model, whose patches go to the workers."""

    def pre_run(self) -> None:
        refuse_on_workers(self)
        super().pre_run()
        self.model.diffusion_model.remote.patcher = self

    def cleanup(self) -> None:
        self.model.diffusion_model.remote.patcher = None
        super().cleanup()


class WorkersVelocity:
    """A hosted network's velocity, computed by the workers: for its slot `remote`.

    recipe: of its weights; layout and compute dtype are those of each call. patcher: of the run that is going on."""

    def __init__(self, settings: Settings, recipe: Recipe) -> None:
        self.settings, self.recipe, self.stored = settings, recipe, recipe.stored
        self.patcher: RemotePatcher | None = None
        self._layouts: dict[tuple[int, ...], Layout] = {}

    def __call__(self, network: Hosted, step: Mapping[str, Any], options: dict) -> Tensor:
        refuse_options_on_workers(options)
        assert self.patcher is not None, "the host has called the model outside of a run"
        workers = workers_of(self.settings)
        workers.group.start()
        x, patcher = step["x"], self.patcher
        layout = self._layout(network, workers, x)
        version = (patcher.patches_uuid, tuple(map(id, _parameters(patcher).values())))
        needed = plan.predict(layout, workers.group.size, _job(network, x), workers.measured()).bytes
        recipe = replace(self.recipe, compute=str(x.dtype).removeprefix("torch."), layout=layout)
        key = workers.load(recipe, lambda: patches_of(patcher), version, needed)
        given = {name: value for name, value in step.items() if _is_plain(value)}
        return workers.group.velocity(key, given, self.settings.attention).to(x.device)

    def _layout(self, network: Hosted, workers: Workers, x: Tensor) -> Layout:
        settings, world = self.settings, workers.group.size
        if settings.mode == "explicit" and settings.fsdp != "auto":
            return explicit(settings, world, network.config.num_heads)
        shape = tuple(x.shape)
        if shape not in self._layouts:
            self._layouts[shape], why = choose(settings, network, workers, x)
            logging.info("[Wan2.2] %s", why)
        return self._layouts[shape]


def explicit(settings: Settings, world: int, heads: int) -> Layout:
    """The layout that the settings name; ValueError with the choices where it does not fit."""
    layout = Layout(settings.cfg_parallel, settings.ulysses, settings.fsdp == "on", settings.offload)
    check(layout, world, heads)
    return layout


def _job(network: Hosted, latents: Tensor) -> plan.Job:
    """A forward for latents [B, C, F, H, W] of the dtype that it computes in."""
    size = sum(p.numel() for p in network.parameters()) * network.dtype.itemsize
    tokens = tokens_of(network.config, latents.shape)
    return plan.Job(network.config, size, tokens, latents.shape[0], latents.dtype.itemsize)


def choose(settings: Settings, network: Hosted, workers: Workers, latents: Tensor) -> tuple[Layout, str]:
    """The layout for latents [B, C, F, H, W] of the dtype that the network computes in, and why."""
    world, config = workers.group.size, network.config
    wanted = None if settings.fsdp == "auto" else settings.fsdp == "on"
    degrees = None
    if settings.mode == "explicit":
        degrees = (settings.cfg_parallel, settings.ulysses)
        check(Layout(*degrees, fsdp=True), world, config.num_heads)
    return plan.choose(world, _job(network, latents), workers.measured(), degrees, wanted)


def share(model: Any, settings: Settings) -> tuple[Any, str]:
    """A MODEL of ours as one that the workers run, with everything that was put on it, and a line on the group.

    Raises ValueError on models of other loaders, and where the settings fit neither GPUs nor model."""
    source = model.model
    network = getattr(source, "diffusion_model", None)
    if not isinstance(network, Hosted) or not hasattr(source, "source"):
        raise ValueError("only models of WanDiTLoader can be shared by several GPUs: load this one with it")
    if network.remote is not None:
        raise ValueError(
            "this model is shared by several GPUs already: take one of the two WanMultiGPU nodes out"
        )
    stored = "" if not source.is_converted else str(network.dtype).removeprefix("torch.")
    kind = diffusion.network_kind(network.config)
    patcher = diffusion.build(source.source, network.config, network.dtype, kind, RemotePatcher)
    remote = patcher.model.diffusion_model
    remote.remote = WorkersVelocity(settings, Recipe("dit", str(source.source), stored))
    carry_over(model, patcher)
    diffusion.release_copy(model)

    workers = workers_of(settings)
    workers.group.start()
    world = workers.group.size
    if settings.mode == "explicit":
        check(
            Layout(settings.cfg_parallel, settings.ulysses, settings.fsdp != "off", settings.offload),
            world,
            network.config.num_heads,
        )
        why = f"{settings.cfg_parallel} x CFG-parallel, {settings.ulysses} x Ulysses, FSDP {settings.fsdp}"
    else:
        size = (21, 60, 104) if network.config.family != "ti2v" else (31, 44, 80)
        typical = torch.empty(2, network.config.in_dim, *size, device="meta", dtype=remote.compute_dtype)
        why = "for 832x480, 81 frames (TI2V: 1280x704, 121): " + choose(settings, remote, workers, typical)[1]
    devices = ", ".join(f"{place['device']} of {place['host']}" for place in workers.group.places)
    return patcher, f"{world} workers ({devices}): {why}"


class RemoteUMT5(HostUMT5):
    """The text encoder with its weights shared by the workers; its own stay on the meta device."""

    is_remote = True
    recipe: Recipe

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        return self  # there is nothing to move or to cast

    def encode(self, ids: Tensor, mask: Tensor, on_layer: Any = None) -> Tensor:
        workers = current_workers()
        workers.group.start()
        size = sum(p.numel() for p in self.parameters()) * self.compute_dtype.itemsize
        key = workers.load(self.recipe, needed=size / workers.group.size)
        return workers.group.encode_text(key, ids, mask).to(ids.device)


def load_text_encoder(path: Path, dtype: str) -> Any:
    """A CLIP as of `text_encoder.load_text_encoder`, whose encoder all GPUs run, each with a part of the weights."""
    clip = text_encoder.load_text_encoder(path, dtype, kind=RemoteUMT5)
    network = clip.cond_stage_model
    compute = str(network.compute_dtype).removeprefix("torch.")
    network.recipe = Recipe(
        "t5", str(path), "" if dtype == "default" else compute, compute, Layout(fsdp=True)
    )
    clip.patcher = WeightlessPatcher(network, clip.patcher.load_device, clip.patcher.offload_device)
    return clip


class _DecodesRemotely(VideoVAE):
    """Mixed into a VAE of `autoencoder`: decoding is split over the workers by columns. Encoding stays here."""

    recipe: Recipe

    def decode(self, z: Tensor, **options: Any) -> Tensor:  # type: ignore[override]
        workers = current_workers()
        comfy.model_management.load_models_gpu([workers])  # so that the host knows of them
        workers.group.start()
        return workers.group.decode(workers.load(self.recipe), z.float()).to(z.device, self.dtype)


_VAES = {
    version: type(f"Remote{kind.__name__}", (_DecodesRemotely, kind), {})
    for version, kind in autoencoder.NETWORKS.items()
}


def load_vae(path: Path, dtype: str) -> Any:
    """A VAE as of `autoencoder.load_vae` that all GPUs decode with, each making a strip of the video."""
    vae = autoencoder.load_vae(path, dtype, _VAES)
    stored = str(autoencoder.DTYPES[dtype]).removeprefix("torch.")
    vae.first_stage_model.recipe = Recipe("vae", str(path), stored, stored)
    vae.memory_used_decode = lambda shape, dtype: (
        1
    )  # what it takes, it takes elsewhere; the host divides by it
    return vae


# what a clone of the host's patcher takes over, as far as this host has it
_CARRIED = (
    "patches", "patches_uuid", "object_patches", "model_options", "attachments", "callbacks",
    "wrappers", "injections", "hook_patches", "forced_hooks", "hook_mode",
)  # fmt: skip


def carry_over(source: Any, target: Any) -> None:
    """What was put on one MODEL, on another of the same weights."""
    if getattr(source, "weight_wrapper_patches", None):
        raise ValueError(
            "this model's weights are wrapped by another node, which does not work on several GPUs"
        )
    copy = source.clone()
    for name in _CARRIED:
        if hasattr(copy, name):
            setattr(target, name, getattr(copy, name))


def _is_plain(value: Any) -> bool:
    return isinstance(value, (Tensor, int, float, bool, str))


# --- patches of the host as plain data ---


def _parameters(patcher: Any) -> dict[str, Tensor]:
    """Bare parameters that were replaced, by official name."""
    return {
        name.removeprefix(_PREFIX): value
        for name, value in patcher.object_patches.items()
        if name.startswith(_PREFIX) and isinstance(value, Tensor)
    }


def patches_of(patcher: Any) -> Patches:
    """The host's weight patches of a MODEL in the form that workers merge. ValueError on kinds they do not know."""
    if getattr(patcher, "current_hooks", None):
        raise ValueError("LoRA hooks on prompts do not work on several GPUs: use a LoRA loader on the model")
    out: dict[str, list[Patch]] = {}
    for key, patches in patcher.patches.items():
        out[key.removeprefix(_PREFIX)] = [_plain(key, *patch) for patch in patches if patch[0] != 0]
    for name, value in _parameters(patcher).items():
        out[name] = [Patch("set", 1.0, 1.0, {"diff": value.detach()})]
    return {name: patches for name, patches in out.items() if patches}


def _plain(key: str, strength: float, change: Any, keep: float, offset: Any, function: Any) -> Patch:
    adapters = comfy.weight_adapter
    if offset is not None or function is not None:
        raise ValueError(f"the change of {key} is to a part of the weight, which several GPUs do not support")
    if isinstance(change, DoRA):
        up, down, alpha, mid, scale, _ = change.weights
        return _patch("lora", strength, keep, up=up, down=down, alpha=alpha, mid=mid, dora_scale=scale)
    weights = getattr(change, "weights", ())
    if type(change) is adapters.LoRAAdapter and weights[4] is None and weights[5] is None:
        up, down, alpha, mid, *_ = weights
        return _patch("lora", strength, keep, up=up, down=down, alpha=alpha, mid=mid)
    if type(change) is adapters.LoHaAdapter and weights[7] is None:
        w1_a, w1_b, alpha, w2_a, w2_b, t1, t2, _ = weights
        return _patch(
            "loha", strength, keep, w1_a=w1_a, w1_b=w1_b, w2_a=w2_a, w2_b=w2_b, t1=t1, t2=t2, alpha=alpha
        )
    if type(change) is adapters.LoKrAdapter and weights[8] is None:
        w1, w2, alpha, w1_a, w1_b, w2_a, w2_b, t2, _ = weights
        return _patch(
            "lokr",
            strength,
            keep,
            w1=w1,
            w2=w2,
            w1_a=w1_a,
            w1_b=w1_b,
            w2_a=w2_a,
            w2_b=w2_b,
            t2=t2,
            alpha=alpha,
        )
    if isinstance(change, tuple) and (len(change) == 1 or change[0] in ("diff", "set")):
        kind, (tensor, *_) = ("diff", change) if len(change) == 1 else change
        return _patch(kind, strength, keep, diff=tensor)
    raise ValueError(
        f"the change of {key} is of a kind ({type(change).__name__}) that several GPUs do not support: load the file "
        "with WanLoRA, or run on one GPU"
    )


def _patch(kind: str, strength: float, keep: float, **parts: Any) -> Patch:
    return Patch(
        kind, float(strength), float(keep), {name: part for name, part in parts.items() if part is not None}
    )
