"""Models from checkpoints: recognised by their headers, built without memory, and filled with weights.

Paths are those of files (safetensors, .pth, GGUF, any one of a set of shards) or of a model's folder; names are
translated from the layouts of other projects, see `checkpoints.keys`.
"""

from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn

from . import ops as default_ops
from .audio.wav2vec import Wav2Vec
from .checkpoints.detect import ModelInfo, identify
from .checkpoints.loading import expect, load_into, load_tower, to_stored
from .checkpoints.reader import Checkpoint, open_checkpoint, open_model
from .config import CLIPConfig, DiTConfig, T5Config, TinyVAEConfig, VAEConfig
from .dit.base import WanModel
from .families import FAMILIES
from .text.encoder import TextEncoder
from .text.tokenizer import WanTokenizer, find_tokenizer
from .text.umt5 import UMT5Encoder
from .vae.base import VideoVAE
from .vae.streaming import Autoencoder
from .vae.tiny import TinyVAE
from .vae.wan21 import WanVAE21
from .vae.wan22 import WanVAE22
from .vision.clip import VisionTransformer

Config = DiTConfig | VAEConfig | TinyVAEConfig | T5Config | CLIPConfig
_VAES: dict[str, type[VideoVAE]] = {"2.1": WanVAE21, "2.2": WanVAE22}


def read_info(path: str | Path) -> ModelInfo:
    """Identifies a checkpoint by its header alone. Raises CheckpointError where it is broken."""
    return identify(open_model(path))


def open_as(path: str | Path, kind: str, taken_for: str = "auto") -> tuple[Checkpoint, ModelInfo]:
    """A checkpoint under official names and what it holds, a `kind` of `ModelInfo`; taken_for and errors as of
    `expect`."""
    checkpoint = open_model(path)
    return checkpoint, expect(checkpoint, kind, taken_for)


def open_text_encoder(
    path: str | Path, places: Iterable[Path] = ()
) -> tuple[Checkpoint, ModelInfo, WanTokenizer]:
    """`open_as` of a UMT5 encoder, and its tokenizer; places: as of `find_tokenizer`."""
    file = open_checkpoint(path)
    checkpoint = file.for_model()
    info = expect(checkpoint, "t5")  # a file of something else has no tokenizer either
    tokenizer = find_tokenizer(file, places)
    tokenizer.vocab_size = info.config.vocab_size
    return checkpoint, info, tokenizer


def network_class(config: Config) -> type[nn.Module]:
    """The class of the network that a config is of."""
    match config:
        case DiTConfig():
            return FAMILIES[config.family].network_class
        case VAEConfig():
            return _VAES[config.version]
        case TinyVAEConfig():
            return TinyVAE
        case T5Config():
            return UMT5Encoder
        case CLIPConfig():
            return VisionTransformer


def build_network(
    config: Config,
    ops: ModuleType = default_ops,
    dtype: torch.dtype = torch.float32,
    network: type | None = None,
) -> Any:
    """A network without weights, on the meta device. dtype: of its weights, and of its computation for now; network:
    its class, where it is to be another than the config's own."""
    with torch.device("meta"):
        model = (network or network_class(config))(config, ops).to(dtype)
    if isinstance(model, WanModel):
        model.dtype = dtype
    if hasattr(model, "compute_dtype"):
        model.compute_dtype = dtype
    return model.eval().requires_grad_(False)


def load_model(
    path: str | Path,
    kind: str,
    *,
    ops: ModuleType = default_ops,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    keep_packed: bool = False,
    taken_for: str = "auto",
) -> nn.Module:
    """A network with its weights: a `kind` of `ModelInfo`.

    ops: namespace of layers, see `ops`. dtype: of weights and computation; None takes that of the file, and bfloat16
    for the computation with weights of 8 bits or less. Norms and bare parameters of a diffusion model, tiny but
    sensitive, keep the file's. keep_packed: weights of GGUF and quantised files stay as they are in layers of `ops`
    that can unpack them, see `checkpoints.packed.packing`. taken_for: of a file that does not say whether it is image-
    to-video or Animate-2, one of `checkpoints.animate2.KINDS`.
    Raises WrongModelError, UnsupportedModelError and other kinds of CheckpointError, which are ValueErrors."""
    opened = open_as(path, kind, taken_for)
    return _load(*opened, ops=ops, dtype=dtype, device=device, keep_packed=keep_packed)


def _load(
    checkpoint: Checkpoint,
    info: ModelInfo,
    *,
    ops: ModuleType,
    dtype: torch.dtype | None,
    device: torch.device | str,
    keep_packed: bool,
) -> nn.Module:
    network = build_network(info.config, ops, dtype or info.compute_dtype)

    def convert(name: str, weight: Tensor) -> Tensor:
        weight = weight.to(device)
        if dtype is None and checkpoint.packing(name) is None:
            return weight
        compute = dtype or torch.bfloat16
        return to_stored(network, name, weight, compute) if info.kind == "dit" else weight.to(compute)

    if isinstance(network, VisionTransformer):
        load_tower(network, checkpoint)
        return network.to(device, dtype)
    load_into(network, checkpoint, convert, keep_packed)
    return network.to(device)  # packed weights too


def load_dit(
    path: str | Path,
    *,
    ops: ModuleType = default_ops,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    keep_packed: bool = False,
    taken_for: str = "auto",
) -> WanModel:
    """A diffusion model of any family; arguments and errors as of `load_model`. The official code computes in
    bfloat16."""
    more = {"keep_packed": keep_packed, "taken_for": taken_for}
    return cast(WanModel, load_model(path, "dit", ops=ops, dtype=dtype, device=device, **more))  # type: ignore[arg-type]


def load_vae(
    path: str | Path,
    *,
    ops: ModuleType = default_ops,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Autoencoder:
    """A Wan 2.1 or 2.2 VAE, or a tiny autoencoder; arguments and errors as of `load_model`. The official code computes
    in float32."""
    return cast(Autoencoder, load_model(path, "vae", ops=ops, dtype=dtype, device=device))


def load_text_encoder(
    path: str | Path,
    *,
    ops: ModuleType = default_ops,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    keep_packed: bool = False,
) -> TextEncoder:
    """UMT5 with its tokenizer, which is in the file or in a folder at or below the file's own; arguments and errors as
    of `load_model`. Raises TokenizerNotFoundError where there is none."""
    checkpoint, info, tokenizer = open_text_encoder(path)
    network = _load(checkpoint, info, ops=ops, dtype=dtype, device=device, keep_packed=keep_packed)
    return TextEncoder(cast(UMT5Encoder, network), tokenizer)


def load_image_encoder(
    path: str | Path,
    *,
    ops: ModuleType = default_ops,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> VisionTransformer:
    """CLIP's image tower, of Animate-14B and the Wan2.1 image-to-video models; arguments and errors as of
    `load_model`."""
    return cast(VisionTransformer, load_model(path, "clip_vision", ops=ops, dtype=dtype, device=device))


def load_audio_encoder(path: str | Path, *, device: torch.device | str = "cpu") -> Wav2Vec:
    """wav2vec2, of S2V-14B, by transformers. Raises CheckpointError where the checkpoint is broken or holds something
    else."""
    encoder = Wav2Vec(path)
    encoder.network.to(device)
    return encoder
