"""A pretended graphics card: tensors that say they are on another device, live in main memory, and are counted on their
way there. With it the host streams weights on a machine without a card, through its own code.

Also what stands in the place of comfy-aimdo, which needs a real one: device memory that weights are put into page by
page, as long as there is room."""

import itertools
from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("card")
DEVICE = torch.device("card", 0)


class OnCard(torch.Tensor):
    """A tensor on the card; `held` has its values."""

    @staticmethod
    def __new__(cls, held):
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        out = torch.Tensor._make_wrapper_subclass(cls, held.shape, **layout, device=DEVICE)
        out.held = held
        return out

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return Card().__torch_dispatch__(func, types, args, kwargs)  # where none is entered

    def tolist(self):
        return self.held.tolist()

    def __repr__(self, **_):
        return f"OnCard({self.held!r})"


class Card(TorchDispatchMode):
    """While it is entered there is a card. uploads: how often each address of main memory was copied there."""

    def __init__(self):
        super().__init__()
        self.uploads, self.bytes = Counter(), Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        with self:  # what it is made of is seen here too
            if (out := func.decompose(*args, **kwargs)) is not NotImplemented:
                return out
        given = [x for x in tree_iter((args, kwargs)) if isinstance(x, torch.Tensor)]
        before = {id(x.held): x for x in given if isinstance(x, OnCard)}
        moves = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
        if before and not moves:
            away = [x for x in given if not isinstance(x, OnCard) and x.dim()]
            if away:
                raise RuntimeError(f"{func}: {[tuple(x.shape) for x in away]} are not on the card")
        asked = kwargs.get("device")
        goes = bool(before) if asked is None else torch.device(asked).type == DEVICE.type
        if asked is not None:
            kwargs["device"] = torch.device("cpu")
        if moves:
            source = args[0] if func is torch.ops.aten._to_copy.default else args[1]
            goes = goes if func is torch.ops.aten._to_copy.default else isinstance(args[0], OnCard)
            if goes and not isinstance(source, OnCard) and source.dim():
                self.uploads[source.data_ptr()] += 1
                self.bytes[source.data_ptr()] += source.nbytes
        args, kwargs = tree_map(lambda x: x.held if isinstance(x, OnCard) else x, (args, kwargs))
        out = func(*args, **kwargs)
        if not goes:
            return out

        def on_card(x):
            if not isinstance(x, torch.Tensor):
                return x
            return before[id(x)] if id(x) in before else OnCard(x)

        return tree_map(on_card, out)


class PagedMemory:
    """In the place of `comfy_aimdo.model_vbar.ModelVBAR`: device memory of one model; `room` bytes for all models."""

    room = 0
    made = []

    def __init__(self, size, device):
        self.offset, self.resident, self._serial = 0, {}, itertools.count(1)
        PagedMemory.made.append(self)

    def prioritize(self, *_):
        PagedMemory.made.remove(self)
        PagedMemory.made.append(self)

    def alloc(self, count):
        start, self.offset = self.offset, self.offset + -(-count // 512) * 512
        return self, start, count

    def fault(self, start, size):
        """A signature that stays the same for as long as the bytes are there; None where there is no room."""
        if start not in self.resident:
            for other in PagedMemory.made:  # those of other models go first
                if other is not self and used() + size > PagedMemory.room:
                    other.free_memory(size)
            if used() + size > PagedMemory.room:
                return None
            memory = torch.empty(size, dtype=torch.uint8, device=DEVICE)
            self.resident[start] = next(self._serial).to_bytes(8, "little"), memory
        return self.resident[start][0]

    def unpin(self, *_):
        pass

    def loaded_size(self):
        return sum(memory.nbytes for _, memory in self.resident.values())

    def free_memory(self, wanted):
        freed = 0
        while self.resident and freed < wanted:
            _, (_, memory) = self.resident.popitem()
            freed += memory.nbytes
        return freed


def used():
    return sum(memory.loaded_size() for memory in PagedMemory.made)


class HostBuffer:
    """In the place of `comfy_aimdo.host_buffer.HostBuffer`; nothing is pinned where there is no driver."""

    def __init__(self, *_):
        self.size = 0


def bring_bare(network):
    """Puts the parameters that are in no layer on the card, which the host does in a way that needs a real one."""
    for module in network.modules():
        if next(module.children(), None) is not None:
            for name, parameter in module.named_parameters(recurse=False):
                setattr(module, name, torch.nn.Parameter(OnCard(parameter.data), requires_grad=False))


def pretend(room):
    """Gives the host the card, with dynamic VRAM and `room` bytes for weights; called after it was imported."""
    import comfy.cli_args
    import comfy.memory_management
    import comfy.model_management as management
    import comfy.model_patcher
    import comfy_aimdo.host_buffer
    import comfy_aimdo.model_vbar
    import comfy_aimdo.torch

    PagedMemory.room = room
    comfy_aimdo.model_vbar.ModelVBAR = PagedMemory
    comfy_aimdo.model_vbar.vbars_analyze = lambda *_: 0
    comfy_aimdo.torch.aimdo_to_tensor = lambda place, device: place[0].resident[place[1]][1][: place[2]]
    comfy_aimdo.host_buffer.HostBuffer = HostBuffer
    comfy.cli_args.args.disable_pinned_memory = True
    comfy.memory_management.aimdo_enabled = True
    comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
    pretend_device(management, 1 << 40)


def pretend_device(management, free):
    """Makes the card the host's device, with so many bytes free."""
    management.get_torch_device = management.vae_device = management.text_encoder_device = lambda: DEVICE
    management.vram_state = management.VRAMState.NORMAL_VRAM
    management.get_total_memory = management.get_free_memory = (
        lambda device=None, torch_total_too=False, torch_free_too=False: (
            (free, free) if torch_total_too or torch_free_too else free
        )
    )
    management.soft_empty_cache = lambda *_: None
    plain = torch.tensor  # which makes tensors without asking anybody

    def tensor(data, device=None, **options):
        on_card = device is not None and torch.device(device).type == DEVICE.type
        made = plain(data, device="cpu" if on_card else device, **options)
        return made.to(device) if on_card else made

    torch.tensor = tensor
