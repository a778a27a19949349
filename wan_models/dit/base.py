"""The Wan diffusion transformer of T2V-A14B, I2V-A14B and TI2V-5B, and of the Wan2.1 releases like them.

Latent video -> patches -> tokens -> `num_layers` blocks (self-attention with 3-D rotary positions, cross-
attention to UMT5 text, feed-forward; all modulated by the timestep) -> patches of the velocity. Parameters have
the official names. Source: wan/modules/model.py of the official code.
"""

from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor, nn

from .. import ops as default_ops
from ..attention import Attention, get_attention
from ..config import DiTConfig
from ..rope import RotaryTable, rotary_table
from .layers import Block, Head, ImageEmbedding, pad_text, sinusoidal_embedding

RunBlock = Callable[..., Tensor]


class WanModel(nn.Module):
    """Velocity of the flow at a noise level, for latent video and text.

    `compute_dtype` is the dtype of linear layers and attention; it may be set to another than the weights'."""

    block_class: type[Block] = Block

    def __init__(
        self,
        config: DiTConfig,
        ops: ModuleType = default_ops,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        self.config = config
        self.dtype = self.compute_dtype = dtype or torch.get_default_dtype()
        dim = config.dim

        self.patch_embedding = ops.Conv3d(
            config.in_dim, dim, kernel_size=config.patch_size, stride=config.patch_size, **factory
        )
        self.text_embedding = nn.Sequential(
            ops.Linear(config.text_dim, dim, **factory),
            nn.GELU(approximate="tanh"),
            ops.Linear(dim, dim, **factory),
        )
        self.time_embedding = nn.Sequential(
            ops.Linear(config.freq_dim, dim, **factory), nn.SiLU(), ops.Linear(dim, dim, **factory)
        )
        self.time_projection = nn.Sequential(nn.SiLU(), ops.Linear(dim, dim * 6, **factory))
        self.blocks = nn.ModuleList(
            self.block_class(config, ops, **factory) for _ in range(config.num_layers)
        )
        self.head = Head(config, ops, **factory)
        if config.image_dim:
            self.img_emb = ImageEmbedding(config, ops, **factory)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor | list[Tensor],
        y: Tensor | None = None,
        image: Tensor | None = None,
        *,
        attention: Attention | None = None,
        rotary: RotaryTable | None = None,
        run_block: RunBlock | None = None,
    ) -> Tensor:
        """Latents x [B, C, F, H, W] and text -> velocity [B, C_out, F, H, W] in float32.

        t: timesteps in 0..1000, [B], or [B, F'] with one per latent frame after patching.
        context: UMT5 rows [B, L, text_dim] or a list of [L_i, text_dim], padded with zeros to `text_len`.
        y: conditioning channels [B, C_y, F, H, W] that follow x's.
        image: CLIP features [B, 257 per image, image_dim] of a Wan2.1 image-to-video model; others ignore them.
        attention: kernel in the place of the default one; rotary: table in the place of the grid's own.
        run_block: called as run_block(index, block, x, **inputs) in the place of block(x, **inputs).
        Raises ValueError where channels, text width or size do not fit the model."""
        x = x if y is None else torch.cat([x, y.to(x)], dim=1)
        context = pad_text(context, self.config.text_len)
        self._check(x, context)

        tokens, grid = self.patchify(x)
        e, e0 = self.embed_time(t)
        tokens = self.run_blocks(
            tokens,
            run_block,
            e=e0,
            context=self.text_embedding(context.to(self.compute_dtype)),
            rotary=rotary if rotary is not None else rotary_table(grid, self.config.head_dim, x.device),
            attention=attention or get_attention(),
            image=self.embed_image(image),
        )
        return self.unpatchify(self.head(tokens, e), grid)

    def patchify(self, x: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """[B, C, F, H, W] -> tokens [B, L, dim] in float32 and their grid (frames, height, width)."""
        patches = self.patch_embedding(x.to(self.compute_dtype))
        frames, height, width = patches.shape[2:]
        return patches.flatten(2).transpose(1, 2).float().contiguous(), (frames, height, width)

    def embed_image(self, features: Tensor | None) -> Tensor | None:
        """CLIP features [B, L, image_dim] -> tokens [B, L, dim]; None for a model without image context."""
        if features is None or not self.config.image_dim:
            return None
        return self.img_emb(features.to(self.compute_dtype))

    def embed_time(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Timesteps [B] or [B, S] -> embedding [B, S, dim] and modulation [B, S, 6, dim], in float32.

        A segment of tokens shares one timestep, so nothing is ever computed per token."""
        t = t if t.dim() == 2 else t.unsqueeze(1)
        e = self.time_embedding(sinusoidal_embedding(t.flatten(), self.config.freq_dim)).unflatten(0, t.shape)
        return e, self.time_projection(e).unflatten(2, (6, -1))

    def run_blocks(
        self,
        x: Tensor,
        run_block: RunBlock | None,
        after: Callable[[int, Tensor], Tensor] | None = None,
        **inputs,  # noqa: ANN003
    ) -> Tensor:
        """All blocks in order over tokens x [B, L, dim]; after(index, x) may change what a block gives."""
        for index, block in enumerate(self.blocks):
            x = block(x, **inputs) if run_block is None else run_block(index, block, x, **inputs)
            x = x if after is None else after(index, x)
        return x

    def unpatchify(self, x: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Patches [B, L, p_t * p_h * p_w * C_out] -> [B, C_out, F, H, W]."""
        x = x.unflatten(2, (*self.config.patch_size, self.config.out_dim)).unflatten(1, grid)
        x = x.permute(0, 7, 1, 4, 2, 5, 3, 6)  # B f h w p q r c -> B c f p h q w r
        return x.flatten(6, 7).flatten(4, 5).flatten(2, 3)

    def _check(self, x: Tensor, context: Tensor) -> None:
        config = self.config
        if x.shape[1] != config.in_dim:
            hint = ""
            if config.in_dim > config.out_dim and x.shape[1] == config.out_dim:
                hint = (
                    f": this model is given an image beside the {config.out_dim} latent channels, and got none. "
                    "Connect its image conditioning, or choose a text-to-video model"
                )
            raise ValueError(f"the model expects {config.in_dim} channels and got {x.shape[1]}{hint}")
        if context.shape[-1] != config.text_dim:
            raise ValueError(
                f"the model expects text features {config.text_dim} wide and got {context.shape[-1]}: the prompt was "
                "encoded by another text encoder than UMT5-XXL. Load it with WanT5Loader"
            )
        if any(n % p for n, p in zip(x.shape[2:], config.patch_size, strict=True)):
            raise ValueError(
                f"latent size {tuple(x.shape[2:])} (frames, height, width) must divide by the patch "
                f"{config.patch_size}"
            )
