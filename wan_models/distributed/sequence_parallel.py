"""Ulysses (arXiv 2309.14509): the tokens of a video shared by the processes of a group.

All but self-attention works on each token alone, so each process takes an equal run of tokens through the blocks. For
self-attention one all-to-all hands every process all tokens of some of the heads, and another brings them back.
`Ulysses` goes into a model's slot `sequence_parallel`; the model splits before its blocks and gathers after them. A
sequence that does not divide is padded at its end; padding is cut off before attention, so it changes nothing.

What looks at whole latent frames (audio in S2V, faces in Animate) is done by each process for the frames that its
tokens lie in, with no communication at all.
"""

from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..attention import Attention
from ..dit.layers import Lengths
from ..dit.tokens import FrameSpan, Run


@dataclass(frozen=True)
class Shard:
    """The tokens `start` to `stop` of a sequence of `length` that a process works on, padded to `size`."""

    rank: int
    world: int
    length: int

    @property
    def size(self) -> int:
        return -(-self.length // self.world)

    @property
    def start(self) -> int:
        return min(self.rank * self.size, self.length)

    @property
    def stop(self) -> int:
        return min(self.start + self.size, self.length)

    def take(self, x: Tensor, dim: int = 1) -> Tensor:
        """A copy of this part of x's dimension `dim`, zeros past the end."""
        part = x.narrow(dim, self.start, self.stop - self.start)
        padding = self.size - part.shape[dim]
        if not padding:
            return part.clone(memory_format=torch.contiguous_format)
        return torch.cat([part, part.new_zeros(*part.shape[:dim], padding, *part.shape[dim + 1 :])], dim)

    def segments(self, count: int, lengths: Lengths) -> tuple[slice, Lengths]:
        """Which of `count` segments of these lengths lie in this part, and their lengths here."""
        lengths = lengths or (self.length // count,) * count
        inside, end = [], 0
        for index, length in enumerate(lengths):
            begin, end = end, end + length
            overlap = min(end, self.stop) - max(begin, self.start)
            if overlap > 0:
                inside.append((index, overlap))
        inside = inside or [(count - 1, 0)]
        inside[-1] = (inside[-1][0], inside[-1][1] + self.size - (self.stop - self.start))
        lengths = tuple(overlap for _, overlap in inside) if len(inside) > 1 else None
        return slice(inside[0][0], inside[-1][0] + 1), lengths

    def frames(self, video: FrameSpan) -> FrameSpan:
        """Latent frames that this part lies in, of a whole video, the first of all tokens.

        Always one at least, for all processes must run the same layers where weights are shared."""
        cells = video.cells
        tokens = max(0, min(self.stop, video.tokens) - self.start)
        if not tokens:
            return FrameSpan(0, 1, 0, 0, cells)
        first = self.start // cells
        return FrameSpan(first, -(-(self.start + tokens) // cells), self.start - first * cells, tokens, cells)


class Ulysses:
    """The sequence parallelism of a group of processes, all of which run every forward with equal inputs."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group

    def split(self, whole: Run) -> Run:
        """This process's equal run of the tokens."""
        shard = self._shard(whole.hidden.shape[1])
        segments, lengths = shard.segments(whole.modulation.shape[1], whole.lengths)
        return replace(
            whole,
            hidden=shard.take(whole.hidden),
            time=whole.time[:, segments],
            modulation=whole.modulation[:, segments],
            rotary=shard.take(whole.rotary, dim=0),
            lengths=lengths,
            frames=shard.frames(whole.frames),
        )

    def over_all(self, attention: Attention, length: int) -> Attention:
        return ulysses(attention, self.group, length)

    def gather(self, part: Tensor, length: int) -> Tensor:
        return gather(part, self._shard(length), self.group)

    def _shard(self, length: int) -> Shard:
        return Shard(self.group.rank(), self.group.size(), length)


def ulysses(attention: Attention, group: dist.ProcessGroup, length: int) -> Attention:
    """`attention` over all `length` tokens of a group whose processes hold equal parts of them."""
    world = group.size()

    def exchanged(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        batch, size, width = q.shape
        sent = q.new_empty(world, 3, batch, size, width // world)
        for place, x in enumerate((q, k, v)):
            sent[:, place] = rearrange(x, "b l (p c) -> p b l c", p=world)
        del q, k, v, x
        got = torch.empty_like(sent)
        dist.all_to_all_single(got, sent, group=group)
        del sent
        # one run of tokens from each process, in order; the padding is at the end. Each in memory of its own: keys and
        # values may be kept
        q, k, v = (rearrange(x, "p b l c -> b (p l) c")[:, :length] for x in got.unbind(1))
        del got
        out = attention(q, k, v, heads // world)
        del q, k, v
        out = F.pad(out, (0, 0, 0, world * size - length))
        out = rearrange(out, "b (p l) c -> p b l c", p=world).contiguous()
        back = torch.empty_like(out)
        dist.all_to_all_single(back, out, group=group)
        return rearrange(back, "p b l c -> b l (p c)")

    return exchanged


def gather(x: Tensor, shard: Shard, group: dist.ProcessGroup) -> Tensor:
    """Parts [B, L, C] of every process -> the whole sequence [B, length, C]."""
    out = x.new_empty(shard.world * x.shape[0], *x.shape[1:])
    dist.all_gather_into_tensor(out, x.contiguous(), group=group)
    return rearrange(out, "(p b) l c -> b (p l) c", p=shard.world)[:, : shard.length]
