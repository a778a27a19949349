"""Our transformer blocks under the host's calling convention, so that patches of other packs find what they expect.

A block, its self- and its cross-attention are called with the host's arguments and have the host's attributes; a pack
may replace the `forward` of any of them, or compile it. `block_runner` calls them as the host's own Wan model does, and
hands each kind of patch what that model hands it. The residual stream stays float32, as in the official code.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import comfy.model_management
import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor

from ....wan_models.attention import Attention
from ....wan_models.config import DiTConfig
from ....wan_models.dit.base import RunBlock
from ....wan_models.dit.layers import Block, CrossAttention, Lengths, SelfAttention
from ....wan_models.dit.text_guidance import TextKernel, plain
from ....wan_models.rope import RotaryTable

PATCHES = ("attn1_patch", "attn1_output_patch", "attn2_patch", "attn2_output_patch", "double_block")
"""Kinds of patches that a hosted model hands its insides to."""
_LENGTHS = "wan_segment_lengths"  # tokens of each segment, for blocks whose segments differ in length
_KERNEL = "wan_self_attention"  # of a block, where that is more than the host's over its own tokens
_TEXT_KERNEL = "wan_text_attention"  # where the text is looked at with guidance


class _Described:
    """Gives a layer the attributes that the host's own has."""

    def __init__(self, config: DiTConfig, ops: ModuleType) -> None:
        super().__init__(config, ops)  # type: ignore[call-arg]
        self.dim, self.num_heads, self.head_dim = config.dim, config.num_heads, config.head_dim
        self.qk_norm, self.eps, self.window_size = config.qk_norm, config.eps, (-1, -1)


class HostSelfAttention(_Described, SelfAttention):
    """`SelfAttention` that hands its result to patches."""

    def forward(  # type: ignore[override]
        self, x: Tensor, freqs: Tensor, transformer_options: dict | None = None, reuse: bool = False
    ) -> Tensor:
        """x [B, L, C], freqs as the host's table (see `rotation_matrices`) -> [B, L, C]; reuse as of ours."""
        options = {} if transformer_options is None else transformer_options

        def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
            kernel = options.get(_KERNEL) or host_attention(options)
            out = kernel(q, k, v, heads)
            for patch in _patches(options, "attn1_patch"):
                q_heads, k_heads = (t.unflatten(-1, (heads, -1)) for t in (q, k))
                out = patch({"x": out, "q": q_heads, "k": k_heads, "transformer_options": options})
            return _output_patched(self, out, options, "attn1_output_patch")

        return super().forward(x, rotary_of(freqs), attention, reuse)


class HostCrossAttention(_Described, CrossAttention):
    """`CrossAttention` to text and image tokens in one context, the image's first."""

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        context: Tensor,
        context_img_len: int | None = None,
        transformer_options: dict | None = None,
        **_: Any,
    ) -> Tensor:
        """x [B, L, C], context [B, context_img_len + L_text, C] -> [B, L, C]."""
        options = {} if transformer_options is None else transformer_options
        image = None
        if context_img_len and hasattr(self, "k_img"):
            image, context = context[:, :context_img_len], context[:, context_img_len:]
        # kernels of low precision may give NaN for the few tokens of an image
        to_image = host_attention(options, low_precision_attention=False)
        out = self.attend(x, context, image, options.get(_TEXT_KERNEL) or host_attention(options), to_image)
        return self.o(_output_patched(self, out, options, "attn2_output_patch"))


class HostBlock(_Described, Block):
    """`Block` called as the host calls its own."""

    self_attention_class = HostSelfAttention
    cross_attention_class = HostCrossAttention

    def __init__(self, config: DiTConfig, ops: ModuleType) -> None:
        super().__init__(config, ops)
        self.ffn_dim, self.cross_attn_norm = config.ffn_dim, config.cross_attn_norm

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        e: Tensor,
        freqs: Tensor,
        context: Tensor,
        context_img_len: int | None = 257,
        transformer_options: dict | None = None,
    ) -> Tensor:
        """As `Block.forward`; e may be [B, 6, C] too, context holds the image's tokens before the text's."""
        options = {} if transformer_options is None else transformer_options
        e = e if e.dim() == 4 else e.unsqueeze(1)
        dtype = context.dtype

        # a forward that a pack has put there has the host's arguments only
        reuse = {} if "forward" in vars(self.self_attn) else {"reuse": True}

        def attend(make: Callable[[], Tensor]) -> Tensor:
            return self.self_attn(make(), freqs, transformer_options=options, **reuse)

        def add_context(x: Tensor) -> Tensor:
            y = self.norm3(x).to(dtype)
            x = x.add_(
                self.cross_attn(y, context, context_img_len=context_img_len, transformer_options=options)
            )
            patches = _patches(options, "attn2_patch")
            for patch in patches:
                x = patch({"x": x, "transformer_options": options})
            return _own(x) if patches else x

        return self.run(x, e, dtype, attend, add_context, options.get(_LENGTHS))

    def feed_forward(self, make: Callable[[], Tensor]) -> Tensor:
        return self.ffn(make()) if "forward" in vars(self.ffn) else super().feed_forward(make)


def host_attention(options: dict, **hints: Any) -> Attention:
    """The attention that the host would choose."""

    def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        return optimized_attention(q, k, v, heads=heads, transformer_options=options, **hints)

    return attention


def block_runner(options: dict, total: int, latents: Tensor, vec: Callable[[], Tensor]) -> RunBlock:
    """Runs one block of `total` as the host would: announces it to patches, lets them replace and change it, and hears
    Cancel. options: the host's transformer_options; latents and vec(): what the host gives patches as "x" and "vec"."""
    replacements = options.get("patches_replace", {}).get("dit", {})
    after_block = _patches(options, "double_block")
    options.update(total_blocks=total, block_type="double")
    for key in (_KERNEL, _TEXT_KERNEL):  # of a forward before
        options.pop(key, None)
    shared: dict[str, Any] = {}  # what all blocks of this forward are given

    def prepare(context: Tensor, rotary: RotaryTable, image: Tensor | None, lengths: Lengths) -> None:
        shared["txt"] = context if image is None else torch.cat([image, context], dim=1)
        shared["pe"] = rotation_matrices(rotary)
        shared["img_len"] = None if image is None else image.shape[1]
        if lengths is not None:
            options[_LENGTHS] = lengths

    def run(index: int, block: torch.nn.Module, x: Tensor, **inputs: Any) -> Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        if not shared:
            prepare(inputs["context"], inputs["rotary"], inputs["image"], inputs["lengths"])
        options["block_index"] = index
        if inputs["attention"] is not plain(inputs["cross_attention"]):
            options[_KERNEL] = inputs["attention"]
        if isinstance(inputs["cross_attention"], TextKernel):
            _refuse_replaced(block.cross_attn)
            options[_TEXT_KERNEL] = inputs["cross_attention"]

        def call(img: Tensor, txt: Tensor, vec: Tensor, pe: Tensor, block_options: dict) -> Tensor:
            return block(
                img,
                e=vec,
                freqs=pe,
                context=txt,
                context_img_len=shared["img_len"],
                transformer_options=block_options,
            )

        args = {
            "img": x,
            "txt": shared["txt"],
            "vec": inputs["e"],
            "pe": shared["pe"],
            "transformer_options": options,
        }
        replacement = replacements.get(("double_block", index))
        if replacement is None:
            x = call(*args.values())
        else:

            def original(args: dict) -> dict:
                block_options = args.get("transformer_options", options)
                # our blocks work in place, and a patch may compare what came out with what went in
                return {"img": call(_own(args["img"]), args["txt"], args["vec"], args["pe"], block_options)}

            x = replacement(args, {"original_block": original})["img"]
        for patch in after_block:
            arguments = {"img": x, "x": latents, "vec": vec(), "block_index": index, "img_offset": 0}
            x = patch({**arguments, "transformer_options": options})["img"]
        return x if replacement is None and not after_block else _own(x)

    return run


def _refuse_replaced(layer: Any) -> None:
    """ValueError where a pack has replaced a cross-attention, and would leave out the guidance in it."""
    forward = vars(layer).get("forward")
    # what a patch was taken back from stays behind as the method of the class; compiling replaces nothing
    is_own = getattr(forward, "__func__", None) is type(layer).forward or hasattr(layer, "_orig_mod")
    if forward is not None and not is_own:
        raise ValueError(
            "a node before the sampler replaces the cross-attention that WanNAG and WanPromptSchedule work in: take "
            "that node out, or these"
        )


def rotation_matrices(table: RotaryTable) -> Tensor:
    """Our table [L, 1, D/2] as the host's: [1, L, 1, D/2, 2, 2] in float32, a rotation for each channel pair."""
    cos, sin = table.real, table.imag
    return torch.stack([cos, -sin, sin, cos], dim=-1).unflatten(-1, (2, 2)).unsqueeze(0)


def rotary_of(freqs: Tensor) -> RotaryTable:
    """The host's table [B, L, 1, D/2, 2, 2] as ours, [B, L, 1, D/2] in complex64."""
    return torch.complex(freqs[..., 0, 0].float(), freqs[..., 1, 0].float())


def _patches(options: dict, kind: str) -> list[Callable]:
    return options.get("patches", {}).get(kind, [])


def _output_patched(layer: Any, out: Tensor, options: dict, kind: str) -> Tensor:
    """Applies the patches of that kind to an attention's result before its last layer, [B, L, C]."""
    for patch in _patches(options, kind):
        out = patch(out, {**options, "n_heads": layer.num_heads, "dim_head": layer.head_dim})
    return out


def _own(x: Tensor) -> Tensor:
    """A residual stream that patches have seen, in memory that no patch has: blocks write into it."""
    return x.to(torch.float32, copy=True)
