"""The diffusion transformer of Animate-14B: the common image-to-video one, led by a pose and a face.

The pose's latents are patched and added to the video's tokens. The face's expression, as tokens of each latent frame,
is attended to after every fifth block. The first latent frame is the reference image and has neither. Source:
wan/modules/animate/model_animate.py and face_blocks.py of the official code, whose parameter names are kept.

Everything that does not change over the steps of a clip is computed once, in `prepare`.
"""

from dataclasses import dataclass
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops as default_ops
from ..attention import Attention, get_attention
from ..config import DiTConfig, FaceConfig
from ..rope import RotaryTable, rotary_table
from .base import RunBlock, WanModel
from .face_motion import FaceEncoder, MotionEncoder
from .layers import pad_text

EVERY = 5
"""Blocks from one look at the face to the next, the first one after block 0."""

KeysValues = tuple[Tensor, Tensor]


class FaceBlock(nn.Module):
    """Attention from each latent frame's tokens to those of its face."""

    def __init__(self, config: DiTConfig, ops: ModuleType, **factory) -> None:  # noqa: ANN003
        super().__init__()
        dim = config.dim
        self.num_heads = config.num_heads
        self.linear1_kv = ops.Linear(dim, dim * 2, **factory)
        self.linear1_q = ops.Linear(dim, dim, **factory)
        self.linear2 = ops.Linear(dim, dim, **factory)
        self.q_norm = ops.RMSNorm(config.head_dim, eps=1e-6, **factory)
        self.k_norm = ops.RMSNorm(config.head_dim, eps=1e-6, **factory)

    def keys_values(self, tokens: Tensor) -> KeysValues:
        """Tokens of the faces [B, F, N, C] -> two [B * F, N, C]."""
        normed = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6).flatten(0, 1)
        k, v = self.linear1_kv(normed).chunk(2, dim=-1)
        return self._per_head(self.k_norm, k), v

    def forward(self, x: Tensor, k: Tensor, v: Tensor, frames: int, attention: Attention) -> Tensor:
        """x [B, L, C] in float32, of `frames` latent frames -> what is added to it, [B, L, C] in the compute dtype."""
        q = self.linear1_q(F.layer_norm(x, x.shape[-1:], eps=1e-6).to(k.dtype))
        q = self._per_head(self.q_norm, q).unflatten(1, (frames, -1)).flatten(0, 1)
        out = attention(q, k, v, self.num_heads)
        return self.linear2(out).unflatten(0, (-1, frames)).flatten(1, 2)

    def _per_head(self, norm: nn.Module, x: Tensor) -> Tensor:
        return norm(x.float().unflatten(-1, (self.num_heads, -1))).flatten(-2).to(x.dtype)


class FaceAdapter(nn.Module):
    """One `FaceBlock` for every fifth block of the transformer."""

    def __init__(self, config: DiTConfig, ops: ModuleType, **factory) -> None:  # noqa: ANN003
        super().__init__()
        count = config.num_layers // EVERY
        self.fuser_blocks = nn.ModuleList(FaceBlock(config, ops, **factory) for _ in range(count))


@dataclass(frozen=True)
class AnimateClip:
    """What stays the same over the steps of a clip.

    pose: latents [B, C, F, H, W] of all but the first latent frame, None for no pose; their tokens are cheaper made
    than kept. faces: keys and values of each face block, [B * (F + 1), N, C]; empty for no face."""

    pose: Tensor | None
    faces: tuple[KeysValues, ...]


class WanAnimateModel(WanModel):
    """Velocity of the flow at a noise level, for latent video, text, reference and an `AnimateClip`."""

    def __init__(
        self,
        config: DiTConfig,
        ops: ModuleType = default_ops,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(config, ops, device, dtype)
        factory = {"device": device, "dtype": dtype}
        face, patch = _face(config), config.patch_size
        self.pose_patch_embedding = ops.Conv3d(face.pose_dim, config.dim, patch, stride=patch, **factory)
        self.motion_encoder = MotionEncoder(face, ops, **factory)
        self.face_adapter = FaceAdapter(config, ops, **factory)
        self.face_encoder = FaceEncoder(face, config.dim, ops, **factory)

    def prepare(self, pose: Tensor | None, faces: Tensor | None, frames: int) -> AnimateClip:
        """Everything constant over the steps of a clip of `frames` latent frames, the reference's among them.

        pose: latents [B, C, F, H, W] of the frames after the reference. faces: pictures [B, 3, T, size, size] in -1..1
        of the driving face; a single one is held for the whole clip. Latent frames past the end of either go without.
        Raises ValueError where faces are of another size than the model's."""
        if pose is not None:
            pose = pose[:, :, : frames - 1]
        if faces is None:
            return AnimateClip(pose, ())
        tokens = self._encode_faces(faces, frames)[:, : frames - 1]
        # the reference has no face, and nor have frames past the end of the face video
        tokens = F.pad(tokens, (0, 0, 0, 0, 1, frames - 1 - tokens.shape[1]))
        return AnimateClip(pose, tuple(block.keys_values(tokens) for block in self.face_adapter.fuser_blocks))  # type: ignore[operator]

    def _encode_faces(self, faces: Tensor, frames: int) -> Tensor:
        """[B, 3, T, size, size] -> tokens [B, F, N, C] in the compute dtype; `frames` as in `prepare`."""
        size = _face(self.config).size
        if faces.shape[1] != 3 or faces.shape[3:] != (size, size):
            raise ValueError(
                f"the face video has shape {list(faces.shape)} (batch, colours, frames, height, width): the model "
                f"looks at faces of {size}x{size} pixels"
            )
        pictures = faces.transpose(1, 2).to(self.compute_dtype)
        motion = self.motion_encoder(pictures.flatten(0, 1)).unflatten(0, pictures.shape[:2])
        if pictures.shape[1] == 1:
            motion = motion.expand(-1, 4 * (frames - 1) - 3, -1)
        return self.face_encoder(motion.to(self.compute_dtype))

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor | list[Tensor],
        clip: AnimateClip,
        y: Tensor | None = None,
        image: Tensor | None = None,
        *,
        face_strength: float = 1.0,
        attention: Attention | None = None,
        rotary: RotaryTable | None = None,
        run_block: RunBlock | None = None,
    ) -> Tensor:
        """As `WanModel.forward`, with what `prepare` has made of the clip.

        face_strength: factor on what the face blocks add."""
        x = x if y is None else torch.cat([x, y.to(x)], dim=1)
        context = pad_text(context, self.config.text_len)
        self._check(x, context)
        attention = attention or get_attention()
        tokens, grid = self.patchify(x)
        self._add_pose(tokens, clip.pose, grid)

        def look_at_face(index: int, hidden: Tensor) -> Tensor:
            if index % EVERY or index // EVERY >= len(clip.faces):
                return hidden
            k, v = clip.faces[index // EVERY]
            block = self.face_adapter.fuser_blocks[index // EVERY]
            return hidden.add_(block(hidden, k, v, grid[0], attention), alpha=face_strength)

        e, e0 = self.embed_time(t)
        tokens = self.run_blocks(
            tokens,
            run_block,
            after=look_at_face,
            e=e0,
            context=self.text_embedding(context.to(self.compute_dtype)),
            rotary=rotary if rotary is not None else rotary_table(grid, self.config.head_dim, x.device),
            attention=attention,
            image=self.embed_image(image),
        )
        return self.unpatchify(self.head(tokens, e), grid)

    def _add_pose(self, tokens: Tensor, pose: Tensor | None, grid: tuple[int, int, int]) -> None:
        """Adds the pose's tokens to the video's [B, L, C] after the reference, in place."""
        if pose is None:
            return
        patches = self.pose_patch_embedding(pose.to(self.compute_dtype))
        if patches.shape[3:] != grid[1:]:
            raise ValueError(
                f"the pose has latent size {tuple(pose.shape[3:])} (height, width), not that of the video: draw it at "
                "the video's size"
            )
        patches = patches.flatten(2).transpose(1, 2)
        first = grid[1] * grid[2]
        tokens[:, first : first + patches.shape[1]] += patches


def _face(config: DiTConfig) -> FaceConfig:
    if config.face is None:
        raise ValueError(f"this is the config of a {config.family} model, not of a character animation one")
    return config.face
