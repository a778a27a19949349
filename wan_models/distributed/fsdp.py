"""Weights shared by the processes of a group (FSDP2, arXiv 2304.11277): each keeps 1/n of every parameter, and all
gather a block's just before it runs.

`shard` is applied to a model on the meta device; `local_part` cuts each tensor as it comes from the checkpoint, so no
process ever holds more than one whole tensor beside its part.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor


def shard(model: nn.Module, units: Iterable[nn.Module], mesh: DeviceMesh, offload: bool = False) -> None:
    """Shards `model`, gathering the parameters of each of `units` by themselves and the rest at once.

    offload keeps the parts in host memory, pinned where there is a GPU."""
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
    if not isinstance(param, DTensor):
        return whole.to(device)
    mesh = param.device_mesh
    parts = whole.chunk(mesh.size(), dim=0)
    rank = mesh.get_local_rank()
    part = parts[rank] if rank < len(parts) else whole[:0]
    # a copy: a view would keep the file's whole tensor, or what was made of it
    part = part.to(device, copy=True).contiguous()
    return DTensor.from_local(
        part, mesh, param.placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )


def resident_bytes(model: nn.Module) -> int:
    """Bytes of the parameters and buffers that this process itself keeps."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum((t.to_local() if isinstance(t, DTensor) else t).nbytes for t in tensors)
