"""The diffusion transformer of S2V-14B: the common one, driven by speech.

Beside the video's noisy tokens it sees those of a reference image and of the frames before (packed the coarser the
older they are), at timestep 0. After some of its blocks each latent frame of the video attends to its own tokens of
audio. Source: wan/modules/s2v of the official code, whose parameter names are kept.

Everything that does not change over the steps of a clip is computed once, in `prepare`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .. import ops as default_ops
from ..attention import Attention
from ..config import MOTION_FRAMES, DiTConfig, SpeechConfig
from ..rope import Positions, RotaryTable
from .base import InputError, WanModel
from .layers import CrossAttention
from .pieces import by_piece
from .speech_audio import CausalAudioEncoder
from .tokens import Conditions, FrameSpan, Inputs, Tokens, flatten_frames

MOTION_LATENTS = (MOTION_FRAMES + 3) // 4
REFERENCE_TIME = 30
"""Position of the reference image in time, in latent frames."""
# an empty pose that went through an encoder and was normalised comes out about zero
_NO_POSE = 1e-4
# latent frames in each pack, the newest first, and how much coarser than a patch it is
_PACKS = ((1, 1), (2, 2), (16, 4))
LEAST_LATENT_SIDE = 2 * max(factor for _, factor in _PACKS)
"""Latent cells that each side has at least where frames came before: the coarsest patch."""
_NOISY, _REFERENCE, _MOTION = range(3)


class AdaptiveNorm(nn.Module):
    """A layer norm whose shift and scale come from the audio of the frame. Source: AdaLayerNorm of diffusers."""

    def __init__(self, dim: int, ops: ModuleType) -> None:
        super().__init__()
        self.linear = ops.Linear(dim, dim * 2)

    def forward(self, x: Tensor, modulation: Tensor, dtype: torch.dtype) -> Tensor:
        """Tokens of frames x [B * F, N, C] and the modulation [B * F, 1, 2 C] of each -> [B * F, N, C] in `dtype`."""

        def change(x: Tensor, frames: slice, _tokens: slice) -> Tensor:
            shift, scale = modulation[frames].chunk(2, dim=-1)
            return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-5), 1 + scale)

        return by_piece(change, x, dtype)


class AudioInjector(nn.Module):
    """Attention from each latent frame's tokens to those of its audio, one for each block that has it."""

    def __init__(self, config: DiTConfig, ops: ModuleType) -> None:
        super().__init__()
        count = len(_speech(config).inject_layers)
        self.injector = nn.ModuleList(CrossAttention(config, ops) for _ in range(count))
        self.injector_adain_layers = nn.ModuleList(AdaptiveNorm(config.dim, ops) for _ in range(count))

    def modulations(self, audio: Tensor) -> tuple[Tensor, ...]:
        """Modulation of each injection's norm by the audio of each frame [B, F, C], [B, F, 2 C]."""
        return tuple(layer.linear(F.silu(audio)) for layer in self.injector_adain_layers)  # type: ignore[operator]


class FramePacker(nn.Module):
    """Latents of the frames before -> tokens: the newest as fine as the video's, older ones in coarser patches."""

    def __init__(self, config: DiTConfig, ops: ModuleType) -> None:
        super().__init__()
        for name, (_, factor) in zip(("proj", "proj_2x", "proj_4x"), _PACKS, strict=True):
            kernel = (factor, 2 * factor, 2 * factor)
            self.add_module(name, ops.Conv3d(config.out_dim, config.dim, kernel, stride=kernel))

    def forward(
        self, latents: Tensor, dtype: torch.dtype, rotary_at: Callable[[Positions, torch.device], RotaryTable]
    ) -> tuple[Tensor, RotaryTable]:
        """[B, C, 19, H, W] of any number of frames -> tokens [B, L, dim] of `dtype` and their table.

        Raises InputError where a side is shorter than LEAST_LATENT_SIDE."""
        height, width = latents.shape[3:]
        if min(height, width) < LEAST_LATENT_SIDE:
            raise InputError(
                "size",
                f"{width} x {height} latent cells are too small to go on from the frames before: width and height need "
                f"{LEAST_LATENT_SIDE}, or {8 * LEAST_LATENT_SIDE} pixels",
            )
        total = sum(frames for frames, _ in _PACKS)
        latents = F.pad(latents, (0, 0, 0, 0, max(0, total - latents.shape[2]), 0))[:, :, -total:]
        tokens, tables, end = [], [], total
        for name, (frames, factor) in zip(("proj", "proj_2x", "proj_4x"), _PACKS, strict=True):
            patches = getattr(self, name)(latents[:, :, end - frames : end].to(dtype))
            tokens.append(rearrange(patches, "b c f h w -> b (f h w) c"))
            # counted back from the clip's first frame; coarser patches stand at whole positions in between
            newest, oldest = total - end + 1, total - end + frames
            times = _spread(oldest, newest if factor < 4 else oldest - frames + 1, frames // factor)
            rows, columns = (_spread(0, size // 2 - 1, size // (2 * factor)) for size in latents.shape[3:])
            positions = (tuple(-t for t in times), rows, columns)
            tables.append(rotary_at(positions, latents.device))
            end -= frames
        return torch.cat(tokens, dim=1), torch.cat(tables)


def _spread(first: int, last: int, count: int) -> tuple[int, ...]:
    """`count` whole numbers from first to last, evenly spread and cut off."""
    return tuple(np.linspace(first, last, count).astype(int).tolist())


@dataclass(frozen=True)
class SpeechInputs(Inputs):
    """Inputs of a clip; None for what it goes without.

    reference: latent image [B, C, 1, H, W]. motion: latents of the frames before [B, C, T, H, W]. pose: latents
    [B, C, F, H, W]; all zeros are no pose. audio: features [B, layers, audio_dim, 4 F] or more steps."""

    reference: Tensor | None = None
    motion: Tensor | None = None
    pose: Tensor | None = None
    audio: Tensor | None = None


@dataclass(frozen=True)
class SpeechClip(Conditions):
    """Conditions of a clip, the same over its steps.

    pose: latents [B, C, F, H, W], None for no pose; their tokens are cheaper made than kept. tokens: those of
    reference and motion [B, L', C], with their positions `rotary`. audio: tokens [B, F, n, C] of each latent frame;
    modulation: one [B, F, 2 C] per injection."""

    pose: Tensor | None
    tokens: Tensor
    rotary: RotaryTable
    audio: Tensor | None
    modulation: tuple[Tensor, ...]


class WanSpeechModel(WanModel):
    """Velocity of the flow at a noise level, for latent video, text and a `SpeechClip`."""

    inputs_class = SpeechInputs

    def __init__(self, config: DiTConfig, ops: ModuleType = default_ops) -> None:
        super().__init__(config, ops)
        speech = _speech(config)
        self.cond_encoder = ops.Conv3d(
            speech.cond_dim, config.dim, kernel_size=config.patch_size, stride=config.patch_size
        )
        self.casual_audio_encoder = CausalAudioEncoder(speech, config.dim, ops)
        self.audio_injector = AudioInjector(config, ops)
        self.trainable_cond_mask = ops.Embedding(3, config.dim)
        self.frame_packer = FramePacker(config, ops)

    def prepare(self, inputs: Inputs, size: tuple[int, int, int]) -> SpeechClip:
        """Everything constant over the steps of a clip of latent `size` (frames, height, width).

        Raises ValueError where the inputs do not fit the model or each other."""
        if not isinstance(inputs, SpeechInputs):
            raise InputError("conditions", "a speech-to-video model takes SpeechInputs")
        reference, motion, pose, audio = inputs.reference, inputs.motion, inputs.pose, inputs.audio
        given = next((x for x in (reference, motion, pose, audio) if x is not None), None)
        if given is None:
            raise InputError("missing", "a speech-to-video model needs a reference image and audio")
        batch, device = given.shape[0], given.device
        if pose is not None and tuple(pose.shape[2:]) != tuple(size):
            raise InputError(
                "size",
                f"the pose has latent size {tuple(pose.shape[2:])} and the video {tuple(size)} (frames, height, "
                "width): the pose video must be as long and as large as the video",
            )
        tokens = [torch.zeros(batch, 0, self.config.dim, device=device)]
        tables = [torch.zeros(0, 1, self.config.head_dim // 2, dtype=torch.complex64, device=device)]
        if reference is not None:
            patches, (_, height, width) = self.patchify(reference)
            tokens.append(patches + self._kind_embedding(_REFERENCE, patches))
            rows, columns = tuple(range(height)), tuple(range(width))
            tables.append(self.rotary_at(((REFERENCE_TIME,), rows, columns), device))
        if motion is not None:
            packed, table = self.frame_packer(motion, self.compute_dtype, self.rotary_at)
            tokens.append(packed.float() + self._kind_embedding(_MOTION, packed))
            tables.append(table)
        audio_tokens, modulation = (None, ()) if audio is None else self._encode_audio(audio, size[0])
        if pose is not None and pose.abs().max() < _NO_POSE:
            pose = None
        return SpeechClip(pose, torch.cat(tokens, dim=1), torch.cat(tables), audio_tokens, modulation)

    def _kind_embedding(self, kind: int, like: Tensor) -> Tensor:
        """Embedding added to the tokens of a kind, [1, 1, C] in float32."""
        index = torch.tensor([[kind]], device=like.device)
        return self.trainable_cond_mask(index, out_dtype=torch.float32)

    def _encode_audio(self, audio: Tensor, frames: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        speech = _speech(self.config)
        if audio.shape[1:3] != (speech.audio_layers, speech.audio_dim):
            raise ValueError(
                f"the model expects audio features of {speech.audio_layers} layers, {speech.audio_dim} wide, and got "
                f"{audio.shape[1]} of {audio.shape[2]}: encode the audio with wav2vec2-large-xlsr-53-english"
            )
        # the encoder looks back, so the first step is repeated as often as there are frames before the clip
        audio = audio[..., : 4 * frames]
        before = audio[..., :1].expand(-1, -1, -1, MOTION_FRAMES)
        whole, tokens = self.casual_audio_encoder(torch.cat([before, audio], dim=-1).float())
        whole, tokens = (x[:, MOTION_LATENTS : MOTION_LATENTS + frames] for x in (whole, tokens))
        if tokens.shape[1] != frames:
            raise ValueError(
                f"{audio.shape[-1]} steps of audio do not cover {frames} latent frames of 4 each"
            )
        return tokens.to(self.compute_dtype), self.audio_injector.modulations(whole)

    def embed_video(
        self, x: Tensor, t: Tensor, rotary: RotaryTable | None, conditions: Conditions | None
    ) -> Tokens:
        """The video's tokens, then those of reference and motion, which have timestep 0."""
        clip = _clip(conditions)
        video = super().embed_video(x, t, rotary, conditions)
        hidden = video.hidden.add_(self._pose_tokens(clip)).add_(self._kind_embedding(_NOISY, video.hidden))
        return Tokens(
            torch.cat([hidden, clip.tokens.expand(x.shape[0], -1, -1)], dim=1),
            torch.cat([video.t, torch.zeros_like(video.t)], dim=1),
            torch.cat([video.rotary, clip.rotary.to(video.rotary.device)]),
            video.grid,
            lengths=(hidden.shape[1], clip.tokens.shape[1]),
        )

    def after_block(
        self,
        index: int,
        hidden: Tensor,
        frames: FrameSpan,
        conditions: Conditions | None,
        attention: Attention,
    ) -> Tensor:
        """Adds to the video's tokens what they take from the audio."""
        clip, layers = _clip(conditions), _speech(self.config).inject_layers
        if clip.audio is None or index not in layers:
            return hidden
        place = layers.index(index)
        injector = self.audio_injector
        audio = flatten_frames(clip.audio[:, frames.frames])
        modulation = flatten_frames(clip.modulation[place][:, frames.frames].unsqueeze(2))
        norm = injector.injector_adain_layers[place]
        normed = norm(flatten_frames(frames.split(hidden)), modulation, audio.dtype)
        change = injector.injector[place](normed, audio, None, attention)
        return frames.add_(hidden, change)

    def units(self) -> list[nn.Module]:
        injector = self.audio_injector
        norms = [norm.linear for norm in injector.injector_adain_layers]  # type: ignore[misc]
        return [*self.blocks, *injector.injector, *norms]

    def _pose_tokens(self, clip: SpeechClip) -> Tensor:
        """Pose added to the video's tokens, [B, L, C]; without one, what the layer adds to all of them."""
        pose = clip.pose
        if pose is None:
            pose = clip.tokens.new_zeros(1, _speech(self.config).cond_dim, *self.config.patch_size)
        return rearrange(self.cond_encoder(pose.to(self.compute_dtype)), "b c f h w -> b (f h w) c")


def _clip(conditions: Conditions | None) -> SpeechClip:
    if not isinstance(conditions, SpeechClip):
        raise InputError(
            "conditions", "a speech-to-video model needs the conditions that its `prepare` makes of a clip"
        )
    return conditions


def _speech(config: DiTConfig) -> SpeechConfig:
    if config.speech is None:
        raise ValueError(f"this is the config of a {config.family} model, not of a speech-to-video one")
    return config.speech
