"""Foreign names of weights: one to one with ours, and the models behind them compute the same."""

from dataclasses import replace

import pytest
import torch
from tests_support import randomize_, rel_l2

from wan_models.checkpoints.keys import SCHEMES, to_foreign, to_official
from wan_models.config import VAE_2_2, DiTConfig, T5Config, VAEConfig
from wan_models.dit.base import WanModel
from wan_models.text.umt5 import UMT5Encoder
from wan_models.vae.wan21 import WanVAE21
from wan_models.vae.wan22 import WanVAE22

SIZES = {"dim": 64, "ffn_dim": 96, "freq_dim": 32, "text_dim": 24, "num_heads": 2, "num_layers": 2}
CHANNELS = {
    "t2v": {"in_dim": 16, "out_dim": 16},
    "i2v": {"in_dim": 36, "out_dim": 16},
    "ti2v": {"in_dim": 48, "out_dim": 48},
    "i2v with CLIP": {"in_dim": 36, "out_dim": 16, "image_dim": 40},
    "first and last frame": {"in_dim": 36, "out_dim": 16, "image_dim": 40, "image_positions": 10},
}


def transformer(kind):
    from diffusers import WanTransformer3DModel

    config = DiTConfig(family=kind[:3], **SIZES, **CHANNELS[kind])
    theirs = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=32, in_channels=config.in_dim, out_channels=config.out_dim,
        text_dim=24, freq_dim=32, ffn_dim=96, num_layers=2, cross_attn_norm=True, qk_norm="rms_norm_across_heads",
        image_dim=config.image_dim or None, added_kv_proj_dim=64 if config.image_dim else None,
        pos_embed_seq_len=config.image_positions or None,
    )  # fmt: skip
    return theirs, WanModel(config)


def vae21():
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(base_dim=8, z_dim=16), WanVAE21(VAEConfig(base_dim=8))


def vae22():
    from diffusers import AutoencoderKLWan

    theirs = AutoencoderKLWan(
        base_dim=8, decoder_base_dim=12, z_dim=48, is_residual=True, in_channels=12, out_channels=12, patch_size=2,
        latents_mean=[0.0] * 48, latents_std=[1.0] * 48,
    )  # fmt: skip
    return theirs, WanVAE22(replace(VAE_2_2, base_dim=8, dec_dim=12))


def umt5():
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=50, d_model=32, d_kv=16, d_ff=48, num_heads=2, num_layers=2, feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )  # fmt: skip
    ours = UMT5Encoder(T5Config(vocab_size=50, dim=32, dim_attn=32, dim_ffn=48, num_heads=2, num_layers=2))
    return UMT5EncoderModel(config), ours


PAIRS = {
    **{f"diffusers transformer/{kind}": (lambda kind=kind: transformer(kind)) for kind in CHANNELS},
    "diffusers VAE 2.1": vae21,
    "diffusers VAE 2.2": vae22,
    "transformers UMT5": umt5,
}


@pytest.fixture(params=PAIRS)
def models(request, seed, official):
    """(scheme, kind, their model, ours): of the same random weights, carried over by the table."""
    scheme, _, kind = request.param.partition("/")
    theirs, ours = PAIRS[request.param]()
    randomize_(theirs, std=0.1).eval()
    state = theirs.state_dict()
    names = to_official(state)
    ours.load_state_dict({names[name]: weight for name, weight in state.items() if name in names})
    return scheme, kind, theirs, ours.eval()


def test_weights_go_there_and_back(models):
    scheme, _, theirs, ours = models
    state = ours.state_dict()
    names = to_foreign(scheme, state)
    back = to_official(names.values())
    assert {back[foreign]: foreign for foreign in names.values()} == names
    foreign = {names[name]: weight + 1 for name, weight in state.items()}
    for duplicate in SCHEMES[scheme].dropped:
        foreign[duplicate] = foreign["shared.weight"]
    theirs.load_state_dict(foreign)  # strict
    names = to_official(theirs.state_dict())
    assert all(
        torch.equal(weight, state[names[n]] + 1) for n, weight in theirs.state_dict().items() if n in names
    )


@torch.no_grad()
def test_forward_agrees(models):
    _, _, theirs, ours = models
    if isinstance(ours, WanModel):
        x, text = (
            torch.randn(2, ours.config.in_dim, 3, 6, 10),
            torch.randn(2, 512, 24),
        )  # diffusers takes 512 for granted
        t = torch.tensor([900.0, 17.0])
        image = torch.randn(2, 5, 40) if ours.config.image_dim else None
        if ours.config.image_positions:  # diffusers folds the two images of a pair into one context
            image = torch.randn(4, 5, 40)
        expected = theirs(x, t, text, encoder_hidden_states_image=image, return_dict=False)[0]
        mine = image.view(2, 10, 40) if ours.config.image_positions else image
        assert rel_l2(ours(x, t, text, image=mine), expected) < 1e-5
        if image is not None:
            assert rel_l2(ours(x, t, text, image=mine.flip(0)), expected) > 1e-3
    elif isinstance(ours, UMT5Encoder):
        ids = torch.randint(2, 50, (2, 9))
        mask = torch.ones_like(ids)
        mask[1, 5:] = 0
        expected = theirs(ids, attention_mask=mask).last_hidden_state
        assert rel_l2(ours(ids, mask)[mask.bool()], expected[mask.bool()]) < 1e-5
    else:
        video = torch.rand(1, 3, 5, 32, 48) * 2 - 1
        z = theirs.encode(video).latent_dist.mode()
        assert rel_l2(ours.encode(video), z) < 1e-5
        assert rel_l2(ours.decode(z), theirs.decode(z, return_dict=False)[0]) < 1e-5


def test_llama_cpp_names_are_those_of_the_gguf_package():
    from gguf.constants import MODEL_ARCH
    from gguf.tensor_mapping import get_tensor_name_map

    state = UMT5Encoder(
        T5Config(vocab_size=5, dim=8, dim_attn=8, dim_ffn=8, num_heads=2, num_layers=2)
    ).state_dict()
    hugging_face = to_foreign("transformers UMT5", state)
    known = get_tensor_name_map(MODEL_ARCH.T5ENCODER, 2)
    for name, foreign in to_foreign("llama.cpp UMT5", state).items():
        theirs = known.get_name(hugging_face[name].removesuffix(".weight"), (".weight",))
        assert foreign.removesuffix(".weight") == theirs
    names = to_foreign("llama.cpp UMT5", state)
    assert to_official(names.values()) == {v: k for k, v in names.items()}


def test_other_tensors_follow_or_are_kept():
    names = [
        "condition_embedder.time_proj.weight",
        "blocks.11.attn2.to_out.0.scale_weight",
        "blocks.3.surprise",
    ]
    assert to_official(names) == {
        names[0]: "time_projection.1.weight",
        names[1]: "blocks.11.cross_attn.o.scale_weight",
        names[2]: "blocks.3.surprise",
    }
    assert to_official(["blocks.0.self_attn.q.weight", "head.head.weight"]) is None
    with pytest.raises(ValueError, match="unknown scheme 'other'"):
        to_foreign("other", [])
    with pytest.raises(ValueError, match=r"no\.such\.weight has no name"):
        to_foreign("diffusers transformer", ["no.such.weight"])
