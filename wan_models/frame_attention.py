"""Attention of a video's tokens to each other and, frame by frame, to tokens of another video (Wan-Animate-2).

A softmax over several sets of keys is put together from one over each: exp of a set's log-sum-exp is its share, and a
number added to all logits of a set is added to its log-sum-exp. torch's kernels return it; with others, which do not,
each frame's queries are given all their keys in one call. Both are exact, and neither needs a kernel of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from .attention import Attention, biased, sdpa

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of one block's attention, [B, L, H * D] each."""


@dataclass(frozen=True)
class FrameKeys:
    """Keys and values that a video attends to beside its own tokens.

    cells: tokens of a latent frame. driving: keys and values of the frames that drive frames 1, 2 ..., one row of a
    batch or as many as queries have; None for none. bias: added to the logits of the tokens of frame 1. reference: what
    the values of frame 0 are multiplied by."""

    cells: int
    driving: KeysValues | None = None
    bias: float = 0.0
    reference: float = 1.0

    def around(self, kernel: Attention) -> Attention:
        """`kernel` over all tokens of a video, and over these."""

        def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
            if self.reference != 1.0:
                v = torch.cat([v[:, : self.cells] * self.reference, v[:, self.cells :]], dim=1)
            if self.driving is None and not self.bias:
                return kernel(q, k, v, heads)
            sums = _sums_of(q, heads) if kernel is sdpa or self.bias else None
            if sums is not None:
                return self._merged(sums, q, k, v, heads)
            return self._by_frame(_masked if self.bias else kernel, q, k, v, heads)

        return attention

    def _frames(self, q: Tensor) -> list[slice]:
        return [slice(start, start + self.cells) for start in range(0, q.shape[1], self.cells)]

    def _driving(self, index: int, batch: int) -> KeysValues | None:
        """Driving keys and values of latent frame `index`; None where it has none."""
        if self.driving is None or not index:
            return None
        rows = slice((index - 1) * self.cells, index * self.cells)
        k, v = (x[:, rows].expand(batch, -1, -1) for x in self.driving)
        return k, v

    def _merged(self, sums: "WithSums", q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        """Each frame's queries over each set of keys by itself, put together in float32."""
        out = torch.empty_like(q)
        cells, length = self.cells, k.shape[1]
        sets = [(slice(0, length), 0.0)]
        if self.bias:
            sets = [
                (slice(0, cells), 0.0),
                (slice(cells, 2 * cells), self.bias),
                (slice(2 * cells, length), 0.0),
            ]
        for index, frame in enumerate(self._frames(q)):
            keys = [(k[:, rows], v[:, rows], bias) for rows, bias in sets if rows.start < length]
            if (driving := self._driving(index, q.shape[0])) is not None:
                keys.append((*driving, 0.0))
            out[:, frame] = _together(sums, q[:, frame], keys, heads)
        return out

    def _by_frame(self, kernel: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        """Each frame's queries over all their keys in one call."""
        out, length = torch.empty_like(q), k.shape[1]
        more = {"first": self.cells, "bias": self.bias} if kernel is _masked else {}
        # in inference in memory of which only the end changes from frame to frame
        longer = None if q.requires_grad or self.driving is None else (self._longer(k), self._longer(v))
        for index, frame in enumerate(self._frames(q)):
            keys, driving = (k, v), self._driving(index, q.shape[0])
            if driving is not None and longer is not None:
                for whole, part in zip(longer, driving, strict=True):
                    whole[:, length:] = part
                keys = longer
            elif driving is not None:
                keys = torch.cat([k, driving[0]], dim=1), torch.cat([v, driving[1]], dim=1)
            out[:, frame] = kernel(q[:, frame], *keys, heads, **more)
        return out

    def _longer(self, x: Tensor) -> Tensor:
        """A copy of x [B, L, C] with room for a frame more."""
        out = x.new_empty(x.shape[0], x.shape[1] + self.cells, x.shape[2])
        out[:, : x.shape[1]] = x
        return out


WithSums = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""q [B, H, Lq, D], k and v [B, H, Lk, D] -> result [B, H, Lq, D] and float32 log-sum-exp of its logits [B, H, Lq]."""


def _cpu_sums(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)


def _flash_sums(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[:2]


def _efficient_sums(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    out, sums, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True)
    return out, sums[..., : q.shape[2]]  # the kernel pads them


def _sums_of(q: Tensor, heads: int) -> WithSums | None:
    """torch's kernel for such queries that returns log-sum-exps; None where there is none, and in training, for no
    gradient goes through them."""
    if q.requires_grad:
        return None
    if q.device.type == "cpu":
        return _cpu_sums
    if q.device.type != "cuda" or (q.shape[2] // heads) % 8:
        return None
    is_half = q.dtype in (torch.float16, torch.bfloat16)
    return _flash_sums if is_half and torch.backends.cuda.is_flash_attention_available() else _efficient_sums


def _together(sums: WithSums, q: Tensor, keys: list[tuple[Tensor, Tensor, float]], heads: int) -> Tensor:
    """Attention of q [B, Lq, H*D] over the union of sets of keys, whose logits each have a number added."""
    q = rearrange(q, "b l (h d) -> b h l d", h=heads)
    total: Tensor | None = None
    result = q
    for k, v, bias in keys:
        k, v = (rearrange(x, "b l (h d) -> b h l d", h=heads) for x in (k, v))
        out, share = sums(q, k, v)
        share = share + bias
        if total is None:
            result, total = out.float(), share
            continue
        both = torch.logaddexp(total, share)
        result = result * (total - both).exp().unsqueeze(-1) + out * (share - both).exp().unsqueeze(-1)
        total = both
    return rearrange(result, "b h l d -> b l (h d)")


def _masked(q: Tensor, k: Tensor, v: Tensor, heads: int, first: int, bias: float) -> Tensor:
    """torch's attention with `bias` added to the logits of the `first` tokens after as many others."""
    mask = q.new_zeros(k.shape[1])
    mask[first : 2 * first] = bias
    return biased(q, k, v, heads, mask)
