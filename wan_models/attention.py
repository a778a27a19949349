"""One attention call, several kernels behind it.

Models take any callable `attention(q, k, v, heads)` on [B, L, H * D] tensors. `get_attention` gives one by name;
kernels are imported at first use. An explicit choice that cannot run is an error, only AUTO falls back.
"""

import importlib.util
from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


class Attention(Protocol):
    """softmax(q k^T / sqrt(D)) v, without a mask."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        """q [B, Lq, H*D], k and v [B, Lk, H*D] -> [B, Lq, H*D]."""


class Backend(str, Enum):
    """Kernels by the names that users choose them by."""

    AUTO = "auto"
    SDPA = "sdpa"
    FLASH2 = "flash2"
    FLASH3 = "flash3"
    FLASH4 = "flash4"
    SAGE = "sage"
    XFORMERS = "xformers"


INSTALL = {
    Backend.FLASH2: "pip install flash-attn --no-build-isolation",
    Backend.FLASH3: "build it from the folder hopper of github.com/Dao-AILab/flash-attention",
    Backend.FLASH4: "pip install --pre flash-attn-4",
    Backend.SAGE: "pip install sageattention",
    Backend.XFORMERS: "pip install xformers",
}
# the module that each kernel is imported from
_MODULES = {
    Backend.FLASH2: "flash_attn",
    Backend.FLASH3: "flash_attn_interface",
    Backend.FLASH4: "flash_attn.cute",
    Backend.SAGE: "sageattention",
    Backend.XFORMERS: "xformers",
}
# the others take float32 too
_HALF_ONLY = (Backend.FLASH2, Backend.FLASH3, Backend.FLASH4, Backend.SAGE)
# what AUTO tries on a GPU, fastest exact kernel first; sageattention quantises, so it is never chosen unasked
_AUTO_ORDER = (Backend.FLASH4, Backend.FLASH3)


@cache
def _cudnn_first() -> list[SDPBackend]:
    """cuDNN's kernel beats torch's own flash kernel on Hopper and newer, and loses before."""
    own = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    hopper = torch.cuda.get_device_capability() >= (9, 0)
    return [SDPBackend.CUDNN_ATTENTION, *own] if hopper else [*own[:2], SDPBackend.CUDNN_ATTENTION, own[2]]


def sdpa(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """torch's scaled_dot_product_attention."""
    q, k, v = (rearrange(x, "b l (h d) -> b h l d", h=heads) for x in (q, k, v))
    if q.is_cuda:
        with sdpa_kernel(_cudnn_first(), set_priority=True):
            out = F.scaled_dot_product_attention(q, k, v)
    else:
        out = F.scaled_dot_product_attention(q, k, v)
    return rearrange(out, "b h l d -> b l (h d)")


def biased(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor) -> Tensor:
    """torch's attention with `bias` [Lk], in the dtype of q, added to the logits of every query."""
    q, k, v = (rearrange(x, "b l (h d) -> b h l d", h=heads) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None, None, None])
    return rearrange(out, "b h l d -> b l (h d)")


def _flat(kernel: Callable) -> Attention:
    """Puts a kernel over [B, L, H, D] under our signature; some return (output, softmax statistics)."""

    def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        out = kernel(*(rearrange(x, "b l (h d) -> b l h d", h=heads) for x in (q, k, v)))
        return rearrange(out[0] if isinstance(out, tuple) else out, "b l h d -> b l (h d)")

    return attention


def _load(backend: Backend) -> Attention:
    """Imports a kernel; ImportError where its package is absent or broken."""
    if backend is Backend.FLASH2:
        from flash_attn import flash_attn_func

        return _flat(flash_attn_func)
    if backend is Backend.FLASH3:
        from flash_attn_interface import flash_attn_func

        return _flat(flash_attn_func)
    if backend is Backend.FLASH4:
        from flash_attn.cute import flash_attn_func

        return _flat(flash_attn_func)
    if backend is Backend.SAGE:
        from sageattention import sageattn

        return _flat(lambda q, k, v: sageattn(q, k, v, tensor_layout="NHD"))
    if backend is Backend.XFORMERS:
        from xformers.ops import memory_efficient_attention

        return _flat(memory_efficient_attention)
    return sdpa


@cache
def _why_not(backend: Backend) -> str:
    """Reason why a kernel cannot run here; "" where it can."""
    if backend in (Backend.AUTO, Backend.SDPA):
        return ""
    if not torch.cuda.is_available():
        return "it needs a GPU"
    try:
        missing = importlib.util.find_spec(_MODULES[backend]) is None
    except ImportError:
        missing = True
    if missing:
        return f"package {_MODULES[backend]} is not installed. Install it: {INSTALL[backend]}"
    capability = torch.cuda.get_device_capability()
    if backend is Backend.FLASH3 and capability[0] != 9:
        return "it runs on Hopper GPUs only"
    if backend is Backend.FLASH4 and capability[0] < 9:
        return "it runs on Hopper GPUs and newer only"
    try:
        _load(backend)
    except Exception as error:  # a kernel built for another torch fails in many ways while it is imported
        return f"package {_MODULES[backend]} does not load: {error}. Install one for this torch: {INSTALL[backend]}"
    return ""


def _why_not_for(backend: Backend, dtype: torch.dtype, device: str) -> str:
    """Reason why a kernel does not take tensors of that dtype and kind of device; "" where it does."""
    if backend is Backend.SDPA:
        return ""
    if device != "cuda":
        return f"it runs on a GPU, and this model is on the {device.upper()}"
    if backend in _HALF_ONLY and dtype not in (torch.float16, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        return f"it takes float16 and bfloat16, and this model computes in {name}: load its weights as bf16"
    return ""


def available() -> dict[Backend, str]:
    """Every kernel with "" where it can run here, else with the reason why not."""
    return {backend: _why_not(backend) for backend in Backend}


@cache
def _auto() -> Attention:
    return _or_sdpa(next((b for b in _AUTO_ORDER if not _why_not(b)), Backend.SDPA))


def _or_sdpa(backend: Backend) -> Attention:
    """A kernel, and torch's own for what it does not take."""
    kernel = _load(backend)

    def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        takes = not _why_not_for(backend, q.dtype, q.device.type)
        return (kernel if takes else sdpa)(q, k, v, heads)

    return sdpa if backend is Backend.SDPA else attention


def _or_error(backend: Backend) -> Attention:
    """A kernel that says what it does not take."""
    kernel = _load(backend)

    def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        reason = _why_not_for(backend, q.dtype, q.device.type)
        if reason:
            raise ValueError(f"attention {backend.value!r} cannot be used: {reason}, or choose 'auto'.")
        return kernel(q, k, v, heads)

    return sdpa if backend is Backend.SDPA else attention


def get_attention(backend: Backend | str = Backend.AUTO) -> Attention:
    """The kernel of that name. ValueError where the name is unknown or the kernel cannot run here.

    Given tensors of a dtype or on a device that its kernel does not take, "auto" goes to torch's own, and any other
    raises ValueError."""
    try:
        backend = Backend(backend)
    except ValueError:
        raise ValueError(
            f"unknown attention {backend!r}; choose one of {', '.join(b.value for b in Backend)}"
        ) from None
    if backend is Backend.AUTO:
        return _auto()
    reason = _why_not(backend)
    if reason:
        raise ValueError(f"attention {backend.value!r} cannot be used: {reason}, or choose 'auto'.")
    return _or_error(backend)
