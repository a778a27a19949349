"""The command: arguments in, a video file out, and an exit code."""

import argparse
import json
import os
import signal
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from devhost.errors import HostError, StoppedError, UnreachableError
from devhost.progress import Progress, note
from devhost.server import Server

from .arguments import parse, target
from .errors import ARGUMENTS, REFUSED, SERVER, STOPPED, ClientError, exit_code, in_one_line
from .graph import Graph, LocalFile
from .own_server import comfyui_folder, last_line, own_server
from .prompt_extension import NODE
from .workflows import build, prompt_of

UPLOADS = "generate"
"""The sub-folder of the server's input folder that uploads go to."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns its exit code; the video's path is all that goes to stdout."""
    if os.environ.get("RANK", "0") != "0":
        return 0  # under torchrun the first process does it all: the server has the GPUs
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)  # a script's background jobs inherit it ignored
    try:
        args = parse(arguments)
        graph = build(args)
        for text in args.unused:
            note(f"note: {text}")
        if args.dry_run:
            sys.stdout.write(json.dumps(graph, indent=2, ensure_ascii=False) + "\n")
            return 0
        with server_for(args, graph) as (server, _):
            sys.stdout.write(f"{generate(args, graph, server)}\n")
    except (ClientError, HostError) as error:
        sys.stderr.write(f"generate.py: {in_one_line(error)}\n")
        return exit_code(error)
    except KeyboardInterrupt:
        sys.stderr.write("generate.py: interrupted\n")
        return STOPPED
    return 0


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


@contextmanager
def server_for(args: argparse.Namespace, graph: Graph) -> Iterator[tuple[Server, Any]]:
    """The server of --server, or one started here with the release in it; then its Host is given too."""
    if args.server:
        server = Server(args.server)
        server.check()
        yield server, None
        return
    _check_release(args.ckpt_dir, graph)
    with own_server(comfyui_folder(args.comfyui), args.ckpt_dir) as host:
        try:
            yield host, host
        except UnreachableError as error:
            if host.process.poll() is None:
                raise
            report = f"ComfyUI ended during the run (exit code {host.process.poll()}): {last_line(host.log_tail())}"
            raise ClientError(SERVER, report) from error


def generate(args: argparse.Namespace, graph: Graph, server: Server) -> Path:
    """Runs a workflow on a server and returns the video's path. An interrupt ends this run there, and no other one."""
    file = target(args, prompt_of(graph))
    find_models(graph, server, args.ckpt_dir.name)
    _upload(graph, server)
    prompt_id = str(uuid.uuid4())
    progress = Progress(graph)
    try:
        entry = server.run(graph, progress, progress.position, args.timeout, prompt_id)
        progress.finish()
    except (KeyboardInterrupt, StoppedError):
        if args.server:
            _cancel(server, prompt_id)
        raise
    finally:
        progress.close()
    for text in entry["outputs"].get(NODE, {}).get("text", []):
        note(f"extended prompt: {text}")
    (video,) = entry["outputs"][graph.of("SaveVideo")[0]]["images"]
    try:
        server.download(video, file)
    except OSError as error:
        where = "/".join(video[key] for key in ("subfolder", "filename") if video.get(key))
        reason = f"{file} cannot be written ({error.strerror}); on the server the video is {where}"
        raise ClientError(ARGUMENTS, reason) from error
    return file


def _cancel(server: Server, prompt_id: str) -> None:
    try:
        server.cancel(prompt_id)
    except HostError as error:
        note(f"the run could not be ended on the server: {in_one_line(error)}")


def find_models(graph: Graph, server: Server, folder: str) -> None:
    """Checks that the server has every node, and names the release's files as it lists them."""
    for content in graph.values():
        choices = server.choices(content["class_type"])
        for name, value in content["inputs"].items():
            if not (isinstance(value, str) and value.startswith(f"wan/{folder}") and name in choices):
                continue
            ending = value.removeprefix("wan")
            matches = [option for option in choices[name] if option == value or str(option).endswith(ending)]
            if not matches:
                there = sorted({str(o).split("/")[1] for o in choices[name] if str(o).startswith("wan/")})
                listed = f"the releases there: {', '.join(there)}" if there else "there is no release"
                raise ClientError(
                    REFUSED,
                    f"the server {server.url} has no {value} among its models: put the release folder into its "
                    f"models/wan, or name one that is there by --ckpt_dir ({listed})",
                )
            content["inputs"][name] = matches[0]


def _upload(graph: Graph, server: Server) -> None:
    names: dict[LocalFile, str] = {}
    for content in graph.values():
        for name, value in content["inputs"].items():
            if isinstance(value, LocalFile):
                names[value] = content["inputs"][name] = names.get(value) or server.upload(
                    Path(value), UPLOADS
                )


def _check_release(release: Path, graph: Graph) -> None:
    """ClientError where the folder lacks what the workflow loads from it."""
    if not release.is_dir():
        raise ClientError(ARGUMENTS, f"--ckpt_dir: there is no folder {release}")
    prefix = f"wan/{release.name}/"
    values = (value for content in graph.values() for value in content["inputs"].values())
    for file in (v.removeprefix(prefix) for v in values if isinstance(v, str) and v.startswith(prefix)):
        if not (release / file).exists():
            raise ClientError(
                ARGUMENTS, f"--ckpt_dir: {release} has no {file}: it is no official folder of this task"
            )
