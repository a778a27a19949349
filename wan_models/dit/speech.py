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
from torch import Tensor, nn

from .. import ops as default_ops
from ..attention import Attention, get_attention
from ..config import MOTION_FRAMES, DiTConfig, SpeechConfig
from ..rope import Positions, RotaryTable, rotary_at, rotary_table
from .base import RunBlock, WanModel
from .layers import CrossAttention, pad_text
from .speech_audio import CausalAudioEncoder

MOTION_LATENTS = (MOTION_FRAMES + 3) // 4
REFERENCE_TIME = 30
"""Where in time the reference image stands, in latent frames."""
# latent frames in each pack, the newest first, and how much coarser than a patch it is
_PACKS = ((1, 1), (2, 2), (16, 4))
_NOISY, _REFERENCE, _MOTION = range(3)


class AdaptiveNorm(nn.Module):
    """A layer norm whose shift and scale come from the audio of the frame. Source: AdaLayerNorm of diffusers."""

    def __init__(self, dim: int, ops: ModuleType, **factory) -> None:  # noqa: ANN003
        super().__init__()
        self.linear = ops.Linear(dim, dim * 2, **factory)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """x [B, F, N, C] and the modulation of its frames -> [B, F, N, C]."""
        shift, scale = modulation.unsqueeze(2).chunk(2, dim=-1)
        return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-5), 1 + scale)


class AudioInjector(nn.Module):
    """Attention from each latent frame's tokens to those of its audio, one for each block that has it."""

    def __init__(self, config: DiTConfig, ops: ModuleType, **factory) -> None:  # noqa: ANN003
        super().__init__()
        count = len(_speech(config).inject_layers)
        self.injector = nn.ModuleList(CrossAttention(config, ops, **factory) for _ in range(count))
        self.injector_adain_layers = nn.ModuleList(
            AdaptiveNorm(config.dim, ops, **factory) for _ in range(count)
        )

    def modulations(self, audio: Tensor) -> tuple[Tensor, ...]:
        """What the audio of each frame [B, F, C] does to the norm of each injection, [B, F, 2 C]."""
        return tuple(layer.linear(F.silu(audio)) for layer in self.injector_adain_layers)  # type: ignore[operator]


class FramePacker(nn.Module):
    """Latents of the frames before -> tokens: the newest as fine as the video's, older ones in coarser patches."""

    def __init__(self, config: DiTConfig, ops: ModuleType, **factory) -> None:  # noqa: ANN003
        super().__init__()
        for name, (_, factor) in zip(("proj", "proj_2x", "proj_4x"), _PACKS, strict=True):
            kernel = (factor, 2 * factor, 2 * factor)
            self.add_module(name, ops.Conv3d(config.out_dim, config.dim, kernel, stride=kernel, **factory))

    def forward(
        self, latents: Tensor, dtype: torch.dtype, table_at: Callable[[Positions], RotaryTable]
    ) -> tuple[Tensor, RotaryTable]:
        """[B, C, 19, H, W] of any number of frames -> tokens [B, L, dim] of `dtype` and their table."""
        total = sum(frames for frames, _ in _PACKS)
        latents = F.pad(latents, (0, 0, 0, 0, max(0, total - latents.shape[2]), 0))[:, :, -total:]
        tokens, tables, end = [], [], total
        for name, (frames, factor) in zip(("proj", "proj_2x", "proj_4x"), _PACKS, strict=True):
            patches = getattr(self, name)(latents[:, :, end - frames : end].to(dtype))
            tokens.append(patches.flatten(2).transpose(1, 2))
            # counted back from the clip's first frame; coarser patches stand at whole positions in between
            newest, oldest = total - end + 1, total - end + frames
            times = _spread(oldest, newest if factor < 4 else oldest - frames + 1, frames // factor)
            rows, columns = (_spread(0, size // 2 - 1, size // (2 * factor)) for size in latents.shape[3:])
            positions = (tuple(-t for t in times), rows, columns)
            tables.append(table_at(positions))
            end -= frames
        return torch.cat(tokens, dim=1), torch.cat(tables)


def _spread(first: int, last: int, count: int) -> tuple[int, ...]:
    """`count` whole numbers from first to last, evenly spread and cut off."""
    return tuple(np.linspace(first, last, count).astype(int).tolist())


@dataclass(frozen=True)
class SpeechClip:
    """What stays the same over the steps of a clip.

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

    def __init__(
        self,
        config: DiTConfig,
        ops: ModuleType = default_ops,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(config, ops, device, dtype)
        factory = {"device": device, "dtype": dtype}
        speech = _speech(config)
        self.cond_encoder = ops.Conv3d(
            speech.cond_dim, config.dim, kernel_size=config.patch_size, stride=config.patch_size, **factory
        )
        self.casual_audio_encoder = CausalAudioEncoder(speech, config.dim, ops, **factory)
        self.audio_injector = AudioInjector(config, ops, **factory)
        self.trainable_cond_mask = ops.Embedding(3, config.dim, **factory)
        self.frame_packer = FramePacker(config, ops, **factory)

    def prepare(
        self,
        reference: Tensor | None,
        motion: Tensor | None,
        pose: Tensor | None,
        audio: Tensor | None,
        size: tuple[int, int, int],
    ) -> SpeechClip:
        """Everything constant over the steps of a clip of latent `size` (frames, height, width).

        reference: latent image [B, C, 1, H, W]. motion: latents of the frames before [B, C, T, H, W], None where
        there are none. pose: latents [B, C, F, H, W], None for no pose. audio: features [B, layers, audio_dim,
        4 F]. Raises ValueError where they do not fit the model."""
        given = next((x for x in (reference, motion, pose, audio) if x is not None), None)
        if given is None:
            raise ValueError(
                "a speech-to-video model needs a reference image and audio: connect WanS2VCondition"
            )
        batch, device = given.shape[0], given.device
        if pose is not None and tuple(pose.shape[2:]) != tuple(size):
            raise ValueError(
                f"the pose has latent size {tuple(pose.shape[2:])} and the video {tuple(size)} (frames, height, "
                "width): the pose video must be as long and as large as the video"
            )

        def table_at(positions: Positions) -> RotaryTable:
            return self.rotary_at(positions, device)

        tokens, tables = [], []
        if reference is not None:
            patches, (_, height, width) = self.patchify(reference)
            tokens.append(patches + self._kind(_REFERENCE, patches))
            rows, columns = tuple(range(height)), tuple(range(width))
            tables.append(table_at(((REFERENCE_TIME,), rows, columns)))
        if motion is not None:
            packed, table = self.frame_packer(motion, self.compute_dtype, table_at)
            tokens.append(packed.float() + self._kind(_MOTION, packed))
            tables.append(table)
        audio_tokens: Tensor | None = None
        modulation: tuple[Tensor, ...] = ()
        if audio is not None:
            audio_tokens, modulation = self._encode_audio(audio, size[0])
        return SpeechClip(
            pose=pose,
            tokens=torch.cat(tokens, dim=1)
            if tokens
            else torch.zeros(batch, 0, self.config.dim, device=device),
            rotary=torch.cat(tables)
            if tables
            else torch.zeros(0, 1, self.config.head_dim // 2, device=device),
            audio=audio_tokens,
            modulation=modulation,
        )

    def rotary_at(self, positions: Positions, device: torch.device) -> RotaryTable:
        """The table of tokens beside the video's, at `positions` (of frames, rows, columns)."""
        return rotary_at(positions, self.config.head_dim, device)

    def _kind(self, kind: int, like: Tensor) -> Tensor:
        """What is added to the tokens of a kind, [1, 1, C] in float32."""
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
        before = audio[..., :1].expand(-1, -1, -1, MOTION_FRAMES)
        whole, tokens = self.casual_audio_encoder(torch.cat([before, audio], dim=-1).float())
        whole, tokens = (x[:, MOTION_LATENTS : MOTION_LATENTS + frames] for x in (whole, tokens))
        if tokens.shape[1] != frames:
            raise ValueError(
                f"{audio.shape[-1]} steps of audio do not cover {frames} latent frames of 4 each"
            )
        return tokens.to(self.compute_dtype), self.audio_injector.modulations(whole)

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor | list[Tensor],
        clip: SpeechClip,
        *,
        attention: Attention | None = None,
        rotary: RotaryTable | None = None,
        run_block: RunBlock | None = None,
    ) -> Tensor:
        """As `WanModel.forward`, with what `prepare` has made of the clip; t [B]."""
        context = pad_text(context, self.config.text_len)
        self._check(x, context)
        attention = attention or get_attention()
        tokens, grid = self.patchify(x)
        length = tokens.shape[1]
        tokens = tokens.add_(self._pose(clip)).add_(self._kind(_NOISY, tokens))
        e, e0 = self.embed_time(torch.stack([t, torch.zeros_like(t)], dim=1))
        table = rotary if rotary is not None else rotary_table(grid, self.config.head_dim, x.device)

        def inject(index: int, hidden: Tensor) -> Tensor:
            return self._inject(index, hidden, length, clip, attention)

        tokens = self.run_blocks(
            torch.cat([tokens, clip.tokens.expand(x.shape[0], -1, -1)], dim=1),
            run_block,
            after=inject,
            e=e0,
            lengths=(length, clip.tokens.shape[1]),
            context=self.text_embedding(context.to(self.compute_dtype)),
            rotary=torch.cat([table, clip.rotary.to(table.device)]),
            attention=attention,
        )
        return self.unpatchify(self.head(tokens[:, :length], e[:, :1]), grid)

    def _pose(self, clip: SpeechClip) -> Tensor:
        """What the pose adds to the video's tokens, [B, L, C]; without one, what the layer adds to all of them."""
        pose = clip.pose
        if pose is None:
            pose = clip.tokens.new_zeros(1, _speech(self.config).cond_dim, *self.config.patch_size)
        return self.cond_encoder(pose.to(self.compute_dtype)).flatten(2).transpose(1, 2)

    def _inject(
        self, index: int, hidden: Tensor, length: int, clip: SpeechClip, attention: Attention
    ) -> Tensor:
        """Adds to the video's tokens what they take from the audio after block `index`, in place."""
        layers = _speech(self.config).inject_layers
        if clip.audio is None or index not in layers:
            return hidden
        place = layers.index(index)
        frames = clip.audio.shape[1]
        video = hidden[:, :length].unflatten(1, (frames, -1))
        normed = self.audio_injector.injector_adain_layers[place](video, clip.modulation[place])
        audio = clip.audio.flatten(0, 1)
        out = self.audio_injector.injector[place](
            normed.flatten(0, 1).to(audio.dtype), audio, None, attention
        )
        hidden[:, :length] += out.unflatten(0, (-1, frames)).flatten(1, 2)
        return hidden


def _speech(config: DiTConfig) -> SpeechConfig:
    if config.speech is None:
        raise ValueError(f"this is the config of a {config.family} model, not of a speech-to-video one")
    return config.speech
