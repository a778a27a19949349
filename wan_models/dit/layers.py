"""The layers all Wan diffusion transformers are made of.

Precision follows the official code under bfloat16 autocast: the residual stream, modulation, norm statistics,
time embedding and head are float32; linear layers and attention run in `compute_dtype`. Activations are cast
at the layer's door, and every layer of `ops` casts its weight to its input's dtype.

What is done to each token alone stands in `passes`, where fused kernels can drop in.
"""

import math
from collections.abc import Callable
from types import ModuleType
from typing import TypedDict

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..attention import Attention
from ..config import DiTConfig
from ..rope import RotaryTable
from .passes import PLAIN, Passes, changeable
from .pieces import Lengths, in_pieces
from .text_guidance import TextKernel, plain


def sinusoidal_embedding(t: Tensor, dim: int) -> Tensor:
    """Timesteps [N] -> [N, dim] in float32, cosines first; computed in float64 as the official code does."""
    frequency = 10000.0 ** -(torch.arange(dim // 2, dtype=torch.float64, device=t.device) / (dim // 2))
    angle = torch.outer(t.double(), frequency)
    return torch.cat([angle.cos(), angle.sin()], dim=1).float()


class Projections(nn.Module):
    """The layers around multi-head attention, with RMS-normed queries and keys."""

    passes: Passes = PLAIN

    def __init__(self, config: DiTConfig, ops: ModuleType) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.q = ops.Linear(config.dim, config.dim)
        self.k = ops.Linear(config.dim, config.dim)
        self.v = ops.Linear(config.dim, config.dim)
        self.o = ops.Linear(config.dim, config.dim)
        norm = (lambda: ops.RMSNorm(config.dim, eps=config.eps)) if config.qk_norm else nn.Identity
        self.norm_q = norm()
        self.norm_k = norm()

    def normed(
        self, norm: nn.Module, x: Tensor, rotary: RotaryTable | None = None, out: Tensor | None = None
    ) -> Tensor:
        """Queries or keys x [B, L, C] as a projection gave them -> normed, and rotated where there are positions.

        Computed in float32; in inference in x's own memory, or in that of `out`."""
        return self.passes.norm_rope(x, norm, self.num_heads, rotary, out)


class SelfAttention(Projections):
    """Attention between the tokens of a video, rotated by their positions."""

    def forward(self, x: Tensor, rotary: RotaryTable, attention: Attention, reuse: bool = False) -> Tensor:
        """x [B, L, C] in the compute dtype -> [B, L, C]. reuse: the memory of x may be overwritten."""
        v = self.v(x)
        k = self.normed(self.norm_k, self.k(x), rotary)
        q = self.normed(self.norm_q, self.q(x), rotary, x if reuse else None)
        out = attention(q, k, v, self.num_heads)
        del q, k, v  # so that the last layer's result can take their memory
        return self.o(out)


class CrossAttention(Projections):
    """Attention from the video's tokens to the text's; zero-padded text rows are attended like any other.

    Models with CLIP image context attend to the image's tokens apart, and add the two results."""

    def __init__(self, config: DiTConfig, ops: ModuleType) -> None:
        super().__init__(config, ops)
        if config.image_dim:
            self.k_img = ops.Linear(config.dim, config.dim)
            self.v_img = ops.Linear(config.dim, config.dim)
            self.norm_k_img = ops.RMSNorm(config.dim, eps=config.eps)

    def forward(self, x: Tensor, context: Tensor, image: Tensor | None, attention: Attention) -> Tensor:
        """x [B, L, C], context [B, L_text, C] and image [B, L_image, C] in the compute dtype -> [B, L, C]."""
        return self.o(self.attend(x, context, image, attention, plain(attention)))

    def attend(
        self, x: Tensor, context: Tensor, image: Tensor | None, attention: Attention, to_image: Attention
    ) -> Tensor:
        """Result of `forward` before its last layer; to_image: the kernel for the few tokens of the image."""
        q = self.normed(self.norm_q, self.q(x))
        if isinstance(attention, TextKernel):
            k, k_negative = attention.both(context, self.keys)
            v, v_negative = attention.both(context, self.v)
            out = attention(q, k, v, self.num_heads)
            out = attention.guide(out, q, k_negative, v_negative, self.num_heads)
        else:
            out = attention(q, self.keys(context), self.v(context), self.num_heads)
        if image is not None:
            k = self.normed(self.norm_k_img, self.k_img(image))
            out = changeable(out).add_(to_image(q, k, self.v_img(image), self.num_heads))
        return out

    def keys(self, context: Tensor) -> Tensor:
        """Keys of a text [B, L_text, C], of that shape."""
        return self.normed(self.norm_k, self.k(context))


class ImageEmbedding(nn.Module):
    """CLIP image features -> tokens of the model's width. Source: MLPProj of the official code."""

    def __init__(self, config: DiTConfig, ops: ModuleType) -> None:
        super().__init__()
        width, dim = config.image_dim, config.dim
        self.proj = nn.Sequential(
            ops.LayerNorm(width),
            ops.Linear(width, width),
            nn.GELU(),
            ops.Linear(width, dim),
            ops.LayerNorm(dim),
        )
        if config.image_positions:
            self.emb_pos = nn.Parameter(torch.zeros(1, config.image_positions, width))

    def forward(self, features: Tensor) -> Tensor:
        """[B, L, width], 257 rows per image -> [B, L, C]."""
        if hasattr(self, "emb_pos"):
            features = features[:, : self.emb_pos.shape[1]]
            features = features + self.emb_pos[:, : features.shape[1]].to(features)
        return self.proj(features)


Layer = Callable[[Callable[[], Tensor]], Tensor]
"""A layer over tokens [B, L, C] that are made when it asks for them, so that nobody else holds their memory."""


class BlockInputs(TypedDict):
    """What `Block.forward` takes beside the tokens, by its names."""

    e: Tensor
    context: Tensor
    rotary: RotaryTable
    attention: Attention
    cross_attention: Attention
    image: Tensor | None
    lengths: Lengths


Through = Callable[[Tensor], Tensor]
"""A whole block over tokens [B, L, C], whose memory it may change."""


class Block(nn.Module):
    """One transformer block: self-attention, cross-attention to the text, feed-forward."""

    passes: Passes = PLAIN
    self_attention_class: type[SelfAttention] = SelfAttention
    cross_attention_class: type[CrossAttention] = CrossAttention

    def __init__(self, config: DiTConfig, ops: ModuleType) -> None:
        super().__init__()
        dim, eps = config.dim, config.eps
        self.norm1 = ops.LayerNorm(dim, eps=eps, elementwise_affine=False)
        self.self_attn = self.self_attention_class(config, ops)
        self.norm3 = ops.LayerNorm(dim, eps=eps) if config.cross_attn_norm else nn.Identity()
        self.cross_attn = self.cross_attention_class(config, ops)
        self.norm2 = ops.LayerNorm(dim, eps=eps, elementwise_affine=False)
        self.ffn = nn.Sequential(
            ops.Linear(dim, config.ffn_dim),
            nn.GELU(approximate="tanh"),
            ops.Linear(config.ffn_dim, dim),
        )
        self.modulation = nn.Parameter(torch.zeros(1, 6, dim))

    def forward(
        self,
        x: Tensor,
        e: Tensor,
        context: Tensor,
        rotary: RotaryTable,
        attention: Attention,
        cross_attention: Attention | None = None,
        image: Tensor | None = None,
        lengths: Lengths = None,
    ) -> Tensor:
        """x [B, L, C] float32, changed in place; e [B, S, 6, C] float32, one row of six per segment of tokens;
        context [B, L_text, C] and image [B, L_image, C] in the compute dtype -> [B, L, C] float32.

        attention: kernel of the self-attention; cross_attention: that of text and image, where it is another."""
        dtype = context.dtype

        def attend(make: Callable[[], Tensor]) -> Tensor:
            return self.self_attn(make(), rotary, attention, reuse=True)

        def add_context(x: Tensor) -> Tensor:
            return changeable(x).add_(
                self.cross_attn(self.norm3(x).to(dtype), context, image, cross_attention or attention)
            )

        return self.run(x, e, dtype, attend, add_context, lengths)

    def run(
        self,
        x: Tensor,
        e: Tensor,
        dtype: torch.dtype,
        attend: Layer,
        add_context: Callable[[Tensor], Tensor],
        lengths: Lengths = None,
    ) -> Tensor:
        """The block around any self-attention `attend`, and around `add_context`, which returns the residual stream
        [B, L, C] with the cross-attention added. dtype: of what layers are given."""
        change = (self.modulation.to(e).unsqueeze(1) + e).chunk(6, dim=2)

        def add_modulated(x: Tensor, norm: nn.Module, change: tuple[Tensor, ...], layer: Layer) -> Tensor:
            """x + gate * layer(modulated norm of x), in x's own memory; change: shift, scale and gate."""
            shift, scale, gate = change
            y = layer(lambda: self.passes.modulated_norm(x, norm, shift, scale, lengths, dtype))
            return self.passes.add_gated(x, y, gate, lengths)

        x = add_modulated(x, self.norm1, change[:3], attend)
        x = add_context(x)
        return add_modulated(x, self.norm2, change[3:], self.feed_forward)

    def feed_forward(self, make: Callable[[], Tensor]) -> Tensor:
        """The feed-forward `ffn` of the tokens that `make` gives; holds none of them while its last layer runs."""
        first, activation, last = self.ffn
        hidden = first(make())
        hidden = torch.ops.aten.gelu_(hidden, approximate="tanh") if in_pieces() else activation(hidden)
        return last(hidden)


class Head(nn.Module):
    """Tokens -> patches of the velocity, in float32."""

    def __init__(self, config: DiTConfig, ops: ModuleType) -> None:
        super().__init__()
        self.norm = ops.LayerNorm(config.dim, eps=config.eps, elementwise_affine=False)
        self.head = ops.Linear(config.dim, math.prod(config.patch_size) * config.out_dim)
        self.modulation = nn.Parameter(torch.zeros(1, 2, config.dim))

    def forward(self, x: Tensor, e: Tensor, lengths: Lengths = None) -> Tensor:
        """x [B, L, C] float32, e [B, S, C] float32, one row per segment of tokens -> [B, L, patch * C_out] float32."""
        shift, scale = (self.modulation.to(e).unsqueeze(1) + e.unsqueeze(2)).chunk(2, dim=2)
        return self.head(PLAIN.modulated_norm(x, self.norm, shift, scale, lengths, x.dtype))


class CausalConv1d(nn.Module):
    """A convolution over time that sees this step and the two before; the first step stands for what is not there."""

    def __init__(self, in_dim: int, out_dim: int, stride: int, ops: ModuleType) -> None:
        super().__init__()
        self.conv = ops.Conv1d(in_dim, out_dim, 3, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C] -> [B, T / stride, C_out]."""
        x = F.pad(rearrange(x, "b t c -> b c t"), (2, 0), mode="replicate")
        return rearrange(self.conv(x), "b c t -> b t c")


def normed_silu(x: Tensor) -> Tensor:
    """A layer norm without weights, then SiLU, [..., C] -> [..., C]."""
    return F.silu(F.layer_norm(x, x.shape[-1:], eps=1e-6))


class TextEmbedding(nn.Sequential):
    """Rows of texts as blocks are given them.

    What texts are padded with becomes one row, again and again. On a CPU it is computed once: for a small model that is
    half of a step. On a GPU it is next to nothing, and to look for it would have the CPU wait."""

    def __init__(self, config: DiTConfig, ops: ModuleType) -> None:
        super().__init__(
            ops.Linear(config.text_dim, config.dim),
            nn.GELU(approximate="tanh"),
            ops.Linear(config.dim, config.dim),
        )

    def forward(self, rows: Tensor) -> Tensor:
        """[B, L, text_dim] -> [B, L, dim]."""
        # tensors without values, and those that a compiler traces, cannot be looked at
        is_seen = type(rows) is Tensor and rows.device.type == "cpu" and not torch.compiler.is_compiling()
        longest = _longest(rows) if is_seen else rows.shape[1]
        padding = rows.shape[1] - longest
        if padding < 2:
            return super().forward(rows)
        embedded = super().forward(rows[:, : longest + 1])
        return torch.cat([embedded, embedded[:, -1:].expand(-1, padding - 1, -1)], dim=1)


def _longest(rows: Tensor) -> int:
    """Number of rows [B, L, C] before those that are zero in all texts."""
    # the norm is by far the fastest way to look; what it takes for zero is lost in a layer's bias anyway
    used = torch.linalg.vector_norm(rows, dim=2).amax(dim=0).nonzero()
    return int(used[-1]) + 1 if len(used) else 0


def pad_text(context: Tensor | list[Tensor], text_len: int) -> Tensor:
    """Text rows [B, L, C], or a list of [L_i, C], zero-padded to [B, text_len, C]; longer text is kept whole."""
    if isinstance(context, Tensor):
        missing = text_len - context.shape[1]
        return F.pad(context, (0, 0, 0, missing)) if missing > 0 else context
    longest = max(text_len, *(text.shape[0] for text in context))
    return torch.stack([F.pad(text, (0, 0, 0, longest - text.shape[0])) for text in context])
