"""Decoding and encoding a short video with the 2.1 VAE: time and peak memory beside the others."""

import ctypes
import json
import subprocess
import sys
from pathlib import Path

import torch

from bench.floor import products, rates
from bench.peers import prepare
from bench.timing import interleaved, rel_l2
from wan_models.config import VAEConfig
from wan_models.random_weights import random_state_dict
from wan_models.vae.wan21 import WanVAE21

RAW = (0.0, 1.0)
SHAPES = {"base 96": (96, (1, 16, 3, 8, 12)), "base 16": (16, (1, 16, 3, 8, 12))}


def contestants(base_dim, shape, names=None):
    """Decode and encode calls by name, all with the same weights."""
    has_host = prepare()
    torch.manual_seed(0)
    state = random_state_dict(lambda: WanVAE21(VAEConfig(base_dim=base_dim)), 0)
    z = torch.randn(shape)
    video = torch.rand(shape[0], 3, 4 * shape[2] - 3, 8 * shape[3], 8 * shape[4]) * 2 - 1
    settings = {"dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "temperal_downsample": [False, True, True]}

    def ours():
        with torch.device("meta"):
            vae = WanVAE21(VAEConfig(base_dim=base_dim))
        vae.load_state_dict(state, assign=True)
        return lambda: vae.decode(z), lambda: vae.encode(video)

    def official():
        from wan.modules.vae2_1 import WanVAE_

        vae = WanVAE_(dim=base_dim, z_dim=16, **settings).eval()
        vae.load_state_dict(state)
        return lambda: vae.decode(z, RAW).clamp(-1, 1), lambda: vae.encode(video, RAW)

    def host():
        import comfy.ldm.wan.vae

        vae = comfy.ldm.wan.vae.WanVAE(dim=base_dim, z_dim=16, attn_scales=[], **settings).eval()
        vae.load_state_dict(state)
        return lambda: vae.decode(z).clamp(-1, 1), lambda: vae.encode(video)

    def diffusers():
        from diffusers import AutoencoderKLWan

        vae = AutoencoderKLWan(base_dim=base_dim, z_dim=16).eval()  # random weights: for its time only
        return lambda: vae.decode(z, return_dict=False)[0], lambda: vae.encode(video).latent_dist.mean

    makers = {"ours": ours, "official": official, "diffusers": diffusers} | (
        {"host": host} if has_host else {}
    )
    return {name: make() for name, make in makers.items() if names is None or name in names}


def peak_megabytes(name, base_dim, shape):
    """Growth of resident memory while one contestant decodes once, in a process of its own."""
    code = "import sys, json; from bench.vae_decode import measure; measure(*json.loads(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps([name, base_dim, shape])],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.strip().splitlines()[-1])


@torch.inference_mode()
def measure(name, base_dim, shape):
    (decode, _) = contestants(base_dim, shape, [name])[name]
    ctypes.CDLL(None).malloc_trim(0)  # else a build that left free memory behind would seem to need none
    Path("/proc/self/clear_refs").write_text("5")  # starts the peak anew: imports have had a higher one
    before = resident_megabytes("VmRSS")
    decode()
    print(resident_megabytes("VmHWM") - before)


def resident_megabytes(field):
    """A field of Linux's account of this process, in MB."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) / 1024


@torch.inference_mode()
def main(rounds=3):
    for label, (base_dim, shape) in SHAPES.items():
        pairs = contestants(base_dim, shape)
        print(f"2.1 VAE, fp32, {label}, latents {'x'.join(map(str, shape[2:]))}")
        for what, index in (("decode", 0), ("encode", 1)):
            calls = {name: pair[index] for name, pair in pairs.items()}
            alone, flops = products(calls["ours"])
            reference, medians = calls["official"](), interleaved({"products": alone} | calls, rounds)
            print(f"  {what} {rates(flops, medians.pop('products'), medians['ours'])}")
            for name, seconds in medians.items():
                error = "" if name == "diffusers" else f"  rel. L2 {rel_l2(calls[name](), reference):.1e}"
                memory = f"  {peak_megabytes(name, base_dim, shape):6.0f} MB" if what == "decode" else ""
                speed = medians["official"] / seconds
                print(f"  {what} {name:<10} {seconds * 1e3:7.0f} ms  {speed:5.2f} x as fast{memory}{error}")


if __name__ == "__main__":
    main()
