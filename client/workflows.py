"""The workflow of each task: an example workflow with the arguments filled in."""

import argparse
from pathlib import Path
from typing import Any

from wan_models.sampling.solvers import SOLVERS

from .graph import Graph, LocalFile
from .prompt_extension import NODE, extend_prompt

SAMPLERS = {
    "WanMoESampler": ("model_high", "model_low"),
    "WanSpeechToVideo": ("model",),
    "WanPoseAnimate": ("model",),
    "WanAnimate2": ("model",),
}
"""The nodes that do the work, and their MODEL inputs."""


def build(args: argparse.Namespace) -> Graph:
    """The API workflow. Files of this computer are `LocalFile`s; models are named as in the server's models/wan."""
    graph = _TASKS[args.task](args)
    _set_models(graph, args)
    _set_sampling(graph, args)
    if args.prompt is not None:
        graph[graph.of("WanT5Encode")[0]]["inputs"]["positive"] = args.prompt
    if args.use_prompt_extend:
        extend_prompt(graph, args)
    if args.ulysses_size > 1 or args.dit_fsdp:
        _use_several_gpus(graph, args)
    graph.only("SaveVideo")["filename_prefix"] = f"video/{args.task}_{args.started}"
    return graph


def prompt_of(graph: Graph) -> str:
    """The prompt before any extension: the argument, or the example's."""
    return (
        graph[NODE]["inputs"]["prompt"]
        if NODE in graph
        else graph[graph.of("WanT5Encode")[0]]["inputs"]["positive"]
    )


def _size(args: argparse.Namespace) -> dict[str, int]:
    return {"width": args.width, "height": args.height}


def _text_to_video(args: argparse.Namespace) -> Graph:
    graph = Graph.example("t2v_a14b")
    graph.only("WanEmptyLatent").update(_size(args), frames=args.frame_num)
    return graph


def _image_to_video(args: argparse.Namespace) -> Graph:
    graph = Graph.example("i2v_a14b")
    graph.only("LoadImage")["image"] = LocalFile(args.image)
    graph.only("WanI2VCondition").update(_size(args), frames=args.frame_num)
    return graph


def _text_and_image_to_video(args: argparse.Namespace) -> Graph:
    graph = Graph.example("ti2v_5b_image" if args.image else "ti2v_5b_text")
    if args.image:
        graph.only("LoadImage")["image"] = LocalFile(args.image)
    graph.only("WanTI2VLatent").update(_size(args), frames=args.frame_num)
    return graph


def _speech_to_video(args: argparse.Namespace) -> Graph:
    graph = Graph.example("s2v_14b_pose" if args.pose_video else "s2v_14b")
    graph.only("LoadImage")["image"] = LocalFile(args.image)
    work = graph.only("WanSpeechToVideo")
    work.update(
        _size(args),
        frames_per_clip=args.infer_frames,
        clips=args.num_clip or 0,
        start_from_reference=args.start_from_ref,
    )
    if args.pose_video:
        graph.only("LoadVideo")["file"] = LocalFile(args.pose_video)
    if args.enable_tts:
        work["audio"] = [_speak(graph, args), 0]
        graph.drop_unused(*graph.of("SaveVideo"))
    else:
        graph.only("LoadAudio")["audio"] = LocalFile(args.audio)
    return graph


def _speak(graph: Graph, args: argparse.Namespace) -> str:
    sample: dict[str, Any] = {}
    if args.tts_prompt_audio:
        sample["voice_sample"] = (
            graph.add("voice sample", "LoadAudio", audio=LocalFile(args.tts_prompt_audio)),
            0,
        )
        sample["voice_sample_text"] = args.tts_prompt_text or ""
    return graph.add(
        "speech", "WanTextToSpeech", text=args.tts_text, voice=args.tts_voice, seed=args.base_seed, **sample
    )


def _animate(args: argparse.Namespace) -> Graph:
    """The example finds poses by itself; here they are there already, as the official preprocessing writes them."""
    graph = Graph.example("animate_14b_replace" if args.use_relighting_lora else "animate_14b")
    sources = Path(args.src_root_path)

    def video(name: str) -> tuple[str, int]:
        file = LocalFile(sources / f"src_{name}.mp4")
        size = {"width": 1280, "height": 720, "fit": "original"}
        return graph.add(name, "WanLoadVideo", file=file, fps=0.0, start=0.0, length=0, **size), 0

    graph.only("LoadImage")["image"] = LocalFile(sources / "src_ref.png")
    work = graph.only("WanPoseAnimate")
    for name in ("background_video", "mask"):
        work.pop(name, None)
    wires = {"pose_video": video("pose"), "face_video": video("face")}
    if args.replace_flag:
        wires["background_video"] = video("bg")
        wires["mask"] = (graph.add("subject mask", "ImageToMask", image=video("mask"), channel="red"), 0)
    work.update({name: list(wire) for name, wire in wires.items()})
    work.update(frames_per_clip=args.frame_num, carried_frames=str(args.refert_num))
    graph.only("CreateVideo")["fps"] = args.release.fps
    graph.only("CreateVideo").pop("audio", None)
    graph.drop_unused(*graph.of("SaveVideo"))
    return graph


def _animate_2(args: argparse.Namespace) -> Graph:
    graph = Graph.example("animate_2_14b")
    graph.only("LoadImage")["image"] = LocalFile(args.image)
    graph.only("WanLoadVideo").update(file=LocalFile(args.driving_video), fit="original")
    graph.only("WanAnimate2").update(_size(args), frames_per_clip=args.frame_num)
    folder = f"wan/{args.ckpt_dir.name}"
    # as the release has them; unlike the others, not in one folder
    file = "wan_animate_2_bf16_distillation" if args.distilled else "wan_animate_2_bf16"
    graph.only("WanDiTLoader")["model_name"] = f"{folder}/wan_animate_2/{file}.safetensors"
    for kind, name in (("WanT5Loader", "t5_name"), ("WanCLIPVisionLoader", "clip_name")):
        inputs = graph.only(kind)
        inputs[name] = f"{folder}/videomodel/Wan-AI/{inputs[name].rpartition('/')[2]}"
    graph.only("WanVAELoader")["vae_name"] = f"{folder}/videomodel/Wan-AI/vae.pth"
    if args.driving_prompt is not None:
        graph[graph.of("WanT5Encode")[1]]["inputs"]["positive"] = args.driving_prompt
    return graph


_TASKS = {
    "t2v-A14B": _text_to_video,
    "i2v-A14B": _image_to_video,
    "ti2v-5B": _text_and_image_to_video,
    "animate-14B": _animate,
    "animate-2-14B": _animate_2,
    "s2v-14B": _speech_to_video,
}


def _set_models(graph: Graph, args: argparse.Namespace) -> None:
    """Names the files of the release by its folder, in the place of the example's."""
    for content in graph.values():
        for key, value in content["inputs"].items():
            if isinstance(value, str) and value.startswith("wan/"):
                content["inputs"][key] = "/".join(["wan", args.ckpt_dir.name, *value.split("/")[2:]])
        if content["class_type"] == "WanDiTLoader" and args.convert_model_dtype:
            content["inputs"]["weight_dtype"] = "bf16"
    if args.t5_cpu or args.t5_fsdp:
        graph.only("WanT5Loader")["device"] = "cpu" if args.t5_cpu else "multi gpu"


def _set_sampling(graph: Graph, args: argparse.Namespace) -> None:
    """The release's own settings as its preset, or any others as "custom"; noise as the official code draws it."""
    release = args.release
    ((kind, models),) = [item for item in SAMPLERS.items() if graph.of(item[0])]
    work = graph.only(kind)
    work.update(seed=args.base_seed, noise_source="gpu")
    overrides = (args.sample_steps, args.sample_shift, args.sample_guide_scale)
    if overrides == (None, None, None) and args.sample_solver == release.solver:
        work["preset"] = release.name
        return
    low, high = release.guidance if args.sample_guide_scale is None else (args.sample_guide_scale,) * 2
    work.update(
        preset="custom",
        steps=args.sample_steps or release.steps,
        shift=args.sample_shift or release.shift,
        sampler=f"wan {args.sample_solver}",
    )
    if args.sample_solver not in SOLVERS:  # of a distilled model, the host's
        work.update(sampler=args.sample_solver, scheduler="simple")
    if len(models) == 1:
        work["cfg"] = high
    else:
        work.update(cfg_high=high, cfg_low=low, boundary=release.boundary or 0.0)


def _use_several_gpus(graph: Graph, args: argparse.Namespace) -> None:
    """Puts a WanMultiGPU before each MODEL input of the sampler."""
    if args.ulysses_size > 1:
        group = {
            "gpus": args.ulysses_size,
            "mode": "explicit",
            "cfg_parallel": 1,
            "ulysses": args.ulysses_size,
        }
    else:
        group = {"gpus": 0, "mode": "auto"}
    group |= {"fsdp": "on" if args.dit_fsdp else "off"}
    if args.dit_fsdp and args.offload_model:
        group["offload"] = True
    for kind, names in SAMPLERS.items():
        for node in graph.of(kind):
            inputs = graph[node]["inputs"]
            for name in names:
                if name in inputs:
                    inputs[name] = [
                        graph.add(f"{name} on GPUs", "WanMultiGPU", model=tuple(inputs[name]), **group),
                        0,
                    ]
