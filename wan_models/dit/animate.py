"""The diffusion transformer of Animate-14B: the common image-to-video one, led by a pose and a face.

The pose's latents are patched and added to the video's tokens. The face's expression, as tokens of each latent frame,
is attended to after every fifth block. The first latent frame is the reference image and has neither. Source:
wan/modules/animate/model_animate.py and face_blocks.py of the official code, whose parameter names are kept.

Everything that does not change over the steps of a clip is computed once, in `prepare`.
"""

from dataclasses import dataclass, field
from types import ModuleType
from typing import ClassVar

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .. import ops as default_ops
from ..attention import Attention
from ..config import DiTConfig, FaceConfig
from ..rope import RotaryTable
from .base import InputError, WanModel
from .face_motion import FaceEncoder, MotionEncoder
from .pieces import by_piece
from .tokens import Conditions, FrameSpan, Inputs, Tokens, flatten_frames

EVERY = 5
"""Blocks from one look at the face to the next, the first one after block 0."""

KeysValues = tuple[Tensor, Tensor]


class FaceBlock(nn.Module):
    """Attention from each latent frame's tokens to those of its face."""

    def __init__(self, config: DiTConfig, ops: ModuleType) -> None:
        super().__init__()
        dim = config.dim
        self.num_heads = config.num_heads
        self.linear1_kv = ops.Linear(dim, dim * 2)
        self.linear1_q = ops.Linear(dim, dim)
        self.linear2 = ops.Linear(dim, dim)
        self.q_norm = ops.RMSNorm(config.head_dim, eps=1e-6)
        self.k_norm = ops.RMSNorm(config.head_dim, eps=1e-6)

    def keys_values(self, tokens: Tensor) -> KeysValues:
        """Tokens of the faces [B, F, N, C] -> two of that shape."""
        normed = flatten_frames(F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6))
        k, v = self.linear1_kv(normed).chunk(2, dim=-1)
        batch = tokens.shape[0]
        k = rearrange(self._norm(self.k_norm, k), "(b t) n c -> b t n c", b=batch)
        return k, rearrange(v, "(b t) n c -> b t n c", b=batch)

    def forward(self, x: Tensor, k: Tensor, v: Tensor, attention: Attention) -> Tensor:
        """x [B * F, cells, C] in float32, k and v [B * F, N, C] -> what is added to x, in the compute dtype."""
        x = by_piece(lambda x, *_: F.layer_norm(x, x.shape[-1:], eps=1e-6), x, k.dtype)
        q = self.linear1_q(x)
        q = by_piece(lambda q, *_: self._norm(self.q_norm, q), q, q.dtype, out=q)
        return self.linear2(attention(q, k, v, self.num_heads))

    def _norm(self, norm: nn.Module, x: Tensor) -> Tensor:
        """norm of each head of x [B, L, C]."""
        heads = rearrange(x.float(), "b l (h d) -> b l h d", h=self.num_heads)
        return rearrange(norm(heads), "b l h d -> b l (h d)").to(x.dtype)


class FaceAdapter(nn.Module):
    """One `FaceBlock` for every fifth block of the transformer."""

    def __init__(self, config: DiTConfig, ops: ModuleType) -> None:
        super().__init__()
        count = config.num_layers // EVERY
        self.fuser_blocks = nn.ModuleList(FaceBlock(config, ops) for _ in range(count))


@dataclass(frozen=True)
class AnimateInputs(Inputs):
    """Driving inputs of a clip.

    pose: latents [B, C, F, H, W] of the frames after the reference. faces: pictures [B, 3, T, size, size] in -1..1 of
    the driving face; a single one is held for the whole clip. Latent frames past the end of either go without.
    face_strength: factor on what the face adds."""

    pose: Tensor | None = None
    faces: Tensor | None = None
    face_strength: float = 1.0


@dataclass(frozen=True)
class AnimateClip(Conditions):
    """Constants over the steps of a clip.

    pose: latents [B, C, F, H, W] of all but the first latent frame, None for no pose; their tokens are cheaper made
    than kept. faces: keys and values of each face block, [B, F + 1, N, C]; empty for no face."""

    pose: Tensor | None = None
    faces: tuple[KeysValues, ...] = field(default=())
    face_strength: float = 1.0


class WanAnimateModel(WanModel):
    """Velocity of the flow at a noise level, for latent video, text, reference and an `AnimateClip`."""

    inputs_class = AnimateInputs
    frames_before: ClassVar[int] = 1

    def __init__(self, config: DiTConfig, ops: ModuleType = default_ops) -> None:
        super().__init__(config, ops)
        face, patch = _face(config), config.patch_size
        self.pose_patch_embedding = ops.Conv3d(face.pose_dim, config.dim, patch, stride=patch)
        self.motion_encoder = MotionEncoder(face, ops)
        self.face_adapter = FaceAdapter(config, ops)
        self.face_encoder = FaceEncoder(face, config.dim, ops)

    def prepare(self, inputs: Inputs, size: tuple[int, int, int]) -> AnimateClip:
        """Everything constant over the steps of a clip of latent `size` (frames, height, width), the reference among
        the frames. Raises ValueError where faces are of another size than the model's."""
        if not isinstance(inputs, AnimateInputs):
            raise InputError("conditions", "a character animation model takes AnimateInputs")
        frames = size[0]
        pose = None if inputs.pose is None else inputs.pose[:, :, : frames - 1]
        if inputs.faces is None:
            return AnimateClip(pose)
        tokens = self._encode_faces(inputs.faces, frames)[:, : frames - 1]
        # the reference has no face, and nor have frames past the end of the face video
        tokens = F.pad(tokens, (0, 0, 0, 0, 1, frames - 1 - tokens.shape[1]))
        faces = tuple(block.keys_values(tokens) for block in self.face_adapter.fuser_blocks)  # type: ignore[operator]
        return AnimateClip(pose, faces, inputs.face_strength)

    def _encode_faces(self, faces: Tensor, frames: int) -> Tensor:
        """[B, 3, T, size, size] -> tokens [B, F, N, C] in the compute dtype; `frames` as in `prepare`."""
        size = _face(self.config).size
        if faces.shape[1] != 3 or faces.shape[3:] != (size, size):
            raise InputError(
                "conditions",
                f"the face video has shape {list(faces.shape)} (batch, colours, frames, height, width): the model "
                f"looks at faces of {size}x{size} pixels",
            )
        pictures = rearrange(faces.to(self.compute_dtype), "b c t h w -> (b t) c h w")
        motion = rearrange(self.motion_encoder(pictures), "(b t) c -> b t c", b=faces.shape[0])
        if faces.shape[2] == 1:
            motion = motion.expand(-1, 4 * (frames - 1) - 3, -1)
        return self.face_encoder(motion.to(self.compute_dtype))

    def embed_video(
        self, x: Tensor, t: Tensor, rotary: RotaryTable | None, conditions: Conditions | None
    ) -> Tokens:
        tokens = super().embed_video(x, t, rotary, conditions)
        self._add_pose(tokens, _clip(conditions).pose)
        return tokens

    def after_block(
        self,
        index: int,
        hidden: Tensor,
        frames: FrameSpan,
        conditions: Conditions | None,
        attention: Attention,
    ) -> Tensor:
        clip = _clip(conditions)
        place, rest = divmod(index, EVERY)
        if rest or place >= len(clip.faces):
            return hidden
        k, v = (flatten_frames(x[:, frames.frames]) for x in clip.faces[place])
        change = self.face_adapter.fuser_blocks[place](flatten_frames(frames.split(hidden)), k, v, attention)
        return frames.add_(hidden, change, clip.face_strength)

    def units(self) -> list[nn.Module]:
        return [*self.blocks, *self.face_adapter.fuser_blocks]

    def _add_pose(self, tokens: Tokens, pose: Tensor | None) -> None:
        """Adds the pose's tokens to the video's after the reference, in place."""
        if pose is None:
            return
        patches = self.pose_patch_embedding(pose.to(self.compute_dtype))
        _, height, width = tokens.grid
        if patches.shape[3:] != (height, width):
            raise InputError(
                "conditions",
                f"the pose has latent size {tuple(pose.shape[3:])} (height, width), not that of the video: draw it at "
                "the video's size",
            )
        patches = rearrange(patches, "b c f h w -> b (f h w) c")
        first = height * width
        tokens.hidden[:, first : first + patches.shape[1]] += patches


def _clip(conditions: Conditions | None) -> AnimateClip:
    if not isinstance(conditions, AnimateClip):
        raise InputError(
            "conditions",
            "a character animation model needs the conditions that its `prepare` makes of a clip",
        )
    return conditions


def _face(config: DiTConfig) -> FaceConfig:
    if config.face is None:
        raise ValueError(f"this is the config of a {config.family} model, not of a character animation one")
    return config.face
