"""Identifies a checkpoint by names and shapes alone (and config.json, where there is one)."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch

from ..families import FAMILIES
from .header_config import channels_of, clip_config, dit_config, t5_config, tiny_vae_config, vae_config
from .lora_names import is_lora
from .reader import Checkpoint
from .tiny_vaes import is_tiny_vae, other_vae
from .variants import Variant, variant_of


@dataclass(frozen=True)
class ModelInfo:
    """Identity of a checkpoint.

    `kind` is dit, vae, t5, clip_vision, wav2vec2, variant or unknown; `config` goes with the kind.
    `dtype` is that of most plain weights; `packed` names the format of most packed ones, empty where none is.
    `variant`: which of the Wan models that are not run here, of that kind."""

    kind: str
    description: str
    parameters: int
    dtype: torch.dtype
    format: str
    config: Any = None  # a DiTConfig, VAEConfig, TinyVAEConfig, T5Config or CLIPConfig; none of others
    packed: str = ""
    variant: Variant | None = None

    @property
    def compute_dtype(self) -> torch.dtype:
        """Dtype of the weights; the official code's bfloat16 where theirs is for storage (packed, or of 8 bits)."""
        is_for_storage = bool(self.packed) or self.dtype.itemsize < 2
        return torch.bfloat16 if is_for_storage else self.dtype


def identify(checkpoint: Checkpoint, taken_for: str = "auto") -> ModelInfo:
    """Tells what a checkpoint holds; kind "unknown" where no rule fits. taken_for: as `kind` of
    `animate2.driven_config`. Raises CheckpointError where its weights do not make up the model that they belong to."""
    shapes = checkpoint.shapes
    parameters = sum(math.prod(shape) for shape in shapes.values())
    config: Any = None  # a DiTConfig, VAEConfig, TinyVAEConfig, T5Config or CLIPConfig
    is_dit = "patch_embedding.weight" in shapes and "head.head.weight" in shapes
    channels = channels_of(checkpoint) if is_dit else None
    variant = variant_of(shapes, channels)
    if variant is not None:
        kind, name = "variant", variant.name
    elif is_dit:
        kind, config = "dit", dit_config(checkpoint, taken_for)
        name = f"{FAMILIES[config.family].in_words('diffusion model')} ({config.in_dim} input channels)"
    elif "token_embedding.weight" in shapes and "blocks.0.attn.q.weight" in shapes:
        kind, config, name = "t5", t5_config(checkpoint), "a UMT5 text encoder"
    elif (other := other_vae(shapes, checkpoint.path.name)) is not None:
        kind, name = "unknown", other
    elif is_tiny_vae(shapes):
        kind, config = "vae", tiny_vae_config(checkpoint)
        name = f"a tiny autoencoder for the Wan {config.version} VAE's latents ({config.z_dim} channels)"
    elif "decoder.conv1.weight" in shapes and "encoder.conv1.weight" in shapes:
        kind, config = "vae", vae_config(checkpoint)
        name = f"a Wan {config.version} VAE ({config.z_dim} latent channels)"
    elif "visual.patch_embedding.weight" in shapes and "visual.transformer.0.norm1.weight" in shapes:
        kind, config, name = "clip_vision", clip_config(checkpoint), "a CLIP image encoder"
    elif "feature_extractor.conv_layers.0.conv.weight" in shapes:
        kind, name = "wav2vec2", "a wav2vec2 audio encoder"
    else:
        what = "a LoRA file" if is_lora(shapes) else "no model this pack knows"
        stated = f"the file says {checkpoint.gguf.architecture[:80]!r}, and " if checkpoint.gguf else ""
        kind, begins = "unknown", ", ".join(name[:200] for name in sorted(shapes)[:3])
        name = f"{what} ({stated}it begins with {begins})"
    size = (
        f", {parameters / 1e9:.1f} billion parameters" if parameters > 1e8 else f", {parameters:,} parameters"
    )
    description = name if kind == "unknown" else name + size
    dtype, packed = _main_dtype(checkpoint)
    return ModelInfo(kind, description, parameters, dtype, checkpoint.format, config, packed, variant)


def _main_dtype(checkpoint: Checkpoint) -> tuple[torch.dtype, str]:
    """The dtype that most of the plain weights are stored in, and the format of most of the packed ones."""
    plain: Counter[torch.dtype] = Counter()
    packed: Counter[str] = Counter()
    for name, dtype in checkpoint.dtypes.items():
        packing, size = checkpoint.packing(name), math.prod(checkpoint.shapes[name])
        if packing is None:
            plain[dtype] += size
        else:
            packed[packing.name] += size
    most = lambda counts, default: counts.most_common(1)[0][0] if counts else default  # noqa: E731
    return most(plain, torch.float32), most(packed, "")
