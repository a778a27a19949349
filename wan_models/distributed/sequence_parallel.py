"""Ulysses (arXiv 2309.14509): the tokens of a video shared by the processes of a group.

All but self-attention works on each token alone, so each process takes an equal run of tokens through the blocks. For
self-attention one all-to-all hands every process all tokens of some of the heads, and another brings them back.
Put around the models from outside: attention is swapped, and `run_blocks` splits before and gathers after. A sequence
that does not divide is padded at its end; padding is cut off before attention, so it changes nothing.

What looks at whole latent frames (audio in S2V, faces in Animate) is done by each process for the frames that its
tokens lie in, with no communication at all.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakMethod

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention import Attention
from ..config import DiTConfig
from ..dit.layers import Lengths
from ..dit.speech import SpeechClip
from ..dit.steps import AnimateStepModel, SpeechStepModel, StepModel


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

    def segments(self, e: Tensor, lengths: Lengths) -> tuple[Tensor, Lengths]:
        """Modulation e [B, S, ...] of segments and their lengths -> of the segments that lie in this part."""
        count = e.shape[1]
        lengths = lengths or (self.length // count,) * count
        inside, end = [], 0
        for index, length in enumerate(lengths):
            begin, end = end, end + length
            overlap = min(end, self.stop) - max(begin, self.start)
            if overlap > 0:
                inside.append((index, overlap))
        inside = inside or [(count - 1, 0)]
        inside[-1] = (inside[-1][0], inside[-1][1] + self.size - (self.stop - self.start))
        kept = e[:, inside[0][0] : inside[-1][0] + 1]
        return kept, tuple(overlap for _, overlap in inside) if len(inside) > 1 else None

    def frames(self, count: int, length: int) -> "Frames":
        """Of a video of `count` latent frames that are the first `length` tokens: those that this part lies in.

        Always one at least, for all processes must run the same layers where weights are shared."""
        cells = length // count
        tokens = max(0, min(self.stop, length) - self.start)
        if not tokens:
            return Frames(0, 1, 0, 0, cells)
        first = self.start // cells
        return Frames(first, -(-(self.start + tokens) // cells), self.start - first * cells, tokens, cells)


@dataclass(frozen=True)
class Frames:
    """Latent frames `first` to `last` that hold `tokens` tokens of a part, `before` tokens into the first of them."""

    first: int
    last: int
    before: int
    tokens: int
    cells: int

    def whole(self, x: Tensor) -> Tensor:
        """The part's tokens x [B, L, C] padded to whole frames."""
        after = (self.last - self.first) * self.cells - self.before - self.tokens
        return F.pad(x[:, : self.tokens], (0, 0, self.before, after))

    def part(self, x: Tensor) -> Tensor:
        """The inverse of `whole`, without padding."""
        return x[:, self.before : self.before + self.tokens]


def ulysses(attention: Attention, group: dist.ProcessGroup, length: int) -> Attention:
    """`attention` over all `length` tokens of a group whose processes hold equal parts of them."""
    world = group.size()

    def swapped(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        # q, k and v travel together: [B, L, P, C/P] three times -> [P, 3, B, L, C/P]
        sent = torch.stack([x.unflatten(-1, (world, -1)) for x in (q, k, v)]).movedim(3, 0).contiguous()
        got = torch.empty_like(sent)
        dist.all_to_all_single(got, sent, group=group)
        # one run of tokens from each process, in order; the padding is at the end
        q, k, v = (x.movedim(0, 1).flatten(1, 2)[:, :length] for x in got.unbind(1))
        out = attention(q, k, v, heads // world)
        size = sent.shape[3]
        out = (
            F.pad(out, (0, 0, 0, world * size - length))
            .unflatten(1, (world, size))
            .movedim(1, 0)
            .contiguous()
        )
        back = torch.empty_like(out)
        dist.all_to_all_single(back, out, group=group)
        return back.movedim(0, 2).flatten(2)

    return swapped


def gather(x: Tensor, shard: Shard, group: dist.ProcessGroup) -> Tensor:
    """Parts [B, L, C] of every process -> the whole sequence [B, length, C]."""
    out = x.new_empty(shard.world * x.shape[0], *x.shape[1:])
    dist.all_gather_into_tensor(out, x.contiguous(), group=group)
    return out.unflatten(0, (shard.world, -1)).movedim(0, 1).flatten(1, 2)[:, : shard.length]


def _swap_forward(module: nn.Module, run: Callable[..., Tensor]) -> None:
    """Has run(forward, ...) called in the place of a module's own forward(...).

    By weak references, for both are methods of what the module belongs to: memory of a model that is dropped must not
    wait for Python to look for cycles."""
    forward, swapped = WeakMethod(module.forward), WeakMethod(run)

    def call(*args: Any, **inputs: Any) -> Tensor:
        own, other = forward(), swapped()
        assert own is not None and other is not None
        return other(own, *args, **inputs)

    module.forward = call


class SharedModel(StepModel):
    """A transformer that shares its tokens with the other processes of `group`, once `share` is called."""

    group: dist.ProcessGroup | None = None
    _shard: Shard | None = None

    def forward(self, *args: Any, **inputs: Any) -> Tensor:  # type: ignore[override]
        return self.velocity(*args, **inputs)

    def units(self) -> list[nn.Module]:
        """The parts whose weights are worth gathering by themselves where they are shared."""
        return list(self.blocks)

    def share(self, group: dist.ProcessGroup) -> None:
        """From now on every forward is one of all the group's processes, with equal inputs."""
        if group.size() == 1:
            return
        self.group = group
        for block in self.blocks:
            _swap_forward(block.self_attn, self._attend)  # type: ignore[arg-type]

    def run_blocks(  # type: ignore[override]
        self,
        x: Tensor,
        run_block: Any,
        after: Callable[[int, Tensor], Tensor] | None = None,
        lengths: Lengths = None,
        **inputs: Any,
    ) -> Tensor:
        if self.group is None:
            inputs = inputs if lengths is None else {**inputs, "lengths": lengths}
            return super().run_blocks(x, run_block, after, **inputs)
        self._shard = shard = Shard(self.group.rank(), self.group.size(), x.shape[1])
        inputs["e"], inputs["lengths"] = shard.segments(inputs["e"], lengths)
        inputs["rotary"] = shard.take(inputs["rotary"], dim=0)
        x = super().run_blocks(shard.take(x), run_block, after, **inputs)
        return gather(x, shard, self.group)

    def _attend(self, forward: Any, x: Tensor, rotary: Tensor, attention: Attention) -> Tensor:
        assert self.group is not None and self._shard is not None
        return forward(x, rotary, ulysses(attention, self.group, self._shard.length))


class SharedSpeechModel(SharedModel, SpeechStepModel):
    """`SharedModel` of S2V-14B."""

    def units(self) -> list[nn.Module]:
        injector = self.audio_injector
        return [*self.blocks, *injector.injector, *(norm.linear for norm in injector.injector_adain_layers)]  # type: ignore[misc]

    def _inject(
        self, index: int, hidden: Tensor, length: int, clip: SpeechClip, attention: Attention
    ) -> Tensor:
        if self.group is None or clip.audio is None:
            return super()._inject(index, hidden, length, clip, attention)
        assert self._shard is not None and self.config.speech is not None
        frames = self._shard.frames(clip.audio.shape[1], length)
        if index not in self.config.speech.inject_layers:
            return hidden
        seen = slice(frames.first, frames.last)
        clip = replace(clip, audio=clip.audio[:, seen], modulation=tuple(m[:, seen] for m in clip.modulation))
        video = frames.whole(hidden)
        video = super()._inject(index, video, video.shape[1], clip, attention)
        hidden[:, : frames.tokens] = frames.part(video)
        return hidden


class SharedAnimateModel(SharedModel, AnimateStepModel):
    """`SharedModel` of Animate-14B."""

    def units(self) -> list[nn.Module]:
        return [*self.blocks, *self.face_adapter.fuser_blocks]

    def share(self, group: dist.ProcessGroup) -> None:
        super().share(group)
        if self.group is not None:
            for block in self.face_adapter.fuser_blocks:
                _swap_forward(block, self._look_at_face)

    def _look_at_face(
        self, forward: Any, x: Tensor, k: Tensor, v: Tensor, count: int, attention: Attention
    ) -> Tensor:
        assert self._shard is not None
        frames = self._shard.frames(count, self._shard.length)
        seen = slice(frames.first, frames.last)
        k, v = (faces.unflatten(0, (-1, count))[:, seen].flatten(0, 1) for faces in (k, v))
        out = frames.part(forward(frames.whole(x), k, v, frames.last - frames.first, attention))
        return F.pad(out, (0, 0, 0, x.shape[1] - frames.tokens))


def shared_model(config: DiTConfig) -> type[SharedModel]:
    """The class for a model of that family."""
    if config.speech is not None:
        return SharedSpeechModel
    return SharedModel if config.face is None else SharedAnimateModel
