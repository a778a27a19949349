"""All releases on real weights: time, peak memory and a contact sheet of each video.

    python tests/run_releases.py MODEL_DIR GPUS

MODEL_DIR holds the official folders as downloaded (Wan2.2-T2V-A14B, ...). Each release runs in a ComfyUI of its own, so
that a peak is its own. Inputs that are not given (--image, --audio, --src_root_path, --driving_video) are made here:
they show that everything runs, and not how good it looks.
"""

import argparse
import sys
import threading
import time
from pathlib import Path

import av
import numpy as np
import psutil
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from tests_media import write_film, write_sound  # noqa: E402

from client.arguments import TASKS, parse  # noqa: E402
from client.command import generate, server_for  # noqa: E402
from client.errors import ClientError, in_one_line  # noqa: E402
from client.workflows import build  # noqa: E402
from devhost.errors import HostError, UnreachableError  # noqa: E402

SHEET_FRAMES, SHEET_HEIGHT = 6, 160


class Memory(threading.Thread):
    """Peaks, in bytes, while it is entered: the server's processes (mapped weights count), and its GPU."""

    def __init__(self, host):
        super().__init__(daemon=True)
        self.host, self.ram, self.gpu = host, 0, 0
        self.ended = threading.Event()

    def run(self):
        while not self.ended.wait(0.2):
            try:
                server = psutil.Process(self.host.process.pid)
                processes = [server, *server.children(recursive=True)]
                self.ram = max(self.ram, sum(process.memory_info().rss for process in processes))
                devices = self.host.get("/system_stats")["devices"]
                used = [d["vram_total"] - d["vram_free"] for d in devices if d["type"] != "cpu"]
                self.gpu = max([self.gpu, *used])
            except (psutil.NoSuchProcess, UnreachableError):
                continue  # it is ending, or too busy to answer

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exception):
        self.ended.set()
        self.join()


def arguments_of(task, folder, chosen, inputs, output):
    """The command line of one release."""
    out = [
        "--task",
        task,
        "--ckpt_dir",
        str(folder),
        "--save_file",
        str(output / f"{task}.mp4"),
        "--base_seed",
        "42",
    ]
    for name in ("size", "frame_num", "sample_steps", "comfyui"):
        if getattr(chosen, name) is not None:
            out += [f"--{name}", str(getattr(chosen, name))]
    if task in ("i2v-A14B", "s2v-14B", "animate-2-14B"):
        out += ["--image", str(inputs["image"])]
    if task == "s2v-14B":
        out += ["--audio", str(inputs["audio"]), "--num_clip", "1"]
        if chosen.frame_num is not None:
            out += ["--infer_frames", str(max(4, chosen.frame_num // 4 * 4))]
    if task == "animate-14B":
        out += ["--src_root_path", str(inputs["src_root_path"])]
    if task == "animate-2-14B":
        out += ["--driving_video", str(inputs["driving_video"])]
    if chosen.gpus > 1:
        out += ["--ulysses_size", str(chosen.gpus), "--dit_fsdp", "--t5_fsdp"]
    return out


def run(task, folder, chosen, inputs, output):
    """Makes one video; returns its file, seconds without the server's start, and peaks of memory."""
    args = parse(arguments_of(task, folder, chosen, inputs, output))
    graph = build(args)
    with server_for(args, graph) as (server, host), Memory(host) as memory:
        started = time.monotonic()
        video = generate(args, graph, server)
        return video, time.monotonic() - started, memory.ram, memory.gpu


def make_inputs(chosen, folder):
    """What was not given: a picture, a sound, and the sources of an animation."""
    folder.mkdir(exist_ok=True)
    width, height = map(int, (chosen.size or "1280*720").split("*"))
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    waves = [127 + 100 * np.sin(across / width * n * 9 + down / height * 5) for n in (1, 2, 3)]
    picture = Image.fromarray(np.stack(waves, axis=-1).astype(np.uint8))
    for name in ("image.png", "src_ref.png"):
        picture.save(folder / name)
    write_sound(folder / "audio.wav", (chosen.frame_num or 80) / 16)
    for name, size in (("src_pose.mp4", (width, height)), ("src_face.mp4", (512, 512))):
        write_film(folder / name, chosen.frame_num or 77, 30, *size)
    made = {
        "image": folder / "image.png", "audio": folder / "audio.wav", "src_root_path": folder,
        "driving_video": folder / "src_pose.mp4",
    }  # fmt: skip
    return made | {name: getattr(chosen, name) for name in made if getattr(chosen, name) is not None}


def find(models, task):
    """The folder of a release below `models`, by the end of its name; None where it is not there."""
    found = [
        f for f in sorted(models.iterdir()) if f.is_dir() and f.name.lower().endswith(TASKS[task].lower())
    ]
    return found[0] if found else None


def row_of_frames(title, video):
    """Frames of a video side by side, under a title."""
    with av.open(str(video)) as film:
        frames = [frame.to_image() for frame in film.decode(video=0)]
    chosen = [frames[i] for i in np.linspace(0, len(frames) - 1, SHEET_FRAMES).round().astype(int)]
    width = max(1, round(chosen[0].width * SHEET_HEIGHT / chosen[0].height))
    row = Image.new("RGB", (width * SHEET_FRAMES, SHEET_HEIGHT + 20), "white")
    for n, frame in enumerate(chosen):
        row.paste(frame.resize((width, SHEET_HEIGHT)), (n * width, 20))
    ImageDraw.Draw(row).text((4, 4), title, fill="black")
    return row


def contact_sheet(rows, file):
    sheet = Image.new("RGB", (max(r.width for r in rows), sum(r.height for r in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    sheet.save(file, quality=90)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("gpus", type=int)
    parser.add_argument("--only", nargs="+", choices=list(TASKS), default=list(TASKS))
    for name in ("size", "comfyui", "image", "audio", "src_root_path", "driving_video"):
        parser.add_argument(f"--{name}", help="as in generate.py")
    for name in ("frame_num", "sample_steps"):
        parser.add_argument(f"--{name}", type=int, help="as in generate.py; the official number if left out")
    parser.add_argument(
        "--output", type=Path, default=Path("output/releases"), help="for videos and releases.jpg"
    )
    chosen = parser.parse_args()
    if not chosen.model_dir.is_dir():
        parser.error(f"there is no folder {chosen.model_dir}")
    chosen.output.mkdir(parents=True, exist_ok=True)
    inputs = make_inputs(chosen, chosen.output / "inputs")

    lines, rows, is_complete = [], [], True
    for task in chosen.only:
        folder = find(chosen.model_dir, task)
        try:
            if folder is None:
                raise ClientError(2, f"not in {chosen.model_dir}")
            video, seconds, ram, gpu = run(task, folder, chosen, inputs, chosen.output)
        except (ClientError, HostError) as error:
            lines.append(f"{task:<12} {in_one_line(error)}")
            is_complete = False
            continue
        on_gpu = f"GPU {gpu / 2**30:.2f} GiB" if gpu else "no GPU"
        lines.append(f"{task:<12} {seconds:8.1f} s   memory {ram / 2**30:.2f} GiB   {on_gpu}")
        rows.append(row_of_frames(lines[-1], video))
    if rows:
        contact_sheet(rows, chosen.output / "releases.jpg")
        lines.append(f"{chosen.output / 'releases.jpg'}")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if is_complete else 1


if __name__ == "__main__":
    sys.exit(main())
