"""The official arguments, checked: what is wrong is said before a server is asked for anything."""

import argparse
import os
import random
import re
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from wan_models.families import DISTILLED_MODELS, RELEASES, Release
from wan_models.sampling.solvers import SOLVERS

from . import prompt_extension
from .errors import ARGUMENTS, ClientError

TASKS = {
    "t2v-A14B": "T2V-A14B",
    "i2v-A14B": "I2V-A14B",
    "ti2v-5B": "TI2V-5B",
    "animate-14B": "Animate-14B",
    "animate-2-14B": "Animate-2-14B",
    "s2v-14B": "S2V-14B",
}
MAX_SEED = 2**63 - 1
# arguments that have no part in the other tasks; the official code passes them over in silence
ONLY_IN = {
    "size": ("t2v-A14B", "i2v-A14B", "ti2v-5B", "s2v-14B", "animate-2-14B"),
    "frame_num": ("t2v-A14B", "i2v-A14B", "ti2v-5B", "animate-14B", "animate-2-14B"),
    "image": ("i2v-A14B", "ti2v-5B", "s2v-14B", "animate-2-14B"),
    **dict.fromkeys(("driving_video", "driving_prompt", "distilled"), ("animate-2-14B",)),
    **dict.fromkeys(("src_root_path", "refert_num", "replace_flag", "use_relighting_lora"), ("animate-14B",)),
    **dict.fromkeys(
        ("num_clip", "audio", "enable_tts", "tts_prompt_audio", "tts_prompt_text", "tts_text", "tts_voice"),
        ("s2v-14B",),
    ),
    **dict.fromkeys(("pose_video", "start_from_ref", "infer_frames"), ("s2v-14B",)),
}
SOURCES = ("src_pose.mp4", "src_face.mp4", "src_ref.png")
REPLACE_SOURCES = ("src_bg.mp4", "src_mask.mp4")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ClientError(ARGUMENTS, f"{message} (--help lists all arguments)")


def _yes(text: str) -> bool:
    if text.lower() in ("yes", "true", "t", "y", "1"):
        return True
    if text.lower() in ("no", "false", "f", "n", "0"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def _add_driven(parser: argparse.ArgumentParser) -> None:
    driven = parser.add_argument_group("animate-2-14B")
    driven.add_argument("--driving_video", metavar="FILE", help="the raw video that the character moves like")
    driven.add_argument(
        "--driving_prompt", metavar="TEXT", help="what that shows; the official text if left out"
    )
    driven.add_argument("--distilled", action="store_true", help="the distilled model of --ckpt_dir")


def make_parser() -> argparse.ArgumentParser:
    """Every official argument, under its official name, and a few of our own at the end."""
    parser = _Parser(
        prog="generate.py",
        description="Makes a video with a Wan2.2 release on a ComfyUI server. Exit codes: docs/command-line.md.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--task", choices=list(TASKS), default="t2v-A14B")
    add("--ckpt_dir", metavar="FOLDER", help="the official release folder; on --server, its name there")
    add(
        "--size",
        metavar="WIDTH*HEIGHT",
        help="size, or with an image its area (1280*720; ti2v-5B 1280*704; animate-2 640*800)",
    )
    add("--frame_num", type=int, help="frames, 4n+1; of each clip in animate-14B and animate-2-14B")
    add("--prompt", help="what the video shows")
    add(
        "--image",
        metavar="FILE",
        help="start image (i2v, ti2v), who speaks (s2v), or the character (animate-2)",
    )
    add(
        "--save_file",
        metavar="FILE.mp4",
        help="where the video goes; a name made of the arguments if left out",
    )
    add("--base_seed", type=int, default=-1, help="-1: a new one each time")
    add("--sample_solver", choices=list(SOLVERS), help="unipc if left out; animate-2-14B: its own")
    add("--sample_steps", type=int)
    add("--sample_shift", type=float)
    add("--sample_guide_scale", type=float, help="CFG scale, of both experts")
    add(
        "--offload_model",
        type=_yes,
        metavar="BOOL",
        help="with --dit_fsdp and --ulysses_size: weights rest in the computer's memory",
    )
    add("--convert_model_dtype", action="store_true", help="keep weights in bfloat16")
    add("--t5_cpu", action="store_true", help="text encoder on the CPU")

    several = parser.add_argument_group("several GPUs")
    several.add_argument("--ulysses_size", type=int, default=1, help="GPUs that share one video")
    several.add_argument("--dit_fsdp", action="store_true", help="each GPU keeps a part of the model")
    several.add_argument("--t5_fsdp", action="store_true", help="each GPU keeps a part of the text encoder")

    extend = parser.add_argument_group("prompt extension")
    extend.add_argument("--use_prompt_extend", action="store_true")
    extend.add_argument("--prompt_extend_method", choices=["dashscope", "local_qwen"], default="local_qwen")
    extend.add_argument("--prompt_extend_model", metavar="NAME")
    extend.add_argument("--prompt_extend_target_lang", choices=["zh", "en"], default="zh")

    animate = parser.add_argument_group("animate-14B")
    animate.add_argument(
        "--src_root_path", metavar="FOLDER", help="what the official preprocessing has written"
    )
    animate.add_argument(
        "--refert_num", type=int, choices=[1, 5], default=1, help="frames carried to the next clip"
    )
    animate.add_argument("--replace_flag", action="store_true", help="take the person's place")
    animate.add_argument("--use_relighting_lora", action="store_true")

    _add_driven(parser)

    speech = parser.add_argument_group("s2v-14B")
    speech.add_argument("--audio", metavar="FILE")
    speech.add_argument("--num_clip", type=int, help="clips to make; as many as the audio needs if left out")
    speech.add_argument("--infer_frames", type=int, default=80, help="frames per clip, a multiple of 4")
    speech.add_argument("--pose_video", metavar="FILE")
    speech.add_argument("--start_from_ref", action="store_true", help="begin with the image itself")
    speech.add_argument("--enable_tts", action="store_true", help="make the audio from --tts_text")
    speech.add_argument("--tts_text")
    speech.add_argument("--tts_prompt_audio", metavar="FILE", help="a sample of the voice")
    speech.add_argument("--tts_prompt_text", help="what is said in the sample")
    speech.add_argument(
        "--tts_voice", default="CosyVoice2-0.5B", help="folder in the server's models/tts (not official)"
    )

    server = parser.add_argument_group("server (not official)")
    server.add_argument("--server", metavar="ADDRESS", help="a running ComfyUI, as 127.0.0.1:8188 or a URL")
    server.add_argument(
        "--comfyui", metavar="FOLDER", help="a ComfyUI to start for this run (.host/ComfyUI if set up)"
    )
    server.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="give up after that long in queue and work"
    )
    server.add_argument(
        "--dry-run", action="store_true", help="print the API workflow and end; asks no server"
    )
    return parser


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The arguments with every default filled in, `width`, `height` and `release` beside them.

    Raises ClientError where one is wrong or names a file that is not there."""
    parser = make_parser()
    args = parser.parse_args(arguments)
    if not args.ckpt_dir:
        _wrong("--ckpt_dir is missing: the official release folder, or its name on the server")
    if args.server and args.comfyui:
        _wrong("--server and --comfyui exclude each other: a running server, or one that is started")
    args.ckpt_dir = Path(os.path.abspath(args.ckpt_dir))  # not resolved: a link's own name counts
    args.unused = [
        f"--{name} has no part in {args.task}"
        for name, tasks in ONLY_IN.items()
        if args.task not in tasks and getattr(args, name) != parser.get_default(name)
    ]
    release = args.release = RELEASES[TASKS[args.task]]
    if args.distilled and args.task == "animate-2-14B":
        release = args.release = DISTILLED_MODELS[f"{release.name} distilled"]
    if args.sample_solver is None:  # the official default, but where there is no official code
        args.sample_solver = release.solver if args.task == "animate-2-14B" else "unipc"
    _check_numbers(args, release)
    _check_files(args)
    if args.base_seed < 0:
        args.base_seed = random.SystemRandom().randint(0, MAX_SEED)
    args.started = datetime.now().strftime("%Y%m%d_%H%M%S")
    return args


def _wrong(message: str) -> NoReturn:
    raise ClientError(ARGUMENTS, message)


def _check_numbers(args: argparse.Namespace, release: Release) -> None:
    _check_size(args, release)
    if args.frame_num is None:
        args.frame_num = release.frames
    least = 5 if args.task.startswith("animate") else 1
    if args.task != "s2v-14B" and (args.frame_num < least or args.frame_num % 4 != 1):
        _wrong(f"--frame_num {args.frame_num} is not 4n+1 and {least} or more: 81 or 77 for example")
    if args.infer_frames < 4 or args.infer_frames % 4:
        _wrong(f"--infer_frames {args.infer_frames} is not a multiple of 4")
    for name in ("num_clip", "sample_steps", "ulysses_size"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            _wrong(f"--{name} {getattr(args, name)} is less than 1")
    for name in ("sample_shift", "timeout"):
        value = getattr(args, name)
        if value is not None and not value > 0:
            _wrong(f"--{name} {value:g} is not above 0")
    if args.sample_guide_scale is not None and not args.sample_guide_scale >= 0:
        _wrong(f"--sample_guide_scale {args.sample_guide_scale:g} is below 0")
    if args.base_seed > MAX_SEED:
        _wrong(f"--base_seed {args.base_seed} is above {MAX_SEED}")
    if args.t5_cpu and args.t5_fsdp:
        _wrong("--t5_cpu and --t5_fsdp exclude each other")
    if args.use_prompt_extend and args.task not in prompt_extension.TASKS:
        _wrong(
            f"--use_prompt_extend is for {', '.join(prompt_extension.TASKS)}: {args.task} has no system prompt"
        )


def _check_size(args: argparse.Namespace, release: Release) -> None:
    multiple = 32 if release.vae == "2.2" else 16
    if args.task == "animate-14B":  # of its sources' size
        args.size = None
    if args.size is None:
        # the official default is no size of these
        own = args.task in ("ti2v-5B", "animate-2-14B")
        args.size = "{}*{}".format(*release.size) if own else "1280*720"
    match = re.fullmatch(r"(\d+)[*x](\d+)", args.size)
    if not match:
        _wrong(f"--size {args.size} is not WIDTH*HEIGHT, as 832*480")
    args.width, args.height = map(int, match.groups())
    if args.width < multiple or args.height < multiple or args.width % multiple or args.height % multiple:
        _wrong(f"--size {args.size}: width and height are multiples of {multiple} in {args.task}")


def _check_files(args: argparse.Namespace) -> None:
    needed: dict[str, Any] = {}
    if args.task in ("i2v-A14B", "ti2v-5B", "s2v-14B", "animate-2-14B"):
        needed["image"] = args.task != "ti2v-5B"
    if args.task == "animate-2-14B":
        needed["driving_video"] = True
    if args.task == "s2v-14B":
        needed |= {"pose_video": False, "audio": not args.enable_tts, "tts_prompt_audio": False}
    for name, is_required in needed.items():
        file = getattr(args, name)
        if file is None and is_required:
            _wrong(f"--{name} is missing: {args.task} needs it")
        if file is not None:
            _check_file(f"--{name}", Path(file))
    if args.task == "s2v-14B" and args.enable_tts and not args.tts_text:
        _wrong("--tts_text is missing: --enable_tts speaks it")
    if args.task == "animate-14B":
        if args.src_root_path is None:
            _wrong(
                "--src_root_path is missing: animate-14B needs the folder that the preprocessing has written"
            )
        for name in SOURCES + (REPLACE_SOURCES if args.replace_flag else ()):
            _check_file("--src_root_path", Path(args.src_root_path, name))
    if args.save_file is not None:
        _check_target(Path(args.save_file))


def _check_file(argument: str, file: Path) -> None:
    if not file.is_file():
        _wrong(f"{argument}: there is no file {file}")
    if not os.access(file, os.R_OK):
        _wrong(f"{argument}: {file} may not be read")


def _check_target(file: Path) -> None:
    """Hours of work end here: whether the video can be written is found out before."""
    if file.suffix.lower() != ".mp4":
        _wrong(f"--save_file {file}: the video is an mp4, and the name ends in .mp4")
    if file.is_dir():
        _wrong(f"--save_file {file} is a folder")
    if not file.parent.is_dir():
        _wrong(f"--save_file {file}: there is no folder {file.parent}")
    if not os.access(file.parent, os.W_OK):
        _wrong(f"--save_file {file}: the folder may not be written to")


def target(args: argparse.Namespace, prompt: str) -> Path:
    """Path of the video: `save_file`, or the official name of task, size, GPUs, prompt and time."""
    if args.save_file is not None:
        return Path(args.save_file)
    size = args.size
    prompt = prompt.replace(" ", "_").replace("/", "_")[:50]
    if sys.platform == "win32":
        size, prompt = size.replace("*", "x"), re.sub(r'[<>:"\\|?*\x00-\x1f]', "", prompt)
    return Path(f"{args.task}_{size}_{args.ulysses_size}_{prompt}_{args.started}.mp4")
