"""The group of worker processes as one entry of the host's memory management: it goes when memory is needed here, or is
freed by hand."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from torch import nn

from ...wan_models.attention import Backend
from ...wan_models.checkpoints.patches import Patches
from ...wan_models.distributed.group import Group
from ...wan_models.distributed.weights import Recipe

MODES = ["auto", "explicit"]
FSDP = ["auto", "on", "off"]
ATTENTION = [backend.value for backend in Backend]


@dataclass(frozen=True)
class Settings:
    """Settings of a group. gpus: 0 for all (two processes where there is none). mode "auto" picks the degrees,
    "explicit" takes them. fsdp: one of `FSDP`. The rest as in `Group`."""

    gpus: int = 0
    mode: str = "auto"
    cfg_parallel: int = 1
    ulysses: int = 1
    fsdp: str = "auto"
    offload: bool = False
    attention: str = "auto"
    ray_address: str = ""
    timeout: float = 120.0

    @property
    def address(self) -> str:
        return self.ray_address.strip()


class Workers(ModelPatcher):
    """Owner of the group that there is; its processes start with the first job."""

    def __init__(self) -> None:
        device = comfy.model_management.get_torch_device()
        super().__init__(nn.Module(), device, torch.device("cpu"))
        self.model.device = device
        self.group = _group_of(Settings())
        self._measured: list[dict[str, float]] = []

    def start(self, settings: Settings | None = None) -> Group:
        """The group with its processes running: as the settings ask for, for which one of other GPUs is ended; without
        settings the one that there is, of all GPUs if none was asked for yet."""
        if settings is not None:
            group = self.group
            if settings.address != group.address or settings.gpus not in (group.size, group.requested):
                group.close()
                self.group, self._measured = _group_of(settings), []
            self.group.set_timeout(settings.timeout)
        self.group.start()
        return self.group

    def load(
        self,
        recipe: Recipe,
        patches: Callable[[], Patches] = dict,
        version: object = None,
        needed: float = 0.0,
    ) -> str:
        """`Group.load`, for which the models of this process make room on the device that they share."""
        if not self.group.address and str(recipe) not in self.group.loads:
            management = comfy.model_management
            loaded = management.current_loaded_models
            keep = [one for one in loaded if isinstance(one.model, (Workers, WeightlessPatcher))]
            management.free_memory(needed, self.load_device, keep)
        return self.group.load(recipe, patches, version, needed)

    def measured(self) -> list[dict[str, float]]:
        """Measures of each process, see `Worker.measure`; taken once, so that later runs choose the same."""
        if not self._measured:
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


@cache
def the_workers() -> Workers:
    """The one `Workers` of this process."""
    return Workers()


def _group_of(settings: Settings) -> Group:
    check_cancelled = comfy.model_management.throw_exception_if_processing_interrupted
    return Group(settings.gpus, settings.address, settings.timeout, check_cancelled)


class WeightlessPatcher(ModelPatcher):
    """The host's patcher for a network that the workers run, and that has no weights here: there is nothing to load."""

    def model_size(self) -> int:
        return 0

    def load(self, device_to: Any = None, *args: Any, **kwargs: Any) -> None:
        self.model.device = device_to
        self.model.current_weight_patches_uuid = self.patches_uuid

    def model_patches_models(self) -> list[ModelPatcher]:
        """Models that the host loads, and can unload, with this one."""
        return [*super().model_patches_models(), the_workers()]
