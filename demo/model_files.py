"""Addresses of the files that the example workflows load; the page offers to download those that are missing."""

import re

HUB = "https://huggingface.co"
_REPACKED = f"{HUB}/Comfy-Org/Wan_2.2_ComfyUI_Repackaged/resolve/main/split_files"
_QUANTISED = f"{HUB}/QuantStack/Wan2.2-T2V-A14B-GGUF/resolve/main"
_FOLDERS = {
    f"{_REPACKED}/diffusion_models": (
        "wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors",
        "wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors",
    ),
    f"{HUB}/Wan-AI/Wan2.2-Animate-2-14B/resolve/main/wan_animate_2": (
        "wan_animate_2_bf16.safetensors",
        "wan_animate_2_bf16_distillation.safetensors",
    ),
    f"{_REPACKED}/loras": (
        "wan2.2_t2v_lightx2v_4steps_lora_v1.1_high_noise.safetensors",
        "wan2.2_t2v_lightx2v_4steps_lora_v1.1_low_noise.safetensors",
    ),
    f"{HUB}/vita-video-gen/svi-model/resolve/main/version-2.0": (
        "SVI_Wan2.2-I2V-A14B_high_noise_lora_v2.0_pro.safetensors",
        "SVI_Wan2.2-I2V-A14B_low_noise_lora_v2.0_pro.safetensors",
    ),
    f"{_REPACKED}/vae": ("wan_2.1_vae.safetensors",),
    f"{HUB}/lightx2v/Autoencoders/resolve/main": ("lighttaew2_1.safetensors",),
    f"{HUB}/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files/text_encoders": (
        "umt5_xxl_fp8_e4m3fn_scaled.safetensors",
    ),
    f"{_QUANTISED}/HighNoise": ("Wan2.2-T2V-A14B-HighNoise-Q4_K_M.gguf",),
    f"{_QUANTISED}/LowNoise": ("Wan2.2-T2V-A14B-LowNoise-Q4_K_M.gguf",),
    f"{HUB}/city96/umt5-xxl-encoder-gguf/resolve/main": ("umt5-xxl-encoder-Q8_0.gguf",),
}
_URLS = {name: f"{folder}/{name}" for folder, names in _FOLDERS.items() for name in names}
_OF_RELEASE = re.compile(r"wan/(?P<release>[^/]+)/(?P<file>.+\.\w+)")
"""A file of an official release, as the loaders list it."""
_DIRECTORIES = {
    "WanDiTLoader": "diffusion_models", "WanT5Loader": "text_encoders", "WanVAELoader": "vae", "WanLoRA": "loras",
}  # fmt: skip
"""The folders that loaders look into, below models/."""


def published(node_type: str, value: str) -> dict[str, str] | None:
    """Name, url and directory of the file that a node's list is set to, as the page reads them; None for another."""
    if match := _OF_RELEASE.fullmatch(value):
        url = f"{HUB}/Wan-AI/Wan2.2-{match['release']}/resolve/main/{match['file']}"
        return {"name": value, "url": url, "directory": "wan"}
    if value in _URLS:
        directory = "vae_approx" if "taew" in value else _DIRECTORIES[node_type]
        return {"name": value, "url": _URLS[value], "directory": directory}
    return None
