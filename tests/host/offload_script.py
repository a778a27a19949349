"""Runs inside a ComfyUI's own Python process: `offload_script.py COMFYUI PACK BASE`; prints one JSON object.

The host's memory management is asked to load DiT, text encoder and VAE fully, then partially so that every layer's
weights are cast on the fly, then to unload and load again. Prints the relative difference of each result to the
fully loaded one, and what was resident at the switch of experts when a limit was set; also what a Wan2.1 model makes
of CLIP image features.
"""

import gc
import importlib
import json
import logging
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

enter = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "inside_host.py"))["enter"]
nodes = enter(*map(Path, sys.argv[1:4]))

import comfy.model_management as management  # noqa: E402
import torch  # noqa: E402

RELEASE = "wan/T2V-A14B/"


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@contextmanager
def comparisons() -> Iterator[list[int]]:
    """Sizes of the tensors whose content is compared, which on a GPU waits for all work given to it."""
    sizes, equal = [], torch.equal

    def spy(a: torch.Tensor, b: torch.Tensor) -> bool:
        sizes.append(a.numel())
        return equal(a, b)

    torch.equal = spy
    try:
        yield sizes
    finally:
        torch.equal = equal


def tables() -> int:
    """How many tables of positions, the only complex numbers here, are kept by anybody."""
    return sum(isinstance(x, torch.Tensor) and x.is_complex() for x in gc.get_objects())


def cast_on_the_fly(patcher: object) -> int:
    """Forces the host's low-memory load with no room for weights; returns how many layers it left outside."""
    patcher.unpatch_model(patcher.offload_device)
    patcher.load(patcher.load_device, lowvram_model_memory=1)
    return sum(bool(getattr(m, "comfy_cast_weights", False)) for m in patcher.model.modules())


def sample_with(model: object, conditions: tuple, steps: int, low: object = None) -> torch.Tensor:
    """WanMoESampler under `conditions`: positive, negative and LATENT."""
    positive, negative, latent = conditions
    out = nodes["WanMoESampler"].execute(
        model_high=model, model_low=low, positive=positive, negative=negative, latent_image=latent, preset="custom",
        seed=1, steps=steps,
    )  # fmt: skip
    return out.args[0]["samples"]


def identities() -> dict[str, bool]:
    """Whether models of this process and on the workers count as the same to a folder of finished clips."""
    pack = nodes["WanMultiGPU"].__module__.rpartition(".nodes")[0]
    identity = importlib.import_module(f"{pack}.comfy_bridge.models.identity")
    out = {}
    for dtype in ("default", "fp16"):
        model = nodes["WanDiTLoader"].execute(RELEASE + "low_noise_model", dtype).args[0]
        before = identity.of_model(model)
        out[dtype] = identity.of_model(nodes["WanMultiGPU"].execute(model, gpus=2).args[0]) == before
    vaes = (
        nodes["WanVAELoader"].execute(RELEASE + "Wan2.1_VAE.pth", device=d) for d in ("default", "multi gpu")
    )
    here, shared = (identity.of_vae(vae.args[0]) for vae in vaes)
    return out | {"vae": here == shared}


@torch.inference_mode()
def main() -> dict:
    def first(node: str, *args: object) -> object:
        return nodes[node].execute(*args).args[0]

    high = first("WanDiTLoader", RELEASE + "high_noise_model")
    low = first("WanDiTLoader", RELEASE + "low_noise_model")
    clip = first("WanT5Loader", RELEASE + "models_t5_umt5-xxl-enc-bf16.pth", "fp32")
    vae = first("WanVAELoader", RELEASE + "Wan2.1_VAE.pth")
    positive, negative = nodes["WanT5Encode"].execute(clip, "two cats", "blurry").args
    conditions = (positive, negative, first("WanEmptyLatent", 64, 48, 9))

    def text() -> torch.Tensor:
        return nodes["WanT5Encode"].execute(clip, "two cats", "blurry").args[0][0][0]

    def sample() -> torch.Tensor:
        return sample_with(high, conditions, 4, low)

    z = sample()
    results = {"tables": tables()}
    management.interrupt_current_processing(True)
    try:
        sample()
    except management.InterruptProcessingException:
        results["tables after Cancel"] = tables()
    gc.collect()  # what the exception held
    for part, patchers, run in (
        ("dit", (high, low), sample),
        ("t5", (clip.patcher,), text),
        ("vae", (vae.patcher,), lambda: vae.decode(z)),
    ):
        full = run()
        layers = [cast_on_the_fly(p) for p in patchers]
        partial = run()
        management.unload_all_models()
        results[part] = {
            "layers": min(layers),
            "partial": difference(partial, full),
            "reloaded": difference(run(), full),
        }

    results["packed"] = packed_with_lora(conditions)
    results["decoding"] = decoding(vae)
    results["clip"] = clip_image(positive, negative, vae)
    results["speech"] = speech(positive, negative, vae)
    results["workers"] = workers(clip, vae, conditions)
    results["patch"] = replaced_block(high, sample, z)
    results["switch"] = switch(high, low, sample, z)
    return results


def packed_with_lora(conditions: tuple) -> dict:
    """A GGUF model under a LoRA: loaded whole, a part of its layers offloaded from there, every layer cast on the
    fly, and loaded again, with the strength changed in between."""
    model = nodes["WanDiTLoader"].execute("packed.gguf").args[0]

    def patched(strength: float) -> object:
        return nodes["WanLoRA"].execute(model, "lora.safetensors", None, strength).args[0]

    def sample(patcher: object) -> torch.Tensor:
        return sample_with(patcher, conditions, 4)

    one, half = patched(1.0), patched(0.5)
    full, full_half = sample(one), sample(half)
    again = sample(one)
    one.partially_unload(one.offload_device, one.model_size() // 2)
    half_loaded = sample(one)
    layers = cast_on_the_fly(one)
    partial = sample(one)
    management.unload_all_models()
    return {
        "layers": layers,
        "strength": difference(full_half, full),
        "again": difference(again, full),
        "half loaded": difference(half_loaded, full),
        "partial": difference(partial, full),
        "reloaded": difference(sample(one), full),
        "plain": difference(sample(model), full),
    }


def decoding(vae: object) -> dict:
    """A decode in float32 on devices of several sizes: the difference to one of any size, and what was said.

    The videos are small: a processor without instructions for bfloat16 convolves fifty times slower in it."""
    logging.getLogger().setLevel(logging.INFO)
    generator = torch.Generator().manual_seed(3)
    flat, tall = (torch.randn(1, 16, 3, *size, generator=generator) for size in ((4, 6), (48, 2)))
    weights, real = vae.patcher.model_size(), management.get_total_memory
    half, whole = torch.bfloat16, torch.float32
    rooms = {
        "float32": (flat, vae._need(flat.shape, whole, 1)),
        "bfloat16": (flat, vae._need(flat.shape, half, 1)),
        "neither": (flat, vae._need(flat.shape, half, 1) - 1),
        "in bands": (tall, vae._need(tall.shape, whole, 2)),
        "in bands, bfloat16": (tall, vae._need(tall.shape, half, 2)),
    }
    out = {}
    for name, (z, room) in rooms.items():
        expected, said = vae.decode(z), []
        handler = logging.Handler()
        handler.emit = lambda record, said=said: said.append(record.getMessage())
        logging.getLogger().addHandler(handler)
        management.get_total_memory = lambda *args, room=room, **options: room + weights
        try:
            found = vae.decode(z)
        finally:
            management.get_total_memory = real
            logging.getLogger().removeHandler(handler)
        out[name] = {
            "difference": difference(found, expected),
            "said": [line.split(":")[0] for line in said if "this video is decoded" in line],
            "afterwards": difference(vae.decode(z), expected),
        }
    return out


def clip_image(positive: object, negative: object, vae: object) -> dict:
    """The Wan2.1 image-to-video model: CLIP features of the host's kind reach it, and matter."""
    model = nodes["WanDiTLoader"].execute("i2v_clip.safetensors").args[0]
    generator = torch.Generator().manual_seed(2)
    image = torch.rand(1, 48, 64, 3, generator=generator)

    def sample(features: torch.Tensor | None) -> torch.Tensor:
        output = None if features is None else SimpleNamespace(penultimate_hidden_states=features)
        size = {"width": 64, "height": 48, "frames": 5, "start_image": image, "clip_vision_output": output}
        inputs = nodes["WanI2VCondition"].execute(positive, negative, vae, **size).args[:3]
        return sample_with(model, inputs, 4)

    features = torch.randn(1, 257, 1280, generator=generator)
    with_clip = sample(features)
    return {
        "finite": bool(torch.isfinite(with_clip).all()),
        "without": difference(sample(None), with_clip),
        "other": difference(sample(features.flip(1, 2)), with_clip),
    }


def speech(positive: object, negative: object, vae: object) -> dict:
    """S2V-14B: what is computed how often, offloaded layers, and the host's own nodes and model beside ours."""
    from comfy_extras.nodes_wan import WanSoundImageToVideo

    from nodes import UNETLoader

    generator = torch.Generator().manual_seed(11)
    model = nodes["WanDiTLoader"].execute("wan/S2V-14B").args[0]
    listener = nodes["WanAudioEncoderLoader"].execute("wan/S2V-14B/wav2vec2-large-xlsr-53-english").args[0]
    audio = {"waveform": torch.randn(1, 2, 57330, generator=generator) / 4, "sample_rate": 44100}  # 1.3 s
    picture = torch.rand(1, 64, 64, 3, generator=generator)
    network, calls = model.model.diffusion_model, {}
    for name in ("casual_audio_encoder", "frame_packer"):
        calls[name] = 0

        def count(*_: object, name: str = name) -> None:
            calls[name] += 1

        getattr(network, name).register_forward_hook(count)

    def film() -> torch.Tensor:
        out = nodes["WanSpeechToVideo"].execute(
            model=model, positive=positive, negative=negative, vae=vae, audio_encoder=listener, audio=audio,
            reference_image=picture, width=64, height=64, frames_per_clip=12, clips=0, preset="custom", seed=1,
            fit="exact", steps=4,
        )  # fmt: skip
        return out.args[0]

    with comparisons() as compared:
        full = film()
    counted = dict(calls)
    kept = len(network.clips._entries)
    layers = cast_on_the_fly(model)
    partial = film()

    def sample(which: object, conditions: object) -> torch.Tensor:
        return sample_with(which, conditions, 4)

    heard = nodes["WanAudioEncode"].execute(listener, audio).args[0]
    size = {"width": 64, "height": 64}
    ours = nodes["WanS2VCondition"].execute(
        positive,
        negative,
        vae,
        heard,
        reference_image=picture,
        frames=12,
        frame_offset=0,
        fit="exact",
        **size,
    )
    theirs = WanSoundImageToVideo.execute(
        positive, negative, vae, length=9, batch_size=1, audio_encoder_output=heard, ref_image=picture, **size
    )
    by_ours = sample(model, ours.args)

    host_model = UNETLoader().load_unet("s2v_host.safetensors", "default")[0]
    heard = {"encoded_audio_all_layers": [torch.randn(1, 65, 1024, generator=generator) for _ in range(25)]}
    inputs = {"reference_image": picture, "frames": 12, "frame_offset": 0, "fit": "exact", **size}
    driven = nodes["WanS2VCondition"].execute(positive, negative, vae, heard, **inputs).args
    quiet = {"encoded_audio_all_layers": [layer * 0 for layer in heard["encoded_audio_all_layers"]]}
    silent = nodes["WanS2VCondition"].execute(positive, negative, vae, quiet, **inputs).args
    loud = sample(host_model, driven)
    same_file = nodes["WanDiTLoader"].execute("s2v_host.safetensors").args[0]
    return {
        "calls": counted,
        "kept": kept,
        "compared": compared,
        "layers": layers,
        "partial": difference(partial, full),
        "their node": difference(sample(model, theirs.args), by_ours),
        "their model hears": difference(sample(host_model, silent), loud),
        "single file": difference(sample(same_file, silent), sample(same_file, driven)),
    }


def workers(clip: object, vae: object, conditions: tuple) -> dict:
    """Models of this process and a group on the same devices: each makes room for the other where memory is short."""
    model = nodes["WanDiTLoader"].execute(RELEASE + "low_noise_model").args[0]

    def sample(which: object) -> torch.Tensor:
        return sample_with(which, conditions, 8)

    expected = sample(model)
    others = (clip.patcher, vae.patcher, model)
    management.load_models_gpu(others)
    before = sum(one.loaded_size() for one in others)
    free = management.get_free_memory
    management.get_free_memory = lambda device=None, torch_free_too=False: (0, 0) if torch_free_too else 0
    with comparisons() as compared:
        found = sample(nodes["WanMultiGPU"].execute(model, gpus=2).args[0])
    group = next(
        one.model for one in management.current_loaded_models if type(one.model).__name__ == "Workers"
    )
    made_room = before - sum(one.loaded_size() for one in others)
    keys, size = list(group.group.loads), group.model_size()
    same = identities()
    management.free_memory(size / 2, group.load_device)
    management.get_free_memory = free
    after = {"loads": len(group.group.loads), "runs": group.group.is_running}
    management.unload_all_models()
    return {
        "difference": difference(found, expected),
        "compared": compared,
        "made room": made_room,
        "loads": len(keys),
        "bytes": size,
        "model bytes": model.model_size(),
        "identities": same,
        "after": after,
        "ended": not group.group.is_running,
    }


def replaced_block(high: object, sample: object, expected: torch.Tensor) -> dict:
    """A block patch of the host's kind: it sees what goes into a block and what comes out, and changes nothing."""
    changes = []

    def patch(args: dict, extra: dict) -> dict:
        out = extra["original_block"](args)
        changes.append(difference(out["img"], args["img"]))
        return out

    kept = high.model_options
    high.model_options = {
        **kept,
        "transformer_options": {"patches_replace": {"dit": {("double_block", 1): patch}}},
    }
    found = sample()
    high.model_options = kept
    return {
        "difference": difference(found, expected),
        "calls": len(changes),
        "change": min(changes, default=0.0),
    }


def switch(high: object, low: object, sample: object, expected: torch.Tensor) -> dict:
    """Samples on a device with room for one expert only. "cpu:0" is the CPU to torch, but no CPU to the host, which
    therefore manages its memory as it would a GPU's."""
    management.unload_all_models()
    high.load_device = low.load_device = torch.device("cpu:0")
    management.vram_state = management.VRAMState.NORMAL_VRAM
    sizes = [p.model_size() for p in (high, low)]
    room, peaks = int(max(sizes) * 1.2), []

    def loaded() -> int:
        return sum(m.model_loaded_memory() for m in management.current_loaded_models)

    def free_memory(device: object = None, torch_free_too: bool = False) -> object:
        free = room - loaded()
        return (free, free) if torch_free_too else free

    real_load = management.load_models_gpu

    def load_models(*args: object, **kwargs: object) -> None:
        real_load(*args, **kwargs)
        peaks.append(loaded())

    type(high.model).memory_required = lambda *args, **kwargs: 0
    management.minimum_inference_memory = management.extra_reserved_memory = lambda *args, **kwargs: 0
    management.get_free_memory, management.load_models_gpu = free_memory, load_models
    found = sample()
    return {"difference": difference(found, expected), "peak": max(peaks), "room": room, "both": sum(sizes)}


sys.stdout.write(json.dumps(main()) + "\n")
