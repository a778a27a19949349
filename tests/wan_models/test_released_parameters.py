"""Names and shapes of all weights at the released sizes are the official ones, so official files load as they are."""

import pytest
from tests_support import on_meta

from wan_models.config import VAE_2_2, CLIPConfig, DiTConfig, FaceConfig, SpeechConfig, T5Config, VAEConfig
from wan_models.dit.animate import WanAnimateModel
from wan_models.dit.base import WanModel
from wan_models.dit.speech import WanSpeechModel
from wan_models.text.umt5 import UMT5Encoder
from wan_models.vae.wan21 import WanVAE21
from wan_models.vae.wan22 import WanVAE22
from wan_models.vision.clip import VisionTransformer

A14B = {"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40}
TI2V = {"dim": 3072, "ffn_dim": 14336, "num_heads": 24, "num_layers": 30, "in_dim": 48, "out_dim": 48}
SPEECH = {
    "cond_dim": 16, "num_audio_token": 4, "enable_adain": True, "adain_mode": "attn_norm", "zero_init": False,
    "zero_timestep": True, "enable_motioner": False, "add_last_motion": True, "enable_framepack": True,
    "framepack_drop_mode": "padd", "audio_dim": 1024,
    "audio_inject_layers": [0, 4, 8, 12, 16, 20, 24, 27, 30, 33, 36, 39],
}  # fmt: skip
VAE = {"dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "temperal_downsample": [False, True, True]}


def base(family, **sizes):
    from wan.modules.model import WanModel as Official

    return Official(model_type=family, text_len=512, **sizes), WanModel(DiTConfig(family=family, **sizes))


def speech():
    from wan.modules.s2v.model_s2v import WanModel_S2V

    config = DiTConfig(family="s2v", speech=SpeechConfig(), **A14B)
    return WanModel_S2V(**A14B, **SPEECH), WanSpeechModel(config)


def animate():
    from wan.modules.animate.model_animate import WanAnimateModel as Official

    config = DiTConfig(family="animate", image_dim=1280, face=FaceConfig(), in_dim=36, **A14B)
    return Official(in_dim=36, **A14B), WanAnimateModel(config)


def vae21():
    from wan.modules.vae2_1 import WanVAE_

    return WanVAE_(dim=96, z_dim=16, **VAE), WanVAE21(VAEConfig())


def vae22():
    from wan.modules.vae2_2 import WanVAE_

    return WanVAE_(dim=160, dec_dim=256, z_dim=48, **VAE), WanVAE22(VAE_2_2)


def text_encoder():
    from wan.modules.t5 import T5Encoder

    return T5Encoder(256384, 4096, 4096, 10240, 64, 24, 32, shared_pos=False), UMT5Encoder(T5Config())


def image_tower():
    from wan.modules.animate.clip import clip_xlm_roberta_vit_h_14

    return clip_xlm_roberta_vit_h_14(device="meta", text_layers=1).visual, VisionTransformer(CLIPConfig())


RELEASED = {
    "T2V-A14B": lambda: base("t2v", in_dim=16, out_dim=16, **A14B),
    "I2V-A14B": lambda: base("i2v", in_dim=36, out_dim=16, **A14B),
    "TI2V-5B": lambda: base("ti2v", **TI2V),
    "S2V-14B": speech,
    "Animate-14B": animate,
    "VAE 2.1": vae21,
    "VAE 2.2": vae22,
    "UMT5": text_encoder,
    "CLIP": image_tower,
}


@pytest.mark.parametrize("release", RELEASED)
def test_names_and_shapes_are_the_official_ones(official, release, monkeypatch):
    from wan.modules.model import WanModel as Official

    # drawing 14 billion initial weights takes minutes even where nothing is stored
    monkeypatch.setattr(Official, "init_weights", lambda self: None)
    theirs, ours = (
        {name: weight.shape for name, weight in model.state_dict().items()}
        for model in on_meta(RELEASED[release])
    )
    assert ours == theirs and len(ours) > 50
