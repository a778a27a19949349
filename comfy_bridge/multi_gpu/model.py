"""A MODEL whose forward is done by a group of worker processes, one per GPU; sampling stays here.

So previews, progress, Cancel and every sampler of the host work as ever. The network in this process has names and
shapes of weights, for LoRA loaders, and no weights.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...wan_models.config import DiTConfig
from ...wan_models.distributed import plan
from ...wan_models.distributed.mesh import Layout, check
from ...wan_models.distributed.weights import Recipe
from ...wan_models.dit.kept_keys import kept_bytes
from ...wan_models.memory import tokens_of
from ...wan_models.wording import counted
from ..models import diffusion
from ..models.foreign_patches import refuse_on_workers, refuse_options_on_workers
from ..models.hosted.networks import Hosted
from .patches import carry_over, patches_of, version_of
from .workers import Settings, WeightlessPatcher, Workers, the_workers


class RemotePatcher(WeightlessPatcher):
    """Patcher of a diffusion model, whose patches go to the workers."""

    def pre_run(self) -> None:
        refuse_on_workers(self)
        super().pre_run()
        self.model.diffusion_model.remote.begin(self)

    def cleanup(self) -> None:
        self.model.diffusion_model.remote.end()
        super().cleanup()


class WorkersVelocity:
    """A hosted network's velocity, computed by the workers: for its slot `remote`.

    recipe: of its weights; layout and compute dtype are those of each call."""

    def __init__(self, settings: Settings, recipe: Recipe) -> None:
        self.settings, self.recipe = settings, recipe
        self._patcher: RemotePatcher | None = None
        self._layouts: dict[tuple[int, ...], Layout] = {}

    def begin(self, patcher: RemotePatcher) -> None:
        """Begins a run, whose weights have the patches of `patcher`."""
        self._patcher = patcher

    def end(self) -> None:
        """Ends the run."""
        self._patcher = None

    def __call__(self, network: Hosted, step: Mapping[str, Any], options: dict) -> Tensor:
        refuse_options_on_workers(options)
        assert self._patcher is not None, "the host has called the model outside of a run"
        workers = the_workers()
        group = workers.start(self.settings)
        x, patcher = step["x"], self._patcher
        layout = self._layout(network, workers, x)
        needed = plan.predict(layout, group.size, _job(network, x), workers.measured()).bytes
        recipe = replace(self.recipe, compute=str(x.dtype).removeprefix("torch."), layout=layout)
        key = workers.load(recipe, lambda: patches_of(patcher), version_of(patcher), needed)
        given = {name: value for name, value in step.items() if _is_plain(value)}
        if given.get("keep") == "auto":
            given["keep"] = _place(
                network, layout, given, min(m["free"] for m in workers.measured()) - needed
            )
        return group.velocity(key, given, self.settings.attention).to(x.device)

    def _layout(self, network: Hosted, workers: Workers, x: Tensor) -> Layout:
        settings, world = self.settings, workers.group.size
        if settings.mode == "explicit" and (settings.fsdp != "auto" or settings.offload):
            return explicit(settings, world, network.config)
        shape = tuple(x.shape)
        if shape not in self._layouts:
            self._layouts[shape], why = choose(settings, network, workers, x)
            logging.info("[Wan2.2] %s", why)
        return self._layouts[shape]


def explicit(settings: Settings, world: int, config: DiTConfig) -> Layout:
    """The layout that the settings name, sharding weights where they allow that; ValueError with the choices where it
    does not fit."""
    layout = Layout(settings.cfg_parallel, settings.ulysses, settings.fsdp != "off", settings.offload)
    check(layout, world, config.num_heads)
    return layout


def _job(network: Hosted, latents: Tensor) -> plan.Job:
    """A forward for latents [B, C, F, H, W] of the dtype that it computes in."""
    size = sum(p.numel() for p in network.parameters()) * network.dtype.itemsize
    return plan.Job(network.config, size, tuple(latents.shape), latents.dtype)


def _place(network: Hosted, layout: Layout, given: Mapping[str, Any], free: float) -> str:
    """Place where all processes keep the keys and values of a driving video; they must agree on it. free: bytes of each
    beside all else that it holds."""
    if (driving := given.get("driving")) is None:
        return "off"
    tokens = tokens_of(network.config, driving.shape)
    needed = kept_bytes(network.config, tokens, given["x"].dtype.itemsize) / layout.ulysses
    return "gpu" if needed <= free else "off"


def choose(settings: Settings, network: Hosted, workers: Workers, latents: Tensor) -> tuple[Layout, str]:
    """The layout for latents [B, C, F, H, W] of the dtype that the network computes in, and why."""
    world, degrees = workers.group.size, None
    if settings.mode == "explicit":
        layout = explicit(settings, world, network.config)
        degrees = (layout.cfg, layout.ulysses)
    fsdp = None if settings.fsdp == "auto" else settings.fsdp == "on"
    return plan.choose(world, _job(network, latents), workers.measured(), degrees, fsdp)


def share(model: ModelPatcher, settings: Settings) -> tuple[ModelPatcher, str]:
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
    stored = str(network.dtype).removeprefix("torch.") if source.storage.is_converted else ""
    patcher = diffusion.build(source.source, network.config, network.dtype, RemotePatcher)
    patcher.model.storage = replace(source.storage, workspace_bytes=0)  # nothing is unpacked here
    remote = patcher.model.diffusion_model
    files, taken_for = str(source.checkpoint_files), source.storage.taken_for
    recipe = Recipe("dit", str(source.source), stored, files=files, taken_for=taken_for)
    remote.remote = WorkersVelocity(settings, recipe)
    carry_over(model, patcher)
    diffusion.release_copy(model)

    return patcher, _report(settings, remote)


def _report(settings: Settings, network: Hosted) -> str:
    """A line on the group, which is started for it, and on how it will share the network's work."""
    workers = the_workers()
    group = workers.start(settings)
    if settings.mode == "explicit":
        explicit(settings, group.size, network.config)
        fsdp = "on, weights in host memory" if settings.offload else settings.fsdp
        how = f"{settings.cfg_parallel} x CFG-parallel, {settings.ulysses} x Ulysses, FSDP {fsdp}"
    else:
        size = (21, 60, 104) if network.config.family != "ti2v" else (31, 44, 80)
        typical = torch.empty(2, network.config.in_dim, *size, device="meta", dtype=network.compute_dtype)
        how = (
            "for 832x480, 81 frames (TI2V: 1280x704, 121): " + choose(settings, network, workers, typical)[1]
        )
    devices = ", ".join(f"{place['device']} of {place['host']}" for place in group.places)
    return f"{counted(group.size, 'worker')} ({devices}): {how}"


def _is_plain(value: Any) -> bool:
    return isinstance(value, (Tensor, int, float, bool, str, tuple))
