"""The Wan diffusion transformer of T2V-A14B, I2V-A14B and TI2V-5B, and of the Wan2.1 releases like them.

Latent video -> patches -> tokens -> `num_layers` blocks (self-attention with 3-D rotary positions, cross-
attention to UMT5 text, feed-forward; all modulated by the timestep) -> patches of the velocity. Parameters have
the official names. Source: wan/modules/model.py of the official code.
"""

from collections.abc import Iterator
from functools import partial
from itertools import repeat
from types import ModuleType
from typing import ClassVar, Protocol

import torch
from einops import rearrange
from torch import Tensor, nn
from typing_extensions import Unpack

from .. import ops as default_ops
from ..attention import Attention, get_attention
from ..config import DiTConfig
from ..rope import Positions, RotaryTable, rotary_at, rotary_table
from .guided_text import GuidedText
from .layers import (
    Block,
    BlockInputs,
    Head,
    ImageEmbedding,
    Projections,
    TextEmbedding,
    Through,
    sinusoidal_embedding,
)
from .passes import Passes
from .tokens import Conditions, FrameSpan, Grid, Inputs, Run, SequenceParallel, Tokens


class RunBlock(Protocol):
    """Runner of a block in the model's place: a host's patches, a worker's heartbeat."""

    def __call__(self, index: int, block: nn.Module, x: Tensor, **inputs: Unpack[BlockInputs]) -> Tensor: ...


def _run_block(index: int, block: nn.Module, x: Tensor, **inputs: Unpack[BlockInputs]) -> Tensor:  # noqa: ARG001
    return block(x, **inputs)


class InputError(ValueError):
    """An input that does not fit a model.

    what: "channels", "text", "size" or "conditions" do not fit; "missing" are conditions that were not given."""

    def __init__(self, what: str, message: str) -> None:
        super().__init__(message)
        self.what = what


class WanModel(nn.Module):
    """Velocity of the flow at a noise level, for latent video and text.

    `compute_dtype` is the dtype of linear layers and attention; it may be set to another than the weights'."""

    block_class: type[Block] = Block
    inputs_class: type[Inputs] = Inputs
    dtype: torch.dtype
    compute_dtype: torch.dtype
    sequence_parallel: SequenceParallel | None = None
    """Slot for processes that share the tokens of each forward; None where one does all."""
    is_sharded: bool = False
    """Whether processes share the weights, and so all have to run the same layers."""
    kept_clips: ClassVar[int] = 2
    """Number of clips for which the result of `prepare` is worth its memory: with guidance and without."""
    frames_before: ClassVar[int] = 0
    """Latent frames before those of the video, which hold a reference."""
    guided_apart: ClassVar[bool] = False
    """Whether rows of the negative prompt are computed otherwise: see `Conditions.with_unconditional`."""

    def __init__(self, config: DiTConfig, ops: ModuleType = default_ops) -> None:
        super().__init__()
        self.config = config
        self.dtype = self.compute_dtype = torch.get_default_dtype()
        dim = config.dim

        self.patch_embedding = ops.Conv3d(
            config.in_dim, dim, kernel_size=config.patch_size, stride=config.patch_size
        )
        self.text_embedding = TextEmbedding(config, ops)
        self.time_embedding = nn.Sequential(ops.Linear(config.freq_dim, dim), nn.SiLU(), ops.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), ops.Linear(dim, dim * 6))
        self.blocks = nn.ModuleList(self.block_class(config, ops) for _ in range(config.num_layers))
        self.head = Head(config, ops)
        if config.image_dim:
            self.img_emb = ImageEmbedding(config, ops)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor | list[Tensor] | GuidedText,
        *,
        image: Tensor | None = None,
        conditions: Conditions | None = None,
        attention: Attention | None = None,
        rotary: RotaryTable | None = None,
        run_block: RunBlock | None = None,
    ) -> Tensor:
        """Latents x [B, C, F, H, W] and text -> velocity [B, C_out, F, H, W] in float32.

        x: noisy latents, followed by the conditioning channels of an image-to-video model.
        t: timesteps in 0..1000, [B], or [B, F'] with one per latent frame after patching.
        context: UMT5 rows [B, L, text_dim] or a list of [L_i, text_dim], padded with zeros to `text_len`; or such rows
        with guidance.
        image: CLIP features [B, 257 per image, image_dim] of a Wan2.1 image-to-video model; others ignore them.
        conditions: what `prepare` has made of the clip, for the families that have it.
        attention: kernel in the place of the default one; rotary: table in the place of the grid's own.
        run_block: called as run_block(index, block, x, **inputs) in the place of block(x, **inputs).
        Raises ValueError where channels, text width, size or conditions do not fit the model."""
        guided = GuidedText.of(context)
        self._check(x, guided.rows)
        attention, run_block = attention or get_attention(), run_block or _run_block

        tokens = self.embed_video(x, t, rotary, conditions)
        e, modulation = self.embed_time(tokens.t)
        text = guided.embed(self.config.text_len, self.compute_dtype, self.text_embedding)
        image = self.embed_image(image)

        grid, length, frames = tokens.grid, tokens.hidden.shape[1], FrameSpan.of_video(tokens.grid)
        segments = e.shape[1] if tokens.lengths is None else 1
        run = Run(tokens.hidden, e, modulation, tokens.rotary, tokens.lengths, frames)
        kernels = self.kernels(grid, conditions, attention, run_block)
        if self.sequence_parallel is not None:
            run = self.sequence_parallel.split(run)
        hidden, own_frames, own_time, own_lengths = run.hidden, run.frames, run.time, run.lengths
        inputs: BlockInputs = {
            "e": run.modulation, "context": text.tokens, "rotary": run.rotary, "attention": attention,
            "cross_attention": text.kernel(attention, grid, self.frames_before, own_frames),
            "image": image, "lengths": own_lengths,
        }  # fmt: skip
        del tokens, run  # so that nothing holds on to tokens that are worked on elsewhere
        for index, block in enumerate(self.blocks):
            inputs["attention"] = self.over_all(next(kernels), length)
            through = partial(run_block, index, block, **inputs)
            hidden = self.pass_block(index, hidden, through, conditions)
            hidden = self.after_block(index, hidden, own_frames, conditions, attention)
        if self.sequence_parallel is None:
            patches = self.head(hidden[:, : frames.tokens], e[:, :segments])
        else:  # that of all own tokens: patches are far smaller to send than tokens
            patches = self.head(hidden, own_time, own_lengths)
            patches = self.sequence_parallel.gather(patches, length)[:, : frames.tokens]
        return self.unpatchify(patches, grid)

    def prepare(self, inputs: Inputs, size: tuple[int, int, int]) -> Conditions | None:
        """Everything constant over the steps of a clip of latent `size` (frames, height, width): hook of families."""
        return None

    def embed_video(
        self, x: Tensor, t: Tensor, rotary: RotaryTable | None, conditions: Conditions | None
    ) -> Tokens:
        """Tokens of the latents x [B, C, F, H, W] at timesteps t: hook of families that add to them."""
        hidden, grid = self.patchify(x)
        table = rotary if rotary is not None else rotary_table(grid, self.config.head_dim, x.device)
        return Tokens(hidden, t if t.dim() == 2 else t.unsqueeze(1), table, grid)

    def rotary_at(self, positions: Positions, device: torch.device) -> RotaryTable:
        """The table of tokens beside the video's, at the grid of `positions` (of frames, rows, columns)."""
        return rotary_at(positions, self.config.head_dim, device)

    def after_block(
        self,
        index: int,
        hidden: Tensor,
        frames: FrameSpan,
        conditions: Conditions | None,
        attention: Attention,
    ) -> Tensor:
        """Changes the tokens [B, L, C] between block `index` and the next one: hook of families."""
        return hidden

    def kernels(
        self, grid: Grid, conditions: Conditions | None, attention: Attention, run_block: RunBlock
    ) -> Iterator[Attention]:
        """The kernel of each block's self-attention over all tokens, asked for just before the block runs: hook of
        families whose tokens attend to others than each other. run_block: as of `forward`."""
        return repeat(attention)

    def pass_block(
        self, index: int, hidden: Tensor, through: Through, conditions: Conditions | None
    ) -> Tensor:
        """Takes tokens [B, L, C] `through` block `index`: hook of families that leave some out."""
        return through(hidden)

    def over_all(self, attention: Attention, length: int) -> Attention:
        """A kernel over all `length` tokens as one over those of this process."""
        parallel = self.sequence_parallel
        return attention if parallel is None else parallel.over_all(attention, length)

    def use(self, passes: Passes) -> None:
        """Has blocks do with these what they do to each token alone."""
        for module in self.modules():
            if isinstance(module, (Block, Projections)):
                module.passes = passes

    def units(self) -> list[nn.Module]:
        """The parts that each run as a whole: their weights can be gathered just before where they are sharded."""
        return list(self.blocks)

    def patchify(self, x: Tensor) -> tuple[Tensor, Grid]:
        """[B, C, F, H, W] -> tokens [B, L, dim] in float32 and their grid (frames, height, width)."""
        patches = self.patch_embedding(x.to(self.compute_dtype))
        frames, height, width = patches.shape[2:]
        tokens = rearrange(patches, "b c f h w -> b (f h w) c")
        out = torch.empty_like(tokens, dtype=torch.float32, memory_format=torch.contiguous_format)
        return out.copy_(tokens), (frames, height, width)

    def embed_image(self, features: Tensor | None) -> Tensor | None:
        """CLIP features [B, L, image_dim] -> tokens [B, L, dim]; None for a model without image context."""
        if features is None or not self.config.image_dim:
            return None
        return self.img_emb(features.to(self.compute_dtype))

    def embed_time(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Timesteps [B, S] -> embedding [B, S, dim] and modulation [B, S, 6, dim], in float32.

        A segment of tokens shares one timestep, so nothing is ever computed per token."""
        e = self.time_embedding(sinusoidal_embedding(t.flatten(), self.config.freq_dim)).unflatten(0, t.shape)
        return e, self.time_projection(e).unflatten(2, (6, -1))

    def unpatchify(self, x: Tensor, grid: Grid) -> Tensor:
        """Patches [B, L, p * q * r * C_out] -> [B, C_out, F, H, W]."""
        (f, h, w), (p, q, r) = grid, self.config.patch_size
        return rearrange(x, "b (f h w) (p q r c) -> b c (f p) (h q) (w r)", f=f, h=h, w=w, p=p, q=q, r=r)

    def _check(self, x: Tensor, context: Tensor | list[Tensor]) -> None:
        config = self.config
        if x.shape[1] != config.in_dim:
            hint = ""
            if config.in_dim > config.out_dim and x.shape[1] == config.out_dim:
                hint = (
                    f": this model is given an image beside the {config.out_dim} latent channels, and got none. "
                    "Give it its image conditioning, or choose a text-to-video model"
                )
            raise InputError(
                "channels", f"the model expects {config.in_dim} channels and got {x.shape[1]}{hint}"
            )
        width = context[0].shape[-1]
        if width != config.text_dim:
            raise InputError(
                "text",
                f"the model expects text features {config.text_dim} wide and got {width}: the prompt was "
                "encoded by another text encoder than UMT5-XXL",
            )
        if any(n % p for n, p in zip(x.shape[2:], config.patch_size, strict=True)):
            raise InputError(
                "size",
                f"latent size {tuple(x.shape[2:])} (frames, height, width) must divide by the patch "
                f"{config.patch_size}",
            )
