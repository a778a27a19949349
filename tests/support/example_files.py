"""Tiny files under the names that the example workflows look for, each in the format that name stands for."""

import json
from pathlib import Path

import torch
from formats import vocabulary, write_gguf, write_scaled_fp8
from official_preprocessing import people
from onnx_files import write_detector, write_pose
from safetensors.torch import save_file
from tiny_sam2 import write_sam2

from demo.tiny_release import DITS, write_release
from wan_models.checkpoints.keys import to_foreign
from wan_models.checkpoints.reader import open_model
from wan_models.config import TinyVAEConfig
from wan_models.random_weights import random_state_dict
from wan_models.vae.tiny import TinyVAE


def write_voice(folder: Path) -> Path:
    """A tiny VITS of random weights as transformers saves it, for letters and blanks."""
    from transformers import VitsConfig, VitsModel, VitsTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    letters = {letter: n for n, letter in enumerate("_ abcdefghijklmnopqrstuvwxyz'")}
    (folder / "vocab.json").write_text(json.dumps(letters))
    VitsTokenizer(str(folder / "vocab.json"), pad_token="_", unk_token=" ", phonemize=False).save_pretrained(
        folder
    )
    torch.manual_seed(3)
    config = VitsConfig(
        vocab_size=len(letters), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=16, flow_size=16,
        spectrogram_bins=9, upsample_initial_channel=16, prior_encoder_num_flows=1, prior_encoder_num_wavenet_layers=1,
        duration_predictor_num_flows=1, posterior_encoder_num_wavenet_layers=1, duration_predictor_filter_channels=16,
        depth_separable_num_layers=1, window_size=2,
    )  # fmt: skip
    VitsModel(config).save_pretrained(folder)
    return folder


def write_preprocessing(models: Path) -> None:
    """What finds two people, their keypoints and their outlines."""
    folder = models / "wan" / "Animate-14B" / "process_checkpoint"
    write_detector(
        folder / "det" / "yolov10m.onnx", [(180, 60, 460, 630, 0.9, 0), (470, 200, 630, 560, 0.8, 0)]
    )
    write_pose(
        folder / "pose2d" / "vitpose_h_wholebody.onnx" / "end2end.onnx",
        people(1, 1, 1, 5, low=0.6)[0],
        sway=20,
    )
    write_sam2(models / "sam2" / "sam2.1-hiera-large")


def write_example_files(base: Path) -> None:
    """Writes them below `base`/models; what is there already is replaced."""
    models = base / "models"
    for name in DITS:
        write_release(models / "wan" / name, name=name)
    for name in ("diffusion_models", "text_encoders", "vae", "vae_approx", "loras"):
        (models / name).mkdir(exist_ok=True)

    driven = dict(open_model(models / "wan" / "Animate-2-14B"))
    for name in ("wan_animate_2_bf16", "wan_animate_2_bf16_distillation"):
        save_file(driven, models / "diffusion_models" / f"{name}.safetensors")

    release = models / "wan" / "T2V-A14B"
    for expert in ("high", "low"):
        state = dict(open_model(release / f"{expert}_noise_model"))
        stem = f"wan2.2_t2v_{expert}_noise_14B_fp8_scaled"
        write_scaled_fp8(models / "diffusion_models" / f"{stem}.safetensors", state)
        name = f"Wan2.2-T2V-A14B-{expert.capitalize()}Noise-Q4_K_M.gguf"
        write_gguf(models / "diffusion_models" / name, state, "Q4_K")
        lora = {
            f"diffusion_model.blocks.{i}.self_attn.q.lora_{side}.weight": torch.randn(shape) / 16
            for i in range(2)
            for side, shape in (("down", (4, 256)), ("up", (256, 4)))
        }
        for name in (
            f"wan2.2_t2v_lightx2v_4steps_lora_v1.1_{expert}_noise",
            f"SVI_Wan2.2-I2V-A14B_{expert}_noise_lora_v2.0_pro",
        ):
            save_file(lora, models / "loras" / f"{name}.safetensors")
    save_file(dict(open_model(release / "Wan2.1_VAE.pth")), models / "vae" / "wan_2.1_vae.safetensors")
    tiny = TinyVAEConfig(enc_dim=4, dec_dims=(8, 4, 4, 4))
    save_file(random_state_dict(lambda: TinyVAE(tiny), 4), models / "vae_approx" / "lighttaew2_1.safetensors")

    model, fields = vocabulary()
    t5 = {k: v.float() for k, v in open_model(release / "models_t5_umt5-xxl-enc-bf16.pth").items()}
    spiece = {"spiece_model": torch.tensor(list(model), dtype=torch.uint8)}
    names = to_foreign("transformers UMT5", t5)
    write_scaled_fp8(
        models / "text_encoders" / "umt5_xxl_fp8_e4m3fn_scaled.safetensors",
        {names[k]: v for k, v in t5.items()},
        extra=spiece,
    )
    names = to_foreign("llama.cpp UMT5", t5)
    llama = {names[k]: v for k, v in t5.items()}
    write_gguf(models / "text_encoders" / "umt5-xxl-encoder-Q8_0.gguf", llama, "Q8_0", "t5encoder", fields)
    write_voice(models / "tts" / "mms-tts-eng")
    write_preprocessing(models)
