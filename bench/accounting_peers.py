"""The host's and diffusers' models on the meta device, counted as ours are in `accounting`."""

import os
from functools import cache

import torch

from bench.accounting import DTYPE, IN_BANDS, MODELS, SIZES, TEXT_ENCODER, VAES, Case, count
from bench.counting import Cost, empty
from bench.peers import prepare
from wan_models.config import DiTConfig

PEERS = ("host", "diffusers")


@cache
def has_host() -> bool:
    os.environ.setdefault("COMFYUI", ".host/ComfyUI")
    return prepare()


def peers(case: Case) -> list[Cost | None]:
    """Costs of the host's and diffusers' networks; None where one has no such network, or it is not counted."""
    if case.task in ("block", IN_BANDS) or not has_host():
        return [None, None]
    if case.network in VAES:
        return [_autoencoder(case, peer) for peer in PEERS]
    if case.network == TEXT_ENCODER:
        return [_host_text_encoder(), None]
    if MODELS[case.network].family in (
        "s2v",
        "animate",
        "animate2",
    ):  # diffusers' has other inputs, or is not there
        return [None, None]
    return [_transformer(MODELS[case.network], case.latent, peer) for peer in PEERS]


def _on_meta(make):
    with torch.device("meta"):
        return make().to(DTYPE).eval().requires_grad_(False)


def _transformer(config: DiTConfig, latent: tuple[int, int, int], peer: str) -> Cost:
    x, context = empty(1, config.in_dim, *latent), empty(1, config.text_len, config.text_dim)
    tokens = latent[0] * latent[1] * latent[2] // 4
    if peer == "host":
        import comfy.ldm.wan.model
        import comfy.ops
        from comfy.ldm.modules import attention

        comfy.ldm.wan.model.optimized_attention = attention.attention_pytorch
        names = ("in_dim", "out_dim", "dim", "ffn_dim", "num_heads", "num_layers", "text_dim", "text_len")
        sizes = {name: getattr(config, name) for name in names}
        make = comfy.ldm.wan.model.WanModel
        network = _on_meta(
            lambda: make(**sizes, operations=comfy.ops.manual_cast, dtype=DTYPE, device="meta")
        )
        t = torch.empty(1, latent[0] if config.family == "ti2v" else 1, device="meta")
        return count(lambda: network(x, t, context))
    from diffusers import WanTransformer3DModel

    network = _on_meta(
        lambda: WanTransformer3DModel(
            num_attention_heads=config.num_heads, attention_head_dim=config.head_dim, in_channels=config.in_dim,
            out_channels=config.out_dim, ffn_dim=config.ffn_dim, num_layers=config.num_layers, rope_max_seq_len=1024,
        )
    )  # fmt: skip
    # its pipeline of TI2V-5B gives the timestep of each token
    t = torch.empty((1, tokens) if config.family == "ti2v" else (1,), device="meta")
    return count(lambda: network(x, t, context, return_dict=False))


def _autoencoder(case: Case, peer: str) -> Cost:
    network = _host_vae(case) if peer == "host" else _diffusers_vae(case)
    height, width, frames = SIZES[case.size]
    if case.task == "decode":
        z = empty(1, VAES[case.network].z_dim, *case.latent)
        return count(lambda: network.decode(z))
    video = empty(1, 3, frames, height, width)
    return count(lambda: network.encode(video))


def _host_vae(case: Case):
    import comfy.ldm.wan.vae
    import comfy.ldm.wan.vae2_2
    from comfy.ldm.modules.diffusionmodules.model import pytorch_attention

    comfy.ldm.wan.vae.vae_attention = lambda: pytorch_attention  # what it takes on a GPU
    config = VAES[case.network]
    sizes = {
        "dim": config.base_dim, "z_dim": config.z_dim, "dim_mult": list(config.dim_mult), "num_res_blocks": 2,
        "temperal_downsample": list(config.temporal_downsample), "attn_scales": [],
    }  # fmt: skip
    if config.version == "2.1":
        return _on_meta(lambda: comfy.ldm.wan.vae.WanVAE(**sizes))
    return _on_meta(lambda: comfy.ldm.wan.vae2_2.WanVAE(**sizes | {"dec_dim": config.dec_dim}))


def _diffusers_vae(case: Case):
    from diffusers import AutoencoderKLWan

    config = VAES[case.network]
    if config.version == "2.1":
        return _on_meta(AutoencoderKLWan)
    return _on_meta(
        lambda: AutoencoderKLWan(
            base_dim=config.base_dim, z_dim=config.z_dim, decoder_base_dim=config.dec_dim, in_channels=12,
            out_channels=12, is_residual=True, patch_size=2, scale_factor_spatial=16,
            temperal_downsample=list(config.temporal_downsample),
        )
    )  # fmt: skip


def _host_text_encoder() -> Cost:
    import json
    from pathlib import Path

    import comfy.ops
    import comfy.text_encoders.t5
    import comfy.text_encoders.wan

    config = json.loads((Path(comfy.text_encoders.wan.__file__).parent / "umt5_config_xxl.json").read_text())
    make = comfy.text_encoders.t5.T5
    network = _on_meta(lambda: make(config, DTYPE, "meta", comfy.ops.manual_cast))
    ids = torch.empty(1, 512, dtype=torch.int64, device="meta")
    return count(lambda: network(ids, empty(1, 512), dtype=DTYPE))
