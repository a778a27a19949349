"""Tiny autoencoders, and VAEs of other models, told apart by their headers.

The files for Wan's latents have the same names and shapes as those for others' of as many channels, and LightX2V's the
same as the ones that they were made after, although they take raw latents: there the file's name decides."""

from collections.abc import Mapping

import torch

Shapes = Mapping[str, tuple[int, ...]]

# by latent channels and values per pixel of the last layer: version of the VAE and size of a patch
_VERSIONS = {(16, 3): ("2.1", 1), (48, 12): ("2.2", 2)}
_OTHERS = {(32, 12): "HunyuanVideo 1.5", (128, 48): "LTX-2", (24, 12): "MiniMax H3", (12, 3): "Mochi"}
# in the names of files whose latents have 16 channels too
_NAMED = {"taehv": "HunyuanVideo", "taecvx": "CogVideoX", "taeos": "Open-Sora"}
# a convolution over pictures, where Wan's VAEs have one over videos
_OVER_PICTURES = ("decoder.conv_in.weight", "decoder.conv1.weight")


def is_tiny_vae(shapes: Shapes) -> bool:
    """Whether a file holds a tiny autoencoder for videos, of whatever model."""
    return [len(shapes.get(f"decoder.{name}", ())) for name in ("22.bias", "1.weight")] == [1, 4]


def tiny_vae_version(shapes: Shapes) -> tuple[str, int] | None:
    """Version of the Wan VAE whose latents a tiny autoencoder has by its sizes, and pixels on a side of its patches."""
    return _VERSIONS.get(_sizes(shapes))


def other_vae(shapes: Shapes, file: str) -> str | None:
    """Describes a VAE of another model in a file of that name; None where it is Wan's, or none."""
    if is_tiny_vae(shapes):
        named = next((model for part, model in _NAMED.items() if part in file.lower()), None)
        if named is None and tiny_vae_version(shapes) is not None:
            return None
        model = named or _OTHERS.get(_sizes(shapes), f"another model ({_sizes(shapes)[0]} latent channels)")
        return f"a tiny autoencoder for the latents of {model}, which Wan's models do not have"
    parts = ("", "decoder.", "encoder.", "decoder.layers.", "encoder.layers.", "taesd_decoder.")
    if any(f"{part}3.conv.0.weight" in shapes for part in parts) and "decoder.22.bias" not in shapes:
        return "a tiny autoencoder for pictures (TAESD, taef1), not for Wan's videos"
    if any(len(shapes.get(name, ())) == 4 for name in _OVER_PICTURES):
        return "a VAE for pictures (Stable Diffusion, Flux), not for Wan's videos"
    return None


def takes_raw_latents(file: str, dtype: torch.dtype) -> bool:
    """Whether a tiny autoencoder takes latents as the VAE gives them, as LightX2V's do, or normalised ones.

    dtype: of its weights; LightX2V's are not stored in float16, by which those of other names are told."""
    name = file.lower()
    return "light" in name or ("taew" not in name and dtype != torch.float16)


def _sizes(shapes: Shapes) -> tuple[int, int]:
    return shapes["decoder.1.weight"][1], shapes["decoder.22.bias"][0]
