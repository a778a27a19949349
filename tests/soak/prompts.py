"""Prompts of all tasks in a few variants each, so that each comes again and must make the same bits; and broken ones.

A prompt is a graph in the API format whose outputs are named by `named`."""

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support.graphs import base_graph, node, sampler, save

from .files import CUT, LORA, REPLACED

Graph = dict[str, dict[str, Any]]
SEEDS = (1, 2, 2**40)
TEXTS = ("two cats surf in the evening sun", "")
SHORT = {"preset": "custom", "steps": 3, "shift": 5.0, "cfg": 3.0}


@dataclass(frozen=True)
class Task:
    """`variant(chance)` makes a prompt; releases: those whose files it needs; often: how much beside the others;
    clips: its node can keep finished clips in a folder."""

    variant: Callable[[random.Random], Graph]
    releases: tuple[str, ...]
    often: int = 3
    clips: bool = False


def _frames(graph: Graph, release: str, video_vae: str = "Wan2.1_VAE.pth") -> Graph:
    """The graph with its sampled latent saved, and decoded to pictures."""
    graph["vae"] = node("WanVAELoader", vae_name=f"wan/{release}/{video_vae}")
    graph["pixels"] = node("WanVAEDecode", samples=("sample", 0), vae=("vae", 0))
    graph["film"] = node("SaveImage", images=("pixels", 0), filename_prefix="")
    graph["save"] = save()
    return graph


def _experts(graph: Graph, high: str, low: str) -> Graph:
    for name, file in (("high", high), ("low", low)):
        graph[name] = node("WanDiTLoader", model_name=file)
    return graph


def _text_to_video(chance: random.Random, high: str | None = None, low: str | None = None) -> Graph:
    """Both experts, with or without a LoRA of any strength, on a preset or on settings of its own."""
    graph = base_graph(chance.choice(TEXTS))
    if high and low:
        _experts(graph, high, low)
    wires = {"high": ("high", 0), "low": ("low", 0)}
    if strengths := chance.choice((None, (1.0, 1.0), (0.0, 0.6), (-0.5, 1.0))):
        given = {"strength_high": strengths[0], "strength_low": strengths[1]}
        graph["lora"] = node("WanLoRA", model_high=("high", 0), model_low=("low", 0), lora_name=LORA, **given)
        wires = {"high": ("lora", 0), "low": ("lora", 1)}
    settings = chance.choice(
        ({"preset": "T2V-A14B 4-step LoRA"}, {"preset": "custom", "steps": 4}, {"sampler": "euler", "steps": 5},
         {"sampler": "wan dpm++", "boundary": 0.5})
    )  # fmt: skip
    graph["sample"] = sampler(chance.choice(SEEDS), **wires, **settings)
    return _frames(graph, "T2V-A14B")


def _official(chance: random.Random) -> Graph:
    """The official preset, with as many steps as it has: long enough to be interrupted."""
    graph = base_graph()
    graph["sample"] = sampler(chance.choice(SEEDS), preset="T2V-A14B")
    return _frames(graph, "T2V-A14B")


def _image_to_video(chance: random.Random) -> Graph:
    release = "wan/I2V-A14B"
    graph = _experts(base_graph(), f"{release}/high_noise_model", f"{release}/low_noise_model")
    graph["picture"] = node("LoadImage", image="picture.png")
    ends = chance.choice(({}, {"end_image": ("picture", 0)}))
    graph["start"] = node(
        "WanI2VCondition", positive=("text", 0), negative=("text", 1), vae=("vae", 0), start_image=("picture", 0),
        width=64, height=48, frames=9, **ends,
    )  # fmt: skip
    graph["sample"] = sampler(chance.choice(SEEDS), latent=("start", 2), shift=5.0, boundary=0.9)
    graph["sample"]["inputs"] |= {"positive": ["start", 0], "negative": ["start", 1]}
    return _frames(graph, "I2V-A14B")


def _text_image_to_video(chance: random.Random) -> Graph:
    graph = _experts(base_graph(), "wan/TI2V-5B", "wan/TI2V-5B")
    graph["picture"] = node("LoadImage", image="picture.png")
    given = chance.choice(({}, {"start_image": ("picture", 0)}))
    graph["latent"] = node("WanTI2VLatent", vae=("vae", 0), width=96, height=96, frames=9, **given)
    graph["sample"] = sampler(chance.choice(SEEDS), low=("high", 0), boundary=0.0)
    return _frames(graph, "TI2V-5B", "Wan2.2_VAE.pth")


def _clips(kind: str, release: str, **inputs: Any) -> Graph:
    """A node that makes a whole video, and its loaders."""
    graph = base_graph()
    for name in ("low", "latent"):
        del graph[name]
    graph["high"] = node("WanDiTLoader", model_name=f"wan/{release}")
    graph["vae"] = node("WanVAELoader", vae_name=f"wan/{release}/Wan2.1_VAE.pth")
    graph["picture"] = node("LoadImage", image="picture.png")
    graph["video"] = node(
        kind, model=("high", 0), positive=("text", 0), negative=("text", 1), vae=("vae", 0),
        reference_image=("picture", 0), **(SHORT | inputs),
    )  # fmt: skip
    graph["film"] = node("SaveImage", images=("video", 0), filename_prefix="")
    return graph


def _speech(chance: random.Random) -> Graph:
    release = "S2V-14B"
    graph = _clips(
        "WanSpeechToVideo", release, audio_encoder=("listener", 0), audio=("voice", 0), width=64, height=64,
        frames_per_clip=8, clips=0, seed=chance.choice(SEEDS), start_from_reference=chance.choice((True, False)),
    )  # fmt: skip
    encoder = f"wan/{release}/wav2vec2-large-xlsr-53-english"
    graph["listener"] = node("WanAudioEncoderLoader", audio_encoder_name=encoder)
    graph["voice"] = node("LoadAudio", audio="voice.wav")
    return graph


def _tower(graph: Graph, release: str) -> None:
    file = f"wan/{release}/models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
    graph["clip"] = node("WanCLIPVisionLoader", clip_name=file)


def _video(name: str) -> dict[str, Any]:
    size = {"width": 64, "height": 48, "fit": "original", "fps": 0.0, "start": 0.0, "length": 0}
    return node("WanLoadVideo", file=f"{name}.mp4", **size)


def _animate(chance: random.Random) -> Graph:
    release = "Animate-14B"
    graph = _clips(
        "WanPoseAnimate", release, clip_vision=("clip", 0), pose_video=("pose", 0), face_video=("face", 0),
        frames_per_clip=5, carried_frames="1", seed=chance.choice(SEEDS), face_strength=chance.choice((0.5, 1.0)),
    )  # fmt: skip
    _tower(graph, release)
    graph["pose"], graph["face"] = _video("pose"), _video("face")
    return graph


def _animate2(chance: random.Random) -> Graph:
    release = "Animate-2-14B"
    graph = _clips(
        "WanAnimate2", release, clip_vision=("clip", 0), driving_video=("driving", 0), width=64, height=48,
        frames_per_clip=5, seed=chance.choice(SEEDS), driving_cache=chance.choice(("auto", "off", "ram int8")),
    )  # fmt: skip
    _tower(graph, release)
    graph["driving"] = _video("driving")
    return graph


def _packed(chance: random.Random) -> Graph:
    kind, ending = chance.choice((("fp8", "safetensors"), ("gguf", "gguf")))
    return _text_to_video(chance, *(f"{kind}_{expert}.{ending}" for expert in ("high", "low")))


def _replaced(chance: random.Random) -> Graph:
    return _text_to_video(chance, "wan/T2V-A14B/high_noise_model", REPLACED)


TASKS = {
    "T2V": Task(_text_to_video, ("T2V-A14B",)),
    "T2V official": Task(_official, ("T2V-A14B",), often=1),
    "T2V packed": Task(_packed, ("T2V-A14B",)),
    "T2V replaced": Task(_replaced, ("T2V-A14B",)),
    "I2V": Task(_image_to_video, ("I2V-A14B",)),
    "TI2V": Task(_text_image_to_video, ("TI2V-5B",)),
    "S2V": Task(_speech, ("S2V-14B",), often=1, clips=True),
    "Animate": Task(_animate, ("Animate-14B",), often=2, clips=True),
    "Animate-2": Task(_animate2, ("Animate-2-14B",), often=2, clips=True),
}


def named(graph: Graph, name: str) -> Graph:
    """The graph with its files written under a name of its own."""
    graph = copy.deepcopy(graph)
    for part in graph.values():
        if "filename_prefix" in part["inputs"]:
            part["inputs"]["filename_prefix"] = name
    return graph


def _with(name: str, **inputs: Any) -> Callable[[Graph], object]:
    return lambda graph: graph[name]["inputs"].update(inputs)


BROKEN: dict[str, tuple[Callable[[Graph], object], str]] = {
    "a file cut short": (_with("high", model_name=CUT), "is cut short"),
    "a file that is not there": (_with("high", model_name="nowhere.safetensors"), "nowhere.safetensors"),
    "a VAE as a model": (_with("high", model_name="wan/T2V-A14B/Wan2.1_VAE.pth"), "is a Wan 2.1 VAE"),
    "a text encoder as a VAE": (
        _with("vae", vae_name="wan/T2V-A14B/models_t5_umt5-xxl-enc-bf16.pth"), "is a UMT5 text encoder",
    ),
    "an odd size": (_with("latent", width=100), "width 100 is not a multiple of 16"),
    "frames that do not fit": (_with("latent", frames=8), r"frames 8 is not 4n \+ 1"),
    "no steps": (_with("sample", steps=0), "steps"),
    "no number": (_with("sample", shift="nonsense"), "shift"),
    "an unknown input": (_with("sample", cfg_hihg=["latent", 0]), "unexpected keyword argument 'cfg_hihg'"),
    "a wire of another type": (_with("sample", latent_image=["high", 0]), "latent_image"),
    "a wire to nowhere": (_with("sample", latent_image=["nowhere", 0]), "nowhere|refused"),
    "no such node": (lambda graph: graph.update(sample=node("WanNoSuchNode")), "WanNoSuchNode"),
}  # fmt: skip
"""What is done to a prompt of T2V that must then fail, and what the error says."""


def broken(what: str) -> Graph:
    """One of BROKEN."""
    graph = TASKS["T2V"].variant(random.Random(1))
    BROKEN[what][0](graph)
    return graph
