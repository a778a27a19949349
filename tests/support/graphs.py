"""API-format workflows as the tests write them: nodes by name, wired by tuples."""

from pathlib import Path

from safetensors.torch import load_file

RELEASE = "wan/T2V-A14B/"
SIZE = {"width": 64, "height": 48, "frames": 9}
SETTINGS = {"preset": "custom", "steps": 4, "shift": 12.0, "cfg_high": 4.0, "cfg_low": 3.0, "boundary": 0.875}


def node(class_type, **inputs):
    """One node; a tuple (name, output) is a wire."""
    return {
        "class_type": class_type,
        "inputs": {k: list(v) if isinstance(v, tuple) else v for k, v in inputs.items()},
    }


def base_graph(prompt="two cats surf in the evening sun", high="high_noise_model", low="low_noise_model"):
    """Loaders, text and an empty latent of our own nodes."""
    return {
        "t5": node("WanT5Loader", t5_name=RELEASE + "models_t5_umt5-xxl-enc-bf16.pth", weight_dtype="fp32"),
        "text": node("WanT5Encode", clip=("t5", 0), positive=prompt, negative="blurry"),
        "high": node("WanDiTLoader", model_name=RELEASE + high),
        "low": node("WanDiTLoader", model_name=RELEASE + low),
        "latent": node("WanEmptyLatent", **SIZE),
    }


def sampler(seed=1, high=("high", 0), low=("low", 0), latent=("latent", 0), **settings):
    """WanMoESampler over `base_graph`."""
    return node(
        "WanMoESampler", model_high=high, model_low=low, positive=("text", 0), negative=("text", 1),
        latent_image=latent, seed=seed, **{**SETTINGS, **settings},
    )  # fmt: skip


WINDOWS = {
    "context_length": 13, "context_overlap": 5, "context_schedule": "standard_static", "context_stride": 1,
    "closed_loop": False, "fuse_method": "pyramid", "freenoise": False, "retain_first_frame": False,
    "split_conds_to_windows": False,
}  # fmt: skip


def window_inputs(host):
    """What this host's node of context windows takes; newer ones take more."""
    asked = host.get("/object_info/WanContextWindowsManual")["WanContextWindowsManual"]["input"]
    return {*asked["required"], *asked.get("optional", {})}


def context_windows(host, model, **settings):
    """The host's context windows on a MODEL: WINDOWS with these settings, as far as this host has them."""
    known = window_inputs(host)
    values = {name: value for name, value in (WINDOWS | settings).items() if name in known}
    return node("WanContextWindowsManual", model=model, **values)


def save(source=("sample", 0), name="test"):
    return node("SaveLatent", samples=source, filename_prefix=f"latents/{name}")


def latents(host, graph, on_event=None):
    """Runs a graph that ends in one SaveLatent and returns the samples."""
    entry = host.run(graph, on_event)
    (file,) = [f for f in host.outputs(entry) if Path(f).suffix == ".latent"]
    return load_file(file)["latent_tensor"]
