import sys; sys.path.insert(0, "tests/host")
import numpy as np, torch
from PIL import Image
from graphs import *
from tests_support import rel_l2
from test_animate import by_hand, folder, WIDTH, HEIGHT
from test_workflows import models

def test_model(host, seed):
    for kw in ({}, {"shift":1.0}, {"shift":1.0,"sampler":"wan dpm++"}, {"shift":1.0,"sampler":"euler","scheduler":"simple"},{"shift":1.0,"sampler":"euler","scheduler":"wan official"}, {"shift":1.0,"sampler":"wan dpm++","steps":2}):
        graph = base_graph() | {"sample": sampler(seed, **kw), "save": save()}
        ours = latents(host, graph)
        swapped = base_graph(high="low_noise_model", low="high_noise_model") | {"sample": sampler(seed, **kw), "save": save()}
        sw = latents(host, swapped)
        for expert in ("high", "low"):
            graph[expert] = node("UNETLoader", unet_name=f"{expert}.safetensors", weight_dtype="default")
        print("MODEL", kw, rel_l2(latents(host, graph), ours), "swapped", rel_l2(sw, ours))

def test_vae(host, models, seed):
    graph = base_graph() | {
        "latent": node("WanEmptyLatent", width=128, height=96, frames=9),
        "sample": sampler(seed),
        "vae": node("WanVAELoader", vae_name=RELEASE + "Wan2.1_VAE.pth"),
        "host vae": node("VAELoader", vae_name="vae.safetensors"),
    }
    enc = node("WanVAEEncode", frames=("pixels", 0), vae=("vae", 0))
    def encoded(decoder): return latents(host, graph | {"pixels": decoder, "again": enc, "save": save(("again", 0))})
    ref = encoded(node("WanVAEDecode", samples=("sample", 0), vae=("vae", 0)))
    T=dict(tile_size=64, overlap=32, temporal_size=64, temporal_overlap=8)
    ours_in_host = encoded(node("VAEDecodeTiled", samples=("sample", 0), vae=("vae", 0), **T))
    theirs = encoded(node("VAEDecodeTiled", samples=("sample", 0), vae=("host vae", 0), **T))
    t = encoded(node("WanVAEDecode", samples=("sample", 0), vae=("vae", 0), tile_size=64))
    t96 = encoded(node("WanVAEDecode", samples=("sample", 0), vae=("vae", 0), tile_size=96))
    print("VAE", rel_l2(ours_in_host, ref), "theirs vs ours tiled", rel_l2(theirs, ours_in_host), "our tiles", rel_l2(t, ref), rel_l2(t, ours_in_host), rel_l2(t96, ref))

def test_an(host, folder):
    px = np.random.default_rng(9).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(px).save(folder / "input" / "sized.png")
    def host_node(out, **kw):
        out["seen"] = node("CLIPVisionEncode", clip_vision=("clip", 0), image=("character", 0), crop="none")
        out["one"] = node(
            "WanAnimateToVideo", positive=("text", 0), negative=("text", 1), vae=("vae", 0), width=WIDTH, height=HEIGHT,
            length=5, batch_size=1, clip_vision_output=("seen", 0), reference_image=("character", 0),
            face_video=("face", 0), pose_video=("pose", 0), continue_motion_max_frames=5, video_frame_offset=0, **kw)
        return out
    for name in ("character.png", "sized.png"):
        a = by_hand(); a["character"]["inputs"]["image"] = name
        b = host_node(by_hand()); b["character"]["inputs"]["image"] = name
        ours = latents(host, a)
        res=[rel_l2(latents(host,b), ours)]
        for drop in ("face_video","pose_video","clip_vision_output","reference_image"):
            c = host_node(by_hand()); c["character"]["inputs"]["image"] = name
            del c["one"]["inputs"][drop]
            res.append((drop, float(rel_l2(latents(host,c), ours))))
        print("AN", name, res)
