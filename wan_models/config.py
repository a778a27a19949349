"""Shapes of the networks that the Wan2.2 releases are made of, as frozen dataclasses.

`DiTConfig`, `VAEConfig`, `TinyVAEConfig`, `T5Config` and `CLIPConfig` describe one network each; they are read off a
checkpoint's header (`wan_models.checkpoints.detect`), so any width or depth loads. Source of every figure: the configs
of the official Wan2.2 code.
"""

from dataclasses import dataclass

NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，"
    "丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，"
    "静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)
"""The official negative prompt; the models were tuned with this very text."""


MOTION_FRAMES = 73
"""Frames before a clip that S2V-14B looks back on."""


@dataclass(frozen=True)
class SpeechConfig:
    """Parts of S2V-14B beside the common transformer: `audio_layers` hidden states of wav2vec2, `audio_dim` wide, which
    become `audio_tokens` tokens per latent frame and are injected after the blocks of `inject_layers`; `cond_dim`
    channels of pose latents."""

    audio_dim: int = 1024
    audio_layers: int = 25
    audio_tokens: int = 4
    inject_layers: tuple[int, ...] = (0, 4, 8, 12, 16, 20, 24, 27, 30, 33, 36, 39)
    cond_dim: int = 16


@dataclass(frozen=True)
class FaceConfig:
    """Parts of Animate-14B beside the common transformer: a motion encoder whose levels have `channels` (each halves
    the face's size, down to 4 pixels), that describes a face by `style_dim` numbers, `motion_dim` of them free; a face
    encoder `hidden_dim` wide that gives `tokens` tokens per latent frame; attention to them after every fifth block."""

    channels: tuple[int, ...] = (32, 64, 128, 256, 512, 512, 512, 512)
    style_dim: int = 512
    motion_dim: int = 20
    hidden_dim: int = 1024
    tokens: int = 4
    pose_dim: int = 16

    @property
    def size(self) -> int:
        """Width and height of a face, in pixels."""
        return 4 * 2 ** (len(self.channels) - 1)


@dataclass(frozen=True)
class DrivenConfig:
    """Differences of Animate-2-14B from the image-to-video model that it has the weights of.

    bias: added to the logits of all queries for the first latent frame after the reference; the distilled model's is
    DISTILLED_BIAS. skipped: block that the pass without the prompt leaves out, as the official code does."""

    bias: float = 0.0
    skipped: int = 9


DISTILLED_BIAS = -1.3
"""`DrivenConfig.bias` of the distilled Animate-2-14B."""


@dataclass(frozen=True)
class DiTConfig:
    """Shape of a Wan diffusion transformer. Defaults are T2V-A14B's.

    `family` is a name of `families.FAMILIES`. `in_dim` counts latent channels at the input, conditioning
    channels included; `text_len` is the number of text rows that cross-attention sees (shorter text is
    zero-padded to it, and the zero rows are attended). `image_dim` is the width of the CLIP image features that
    cross-attention sees beside the text (0: none), `image_positions` the number of learnt positions that the
    first-and-last-frame model adds to them."""

    family: str = "t2v"
    patch_size: tuple[int, int, int] = (1, 2, 2)
    in_dim: int = 16
    out_dim: int = 16
    dim: int = 5120
    ffn_dim: int = 13824
    freq_dim: int = 256
    text_dim: int = 4096
    text_len: int = 512
    num_heads: int = 40
    num_layers: int = 40
    qk_norm: bool = True
    cross_attn_norm: bool = True
    eps: float = 1e-6
    image_dim: int = 0
    image_positions: int = 0
    speech: SpeechConfig | None = None
    face: FaceConfig | None = None
    driven: DrivenConfig | None = None

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    def __post_init__(self) -> None:
        if self.dim % self.num_heads or self.head_dim % 2:
            raise ValueError(
                f"dim {self.dim} must split into {self.num_heads} heads of even width (dim % (2 * num_heads) == 0)"
            )


@dataclass(frozen=True)
class VAEConfig:
    """Shape of a Wan video autoencoder. Defaults are the 2.1 VAE's.

    `stride` is pixels per latent cell over (time, height, width); time counts as 1 + (frames - 1) / 4.
    `dec_dim` is the decoder's own base width (None: the encoder's)."""

    version: str = "2.1"
    base_dim: int = 96
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    temporal_downsample: tuple[bool, ...] = (False, True, True)
    stride: tuple[int, int, int] = (4, 8, 8)
    dec_dim: int | None = None


VAE_2_2 = VAEConfig("2.2", base_dim=160, z_dim=48, stride=(4, 16, 16), dec_dim=256)
"""The 2.2 VAE of TI2V-5B."""


@dataclass(frozen=True)
class TinyVAEConfig:
    """Shape of a tiny autoencoder (TAE) for the latents of a Wan VAE. Defaults are taew2_1's.

    `version`: of the VAE whose latents it has. `patch`: its first and last layer take patch x patch pixels together.
    `enc_dim`: width of the encoder, 0 where the file has none; `dec_dims`: of the decoder's levels, smallest pictures
    first. `raw`: whether it takes latents as the VAE gives them, or normalised, as diffusion models have them."""

    version: str = "2.1"
    z_dim: int = 16
    patch: int = 1
    enc_dim: int = 64
    dec_dims: tuple[int, ...] = (256, 128, 64, 64)
    raw: bool = False

    @property
    def stride(self) -> tuple[int, int, int]:
        """Pixels per latent cell, as of `VAEConfig`."""
        return (4, 8 * self.patch, 8 * self.patch)


@dataclass(frozen=True)
class T5Config:
    """Shape of a UMT5 encoder. Defaults are UMT5-XXL's."""

    vocab_size: int = 256384
    dim: int = 4096
    dim_attn: int = 4096
    dim_ffn: int = 10240
    num_heads: int = 64
    num_layers: int = 24
    num_buckets: int = 32
    text_len: int = 512


@dataclass(frozen=True)
class CLIPConfig:
    """Shape of a CLIP image tower. Defaults are ViT-H/14's."""

    image_size: int = 224
    patch_size: int = 14
    dim: int = 1280
    mlp_dim: int = 5120
    num_heads: int = 16
    num_layers: int = 32
    out_dim: int = 1024

    @property
    def rows(self) -> int:
        """Feature rows: one for the whole picture, one for each patch."""
        return 1 + (self.image_size // self.patch_size) ** 2
