"""The layers all Wan diffusion transformers are made of.

Precision follows the official code under bfloat16 autocast: the residual stream, modulation, norm statistics,
time embedding and head are float32; linear layers and attention run in `compute_dtype`. Activations are cast
at the layer's door, and every layer of `ops` casts its weight to its input's dtype.

`modulated_norm` and `add_gated` are the two places where a fused kernel can drop in.
"""

import math
from collections.abc import Callable
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention import Attention
from ..config import DiTConfig
from ..rope import RotaryTable, apply_rotary_, rotary_part
from .pieces import Lengths, by_piece, in_pieces, pieces
from .text_guidance import TextKernel, plain


def sinusoidal_embedding(t: Tensor, dim: int) -> Tensor:
    """Timesteps [N] -> [N, dim] in float32, cosines first; computed in float64 as the official code does."""
    frequency = 10000.0 ** -(torch.arange(dim // 2, dtype=torch.float64, device=t.device) / (dim // 2))
    angle = torch.outer(t.double(), frequency)
    return torch.cat([angle.cos(), angle.sin()], dim=1).float()


def per_segment(x: Tensor, segments: int) -> Tensor:
    """[B, L, C] -> [B, S, L/S, C], so that one modulation per segment broadcasts over its tokens."""
    return x.unflatten(1, (segments, -1))


def modulated_norm(
    x: Tensor, norm: nn.Module, shift: Tensor, scale: Tensor, lengths: Lengths, dtype: torch.dtype
) -> Tensor:
    """norm(x) * (1 + scale) + shift in `dtype`, x [B, L, C] in float32, shift and scale [B, S, 1, C] -> [B, L, C]."""
    if in_pieces():
        out = torch.empty_like(x, dtype=dtype)
        for rows, tokens, segments in pieces(x, shift.shape[1], lengths):
            of_segment = rows, segments
            count = segments.stop - segments.start
            normed, place = (per_segment(t, count) for t in (norm(x[rows, tokens]), out[rows, tokens]))
            torch.addcmul(shift[of_segment], normed, 1 + scale[of_segment], out=place)
        return out
    if lengths is None:
        normed = per_segment(norm(x), shift.shape[1])
        return torch.addcmul(shift, normed, 1 + scale).flatten(1, 2).to(dtype)
    parts = norm(x).split(lengths, dim=1)
    changed = [torch.addcmul(shift[:, i], part, 1 + scale[:, i]) for i, part in enumerate(parts)]
    return torch.cat(changed, 1).to(dtype)


def changeable(x: Tensor) -> Tensor:
    """x itself where its memory may be changed; a copy in training, where gradients are computed from x as it was."""
    return x.clone() if x.requires_grad and torch.is_grad_enabled() else x


def add_gated(x: Tensor, y: Tensor, gate: Tensor, lengths: Lengths = None) -> Tensor:
    """x + y * gate in x's own memory; x [B, L, C] float32, y [B, L, C] of any dtype, gate [B, S, 1, C]."""
    x = changeable(x)
    if lengths is None:
        segments = gate.shape[1]
        per_segment(x, segments).addcmul_(per_segment(y.to(x.dtype), segments), gate)
        return x
    start = 0
    for i, change in enumerate(y.split(lengths, 1)):
        x.narrow(1, start, lengths[i]).addcmul_(change.to(x.dtype), gate[:, i])
        start += lengths[i]
    return x


class Projections(nn.Module):
    """The layers around multi-head attention, with RMS-normed queries and keys."""

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

        def change(x: Tensor, rows: slice, tokens: slice) -> Tensor:
            x = norm(x.float())
            if rotary is not None:
                apply_rotary_(x.unflatten(-1, (self.num_heads, -1)), rotary_part(rotary, rows, tokens))
            return x

        return by_piece(change, x, x.dtype, x if out is None else out)


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
        """What `forward` gives before its last layer; to_image: the kernel for the few tokens of the image."""
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
        """Those of a text [B, L_text, C], of that shape."""
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


Through = Callable[[Tensor], Tensor]
"""A whole block over tokens [B, L, C], whose memory it may change."""


class Block(nn.Module):
    """One transformer block: self-attention, cross-attention to the text, feed-forward."""

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
        x = _add_modulated(x, self.norm1, change[:3], attend, dtype, lengths)
        x = add_context(x)
        return _add_modulated(x, self.norm2, change[3:], self.feed_forward, dtype, lengths)

    def feed_forward(self, make: Callable[[], Tensor]) -> Tensor:
        """The feed-forward `ffn` of the tokens that `make` gives; holds none of them while its last layer runs."""
        first, activation, last = self.ffn
        hidden = first(make())
        hidden = torch.ops.aten.gelu_(hidden, approximate="tanh") if in_pieces() else activation(hidden)
        return last(hidden)


def _add_modulated(
    x: Tensor,
    norm: nn.Module,
    change: tuple[Tensor, ...],
    layer: Layer,
    dtype: torch.dtype,
    lengths: Lengths,
) -> Tensor:
    """x + gate * layer(modulated norm of x), in x's own memory; change: shift, scale and gate."""
    shift, scale, gate = change
    y = layer(lambda: modulated_norm(x, norm, shift, scale, lengths, dtype))
    return add_gated(x, y, gate, lengths)


class Head(nn.Module):
    """Tokens -> patches of the velocity, in float32."""

    def __init__(self, config: DiTConfig, ops: ModuleType) -> None:
        super().__init__()
        self.norm = ops.LayerNorm(config.dim, eps=config.eps, elementwise_affine=False)
        self.head = ops.Linear(config.dim, math.prod(config.patch_size) * config.out_dim)
        self.modulation = nn.Parameter(torch.zeros(1, 2, config.dim))

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """x [B, L, C] float32, e [B, S, C] float32 -> [B, L, patch * C_out] float32."""
        shift, scale = (self.modulation.to(e).unsqueeze(1) + e.unsqueeze(2)).chunk(2, dim=2)
        return self.head(modulated_norm(x, self.norm, shift, scale, None, x.dtype))


class CausalConv1d(nn.Module):
    """A convolution over time that sees this step and the two before; the first step stands for what is not there."""

    def __init__(self, in_dim: int, out_dim: int, stride: int, ops: ModuleType) -> None:
        super().__init__()
        self.conv = ops.Conv1d(in_dim, out_dim, 3, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C] -> [B, T / stride, C_out]."""
        return self.conv(F.pad(x.transpose(1, 2), (2, 0), mode="replicate")).transpose(1, 2)


def normed_silu(x: Tensor) -> Tensor:
    """A layer norm without weights, then SiLU, [..., C] -> [..., C]."""
    return F.silu(F.layer_norm(x, x.shape[-1:], eps=1e-6))


def pad_text(context: Tensor | list[Tensor], text_len: int) -> Tensor:
    """Text rows [B, L, C], or a list of [L_i, C], zero-padded to [B, text_len, C]; longer text is kept whole."""
    if isinstance(context, Tensor):
        return F.pad(context, (0, 0, 0, max(0, text_len - context.shape[1])))
    longest = max(text_len, *(text.shape[0] for text in context))
    return torch.stack([F.pad(text, (0, 0, 0, longest - text.shape[0])) for text in context])
