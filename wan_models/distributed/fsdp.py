"""Weights shared by the processes of a group (FSDP2, arXiv 2304.11277): each keeps 1/n of every parameter, and all
gather a block's just before it runs.

`shard` is applied to a model on the meta device; `local_part` cuts each tensor as it comes from the checkpoint, so no
process ever holds more than one whole tensor beside its part. What torch has for it is imported where weights are
shared: it takes a third of a process's start.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh


def shard(model: nn.Module, units: Iterable[nn.Module], mesh: DeviceMesh, offload: bool = False) -> None:
    """Shards `model`, gathering the parameters of each of `units` by themselves and the rest at once.

    offload keeps the parts in host memory, pinned where there is a GPU."""
    from torch.distributed.fsdp import (
        CPUOffloadPolicy,
        OffloadPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )

    policy = CPUOffloadPolicy(pin_memory=torch.cuda.is_available()) if offload else OffloadPolicy()
    for unit in units:
        fully_shard(unit, mesh=mesh, reshard_after_forward=True, offload_policy=policy)
        if hasattr(unit, "keys_values"):  # of face blocks: called by itself, once per clip
            register_fsdp_forward_method(unit, "keys_values")
    fully_shard(model, mesh=mesh, reshard_after_forward=True, offload_policy=policy)
    if hasattr(model, "prepare"):  # of transformers: called by itself, once per clip
        register_fsdp_forward_method(model, "prepare")


def local_part(param: Tensor, whole: Tensor, device: torch.device) -> Tensor:
    """This process's part of `whole`: all of it, or, where `param` is sharded, a slice of the first dimension."""
    if not is_sharded(param):
        return whole.to(device)
    from torch.distributed.tensor import DTensor

    assert isinstance(param, DTensor)
    mesh = param.device_mesh
    parts = whole.chunk(mesh.size(), dim=0)
    rank = mesh.get_local_rank()
    part = parts[rank] if rank < len(parts) else whole[:0]
    # a copy: a view would keep the file's whole tensor, or what was made of it
    part = part.to(device, copy=True).contiguous()
    return DTensor.from_local(
        part, mesh, param.placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a part of a tensor that processes share."""
    return hasattr(tensor, "to_local")


def own_part(tensor: Tensor) -> Tensor:
    """What this process itself keeps of a tensor."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def resident_bytes(model: nn.Module) -> int:
    """Bytes of the parameters and buffers that this process itself keeps."""
    return sum(own_part(t).nbytes for t in (*model.parameters(), *model.buffers()))
