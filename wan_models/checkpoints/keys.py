"""The names other projects give to the same weights, as tables of (foreign, official) module paths.

`{i}` stands for a number. What follows a module path (".weight", ".bias", or the scale of a quantised weight)
stays as it is. Sources: diffusers' WanTransformer3DModel, WanAnimate2Transformer3DModel and AutoencoderKLWan,
transformers' UMT5EncoderModel (also ComfyUI's repackaged encoders) and CLIPVisionModel, LightX2V on the names in
Animate-2's own release, and llama.cpp's tensor names for T5 encoders.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

Table = list[tuple[str, str]]

WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_forward_module.")
"""Parts that torch puts into names, at any place: torch.compile, FSDP, activation checkpointing, Lightning."""
MODEL_PREFIXES = (
    "model", "module", "diffusion_model", "transformer", "transformer_2", "dit", "net", "network", "unet", "denoiser",
    "generator", "student", "pipe", "state_dict", "high_noise_model", "low_noise_model", "vae", "autoencoder",
    "first_stage_model", "text_encoder", "text_encoders", "umt5xxl", "t5", "cond_stage_model", "clip", "clip_vision",
    "image_encoder", "audio_encoder", "wav2vec2", "ema", "ema_model", "model_ema",
)  # fmt: skip
"""Prefixes that repackaged and trained files put before every name, each with a dot, several in a row."""

SIGNS = (
    "patch_embedding.weight", "token_embedding.weight", "shared.weight", "enc.blk.0.attn_q.weight",
    "decoder.conv1.weight", "decoder.conv_in.weight", "visual.patch_embedding.weight",
    "vision_model.embeddings.class_embedding", "feature_extractor.conv_layers.0.conv.weight",
    "decoder.22.bias",
)  # fmt: skip
"""One weight at the root of each kind of model, under every naming; diffusion models go first."""

_ATTENTION = [(f"to_{x}", x) for x in "qkv"] + [("to_out.0", "o"), ("norm_q", "norm_q"), ("norm_k", "norm_k")]
_TRANSFORMER: Table = [
    ("patch_embedding", "patch_embedding"),
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("condition_embedder.time_proj", "time_projection.1"),
    ("condition_embedder.image_embedder.norm1", "img_emb.proj.0"),
    ("condition_embedder.image_embedder.ff.net.0.proj", "img_emb.proj.1"),
    ("condition_embedder.image_embedder.ff.net.2", "img_emb.proj.3"),
    ("condition_embedder.image_embedder.norm2", "img_emb.proj.4"),
    ("condition_embedder.image_embedder.pos_embed", "img_emb.emb_pos"),
    *((f"blocks.{{i}}.attn1.{a}", f"blocks.{{i}}.self_attn.{b}") for a, b in _ATTENTION),
    *((f"blocks.{{i}}.attn2.{a}", f"blocks.{{i}}.cross_attn.{b}") for a, b in _ATTENTION),
    ("blocks.{i}.attn2.add_k_proj", "blocks.{i}.cross_attn.k_img"),
    ("blocks.{i}.attn2.add_v_proj", "blocks.{i}.cross_attn.v_img"),
    ("blocks.{i}.attn2.norm_added_k", "blocks.{i}.cross_attn.norm_k_img"),
    ("blocks.{i}.norm2", "blocks.{i}.norm3"),
    ("blocks.{i}.ffn.net.0.proj", "blocks.{i}.ffn.0"),
    ("blocks.{i}.ffn.net.2", "blocks.{i}.ffn.2"),
    ("blocks.{i}.scale_shift_table", "blocks.{i}.modulation"),
    ("scale_shift_table", "head.modulation"),
    ("proj_out", "head.head"),
]

# Wan-Animate-2 has the image-to-video model's weights; its releases name some of them otherwise
_ROOT: Table = [
    (name, name)
    for name in (
        "patch_embedding", *(f"{part}.{n}" for part in ("text_embedding", "time_embedding") for n in (0, 2)),
        "time_projection.1", *(f"img_emb.proj.{n}" for n in (0, 1, 3, 4)), "head.head", "head.modulation",
    )
]  # fmt: skip
_ANIMATE_2: Table = [*_ROOT, ("blocks.{i}.block", "blocks.{i}")]
_ANIMATE_2_DIFFUSERS: Table = [
    *_ROOT,
    *(
        (f"blocks.{{i}}.{part}.{a}", f"blocks.{{i}}.{part}.{b}")
        for part in ("self_attn", "cross_attn")
        for a, b in _ATTENTION
    ),
    ("blocks.{i}.cross_attn.add_k_proj", "blocks.{i}.cross_attn.k_img"),
    ("blocks.{i}.cross_attn.add_v_proj", "blocks.{i}.cross_attn.v_img"),
    ("blocks.{i}.cross_attn.norm_added_k", "blocks.{i}.cross_attn.norm_k_img"),
    *((f"blocks.{{i}}.{name}", f"blocks.{{i}}.{name}") for name in ("norm3", "ffn.0", "ffn.2", "modulation")),
]


def _residual(foreign: str, official: str) -> Table:
    """One residual block of a VAE."""
    return [
        (f"{foreign}.norm1", f"{official}.residual.0"),
        (f"{foreign}.conv1", f"{official}.residual.2"),
        (f"{foreign}.norm2", f"{official}.residual.3"),
        (f"{foreign}.conv2", f"{official}.residual.6"),
        (f"{foreign}.conv_shortcut", f"{official}.shortcut"),
    ]


_VAE_COMMON: Table = [
    ("quant_conv", "conv1"),
    ("post_quant_conv", "conv2"),
    *(
        entry
        for part in ("encoder", "decoder")
        for entry in [
            (f"{part}.conv_in", f"{part}.conv1"),
            (f"{part}.norm_out", f"{part}.head.0"),
            (f"{part}.conv_out", f"{part}.head.2"),
            (f"{part}.mid_block.attentions.0", f"{part}.middle.1"),
            *_residual(f"{part}.mid_block.resnets.0", f"{part}.middle.0"),
            *_residual(f"{part}.mid_block.resnets.1", f"{part}.middle.2"),
        ]
    ),
]
# 2.1: official levels are flat lists, of 2 blocks and a resampling in the encoder, 3 blocks and one in the decoder
_VAE_2_1: Table = [
    *_VAE_COMMON,
    ("encoder.down_blocks.{i}.resample", "encoder.downsamples.{i}.resample"),
    ("encoder.down_blocks.{i}.time_conv", "encoder.downsamples.{i}.time_conv"),
    *_residual("encoder.down_blocks.{i}", "encoder.downsamples.{i}"),
    *(
        entry
        for level in range(4)
        for entry in [
            (f"decoder.up_blocks.{level}.upsamplers.0", f"decoder.upsamples.{4 * level + 3}"),
            *(
                entry
                for block in range(3)
                for entry in _residual(
                    f"decoder.up_blocks.{level}.resnets.{block}", f"decoder.upsamples.{4 * level + block}"
                )
            ),
        ]
    ),
]
# 2.2: levels hold their blocks in both, and the resampling follows them
_VAE_2_2: Table = [
    *_VAE_COMMON,
    ("encoder.down_blocks.{i}.downsampler", "encoder.downsamples.{i}.downsamples.2"),
    ("decoder.up_blocks.{i}.upsampler", "decoder.upsamples.{i}.upsamples.3"),
    *_residual("encoder.down_blocks.{i}.resnets.{i}", "encoder.downsamples.{i}.downsamples.{i}"),
    *_residual("decoder.up_blocks.{i}.resnets.{i}", "decoder.upsamples.{i}.upsamples.{i}"),
]
_T5_HUGGING_FACE: Table = [
    ("shared", "token_embedding"),
    ("encoder.final_layer_norm", "norm"),
    ("encoder.block.{i}.layer.0.layer_norm", "blocks.{i}.norm1"),
    *((f"encoder.block.{{i}}.layer.0.SelfAttention.{x}", f"blocks.{{i}}.attn.{x}") for x in "qkvo"),
    (
        "encoder.block.{i}.layer.0.SelfAttention.relative_attention_bias",
        "blocks.{i}.pos_embedding.embedding",
    ),
    ("encoder.block.{i}.layer.1.layer_norm", "blocks.{i}.norm2"),
    ("encoder.block.{i}.layer.1.DenseReluDense.wi_0", "blocks.{i}.ffn.gate.0"),
    ("encoder.block.{i}.layer.1.DenseReluDense.wi_1", "blocks.{i}.ffn.fc1"),
    ("encoder.block.{i}.layer.1.DenseReluDense.wo", "blocks.{i}.ffn.fc2"),
]
_T5_LLAMA_CPP: Table = [
    ("token_embd", "token_embedding"),
    ("enc.output_norm", "norm"),
    ("enc.blk.{i}.attn_norm", "blocks.{i}.norm1"),
    *((f"enc.blk.{{i}}.attn_{x}", f"blocks.{{i}}.attn.{x}") for x in "qkvo"),
    ("enc.blk.{i}.attn_rel_b", "blocks.{i}.pos_embedding.embedding"),
    ("enc.blk.{i}.ffn_norm", "blocks.{i}.norm2"),
    ("enc.blk.{i}.ffn_gate", "blocks.{i}.ffn.gate.0"),
    ("enc.blk.{i}.ffn_up", "blocks.{i}.ffn.fc1"),
    ("enc.blk.{i}.ffn_down", "blocks.{i}.ffn.fc2"),
]
_CLIP: Table = [
    ("vision_model.embeddings.class_embedding", "visual.cls_embedding"),
    ("vision_model.embeddings.position_embedding.weight", "visual.pos_embedding"),
    ("vision_model.embeddings.patch_embedding", "visual.patch_embedding"),
    ("vision_model.pre_layrnorm", "visual.pre_norm"),
    ("vision_model.post_layernorm", "visual.post_norm"),
    ("visual_projection", "visual.projection"),
    *(
        (f"vision_model.encoder.layers.{{i}}.self_attn.{x}_proj", f"visual.transformer.{{i}}.attn.to_{x}")
        for x in "qkv"
    ),
    ("vision_model.encoder.layers.{i}.self_attn.out_proj", "visual.transformer.{i}.attn.proj"),
    ("vision_model.encoder.layers.{i}.layer_norm1", "visual.transformer.{i}.norm1"),
    ("vision_model.encoder.layers.{i}.layer_norm2", "visual.transformer.{i}.norm2"),
    ("vision_model.encoder.layers.{i}.mlp.fc1", "visual.transformer.{i}.mlp.0"),
    ("vision_model.encoder.layers.{i}.mlp.fc2", "visual.transformer.{i}.mlp.2"),
]


@dataclass(frozen=True)
class Scheme:
    """One project's names: `table`, a name that `tells` the scheme, and names that are `dropped` as duplicates."""

    tells: str
    table: Table
    dropped: tuple[str, ...] = ()

    @cached_property
    def forth(self) -> "_Renaming":
        return _Renaming(self.table)

    @cached_property
    def back(self) -> "_Renaming":
        return _Renaming([(official, foreign) for foreign, official in self.table])


class _Renaming:
    """A table as one function from names to names."""

    def __init__(self, table: Table) -> None:
        self._rules = [
            (re.compile(re.escape(source).replace(r"\{i\}", r"(\d+)") + r"(\..+|$)"), target.split("{i}"))
            for source, target in table
        ]

    def __call__(self, name: str) -> str | None:
        """The other name, None where the table has none."""
        for pattern, parts in self._rules:
            if match := pattern.fullmatch(name):
                *numbers, rest = match.groups()
                return "".join(a + b for a, b in zip(parts, [*numbers, ""], strict=True)) + rest
        return None


SCHEMES: dict[str, Scheme] = {
    "diffusers transformer": Scheme("condition_embedder.time_proj.weight", _TRANSFORMER),
    "Animate-2 release": Scheme("blocks.0.block.self_attn.q.weight", _ANIMATE_2),
    "diffusers Animate-2": Scheme("blocks.0.self_attn.to_q.weight", _ANIMATE_2_DIFFUSERS),
    "diffusers VAE 2.2": Scheme("encoder.down_blocks.0.resnets.0.conv1.weight", _VAE_2_2),
    "diffusers VAE 2.1": Scheme("encoder.down_blocks.0.conv1.weight", _VAE_2_1),
    "transformers UMT5": Scheme("shared.weight", _T5_HUGGING_FACE, dropped=("encoder.embed_tokens.weight",)),
    "transformers CLIP": Scheme(
        "vision_model.embeddings.class_embedding", _CLIP, dropped=("vision_model.embeddings.position_ids",)
    ),
    "llama.cpp UMT5": Scheme("enc.blk.0.attn_q.weight", _T5_LLAMA_CPP),
}


def prefix_of(names: Iterable[str]) -> str:
    """Prefix of every name of the model in a file; the first model of `SIGNS` counts.

    Raises ValueError where several models of that kind lie side by side."""
    names = list(names)
    for sign in SIGNS:
        prefixes = {name.removesuffix(sign) for name in names if name.endswith(sign)}
        prefixes = {prefix for prefix in prefixes if _only_prefixes(prefix)}
        # averages of training lie beside the weights that they are of
        prefixes = {prefix for prefix in prefixes if "ema" not in prefix} or prefixes
        if "" in prefixes or not prefixes:
            if prefixes:
                return ""
            continue
        if len(prefixes) > 1:
            raise ValueError(
                f"holds several models ({', '.join(f'{prefix}*' for prefix in sorted(prefixes))}): save the one "
                "that is meant as a file of its own"
            )
        return prefixes.pop()
    return ""


def _only_prefixes(text: str) -> bool:
    return not text or (text.endswith(".") and all(part in MODEL_PREFIXES for part in text[:-1].split(".")))


def scheme_of(names: Iterable[str]) -> str:
    """The scheme of `SCHEMES` that names are of; "" where that is none of them."""
    names = set(names)
    return next((name for name, scheme in SCHEMES.items() if scheme.tells in names), "")


def to_official(names: Iterable[str]) -> dict[str, str] | None:
    """Foreign name -> official name; None where the names are of no foreign scheme.

    Duplicates are left out. Names that the scheme does not know are kept, so that a loader can report them."""
    names = list(names)
    scheme = SCHEMES.get(scheme_of(names))
    if scheme is None:
        return None
    return {name: scheme.forth(name) or name for name in names if name not in scheme.dropped}


def to_foreign(scheme: str, names: Iterable[str]) -> dict[str, str]:
    """Official name -> the name in a scheme of `SCHEMES`; ValueError on an unknown scheme or name."""
    if scheme not in SCHEMES:
        raise ValueError(f"unknown scheme {scheme!r}; known are {', '.join(SCHEMES)}")
    foreign_names = {}
    for name in names:
        foreign = SCHEMES[scheme].back(name)
        if foreign is None:
            raise ValueError(f"{name} has no name in the scheme {scheme!r}")
        foreign_names[name] = foreign
    return foreign_names
