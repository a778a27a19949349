"""Lays out the drawings in example_workflows: left to right in groups, the note on top.

    python -m demo.drawings [name ...]        all of them where none is named

A drawing keeps its nodes, links, widget values and note. Made anew are places, heights and groups, and what tells a
page without this pack, or without a model, where to get it. Columns: the note and the models, input over prompt and
conditioning, sampling, decoding and saving. Within a group a node stands to the right of those it takes from.
"""

import json
import sys
from pathlib import Path
from typing import Any

import tomllib

from demo.model_files import published

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "example_workflows"
NOTES = ("MarkdownNote", "Note")
OLDEST_HOST = "0.3.75"

MODELS, INPUT, PROMPT, SAMPLING, VIDEO = (
    "Models", "Input", "Prompt and conditioning", "Sampling", "Decode and save",
)  # fmt: skip
COLUMNS = ((MODELS,), (INPUT, PROMPT), (SAMPLING,), (VIDEO,))
COLORS = {MODELS: "#6f8faf", INPUT: "#8A8", PROMPT: "#b457b0", SAMPLING: "#b06634", VIDEO: "#3f9ec8"}
_STAGES = {
    MODELS: ("Loader", "LoRA", "WanMultiGPU", "LoraLoaderModelOnly", "ModelInfo"),
    INPUT: (
        "LoadImage", "LoadAudio", "LoadVideo", "GetVideoComponents", "TextToSpeech", "PoseDetect", "PoseRetarget",
        "DrawPose", "FaceCrop", "SubjectMask", "Background",
    ),
    PROMPT: ("Encode", "Condition", "Latent", "PromptExtend", "PromptSchedule", "Prompts", "ImageBatch"),
    VIDEO: ("VAEDecode", "CreateVideo", "SaveVideo", "PreviewImage", "PreviewAny"),
}  # fmt: skip
"""Endings of node types, by the group they belong to; all others sample."""

TITLE = 30  # a node's title bar stands above its place
GAP, BETWEEN = 50, 60  # inside a group and between groups
PAD, HEAD = 20, 50  # a group's margin, and its own title
WINDOW, MENU = (1500, 850), 60  # pixels of a page's canvas, and of what lies over it at its left and top
NOTE_GROUND = "#333"  # for the grey text of newer pages, 4.5 : 1 in the dark and in the light theme
FILE_WIDTH = 440  # of nodes that choose files: names of the experts' LoRAs differ late
HEIGHTS = {
    "CreateVideo": 110, "GetVideoComponents": 116, "ImageBatch": 80, "LoadAudio": 150, "LoadImage": 330,
    "LoadVideo": 334, "SaveVideo": 130, "WanAnimate2": 730, "WanAudioEncoderLoader": 86, "WanBackground": 86,
    "WanCLIPVisionLoader": 86, "WanContextWindowsManual": 320, "WanDiTLoader": 146, "WanDrawPose": 250,
    "WanEmptyLatent": 194, "WanFaceCrop": 160, "WanI2VCondition": 480, "WanLoRA": 186, "WanLoadVideo": 578,
    "WanLongVideo": 980, "WanMoESampler": 740, "WanMultiGPU": 322, "WanNAG": 226, "WanPoseAnimate": 610,
    "WanPoseDetect": 196, "WanPoseRetarget": 86, "WanPromptSchedule": 430, "WanPrompts": 420,
    "WanSpeechToVideo": 678, "WanSubjectMask": 242, "WanT5Encode": 300, "WanT5Loader": 146,
    "WanTI2VLatent": 242, "WanTextToSpeech": 222, "WanVAEDecode": 110, "WanVAELoader": 146,
}  # fmt: skip
"""The largest that a node was seen to be, on old and new pages and in both kinds of nodes."""
SPARE = {
    "LoadImage": 350, "LoadVideo": 450, "SaveVideo": 580, "WanAnimate2": 390, "WanMoESampler": 390,
    "WanSpeechToVideo": 390, "WanPoseAnimate": 390, "WanLoRA": 60, "WanDiTLoader": 90, "WanAudioEncoderLoader": 90,
    "WanSubjectMask": 60, "WanTextToSpeech": 60, "WanI2VCondition": 60, "WanLoadVideo": 400, "WanLongVideo": 640,
    "WanPromptSchedule": 60, "WanT5Loader": 40, "WanVAELoader": 40, "WanCLIPVisionLoader": 40, "WanPoseDetect": 40,
    "WanMultiGPU": 120,
}  # fmt: skip
"""Room below nodes that grow: with a picture or film in portrait (9:16), a preview or report, or what is said of a
model that is missing."""

SHOWING = ("LoadImage", "LoadVideo", "WanLoadVideo")
"""Nodes that show a picture or film."""


def stage_of(kind: str) -> str:
    return next((stage for stage, ends in _STAGES.items() if kind.endswith(ends)), SAMPLING)


def _depths(nodes: list[dict], links: list[list]) -> dict[int, int]:
    """Number of nodes of its group that a node stands behind."""
    group = {node["id"]: stage_of(node["type"]) for node in nodes}
    is_single = sum(node["type"] == "SaveVideo" for node in nodes) <= 1
    before: dict[int, list[int]] = {node["id"]: [] for node in nodes}
    for _, source, _, target, *_ in links:
        # decoding and saving go from top to bottom where there is one video
        if group[source] == group[target] and not (is_single and group[source] == VIDEO):
            before[target].append(source)
    depths: dict[int, int] = {}

    def depth(node: int) -> int:
        if node not in depths:
            depths[node] = max((1 + depth(other) for other in before[node]), default=0)
        return depths[node]

    return {node: depth(node) for node in before}


def _columns(nodes: list[dict], depths: dict[int, int]) -> list[list[dict]]:
    """The nodes of a group in columns, by depth; each that shows a picture or film begins one: it may get long."""
    columns: list[list[dict]] = []
    for depth in sorted({depths[node["id"]] for node in nodes}):
        columns.append([])
        for node in (node for node in nodes if depths[node["id"]] == depth):
            if columns[-1] and node["type"] in SHOWING:
                columns.append([])
            columns[-1].append(node)
    return columns


def _group_columns(
    nodes: list[dict], depths: dict[int, int], links: list[list]
) -> tuple[tuple[str, ...], ...]:
    """COLUMNS; input beside prompts, where its wires would else go back to them from its second column."""
    group = {node["id"]: stage_of(node["type"]) for node in nodes}
    feeds = any((group[source], group[target]) == (INPUT, PROMPT) for _, source, _, target, *_ in links)
    inputs = [node for node in nodes if group[node["id"]] == INPUT]
    if feeds and len(_columns(inputs, depths)) > 1:
        return tuple((stage,) for column in COLUMNS for stage in column)
    return COLUMNS


def _place(nodes: list[dict], depths: dict[int, int], x: float, y: float) -> list[float]:
    """Puts the nodes of a group below and right of x, y; returns its box [x, y, width, height]."""
    right, bottom, left = x, y, x + PAD
    for column in _columns(nodes, depths):
        top = y + HEAD + TITLE
        for node in column:
            node["pos"] = [left, top]
            top += node["size"][1] + SPARE.get(node["type"], 0) + GAP
        right = left + max(node["size"][0] for node in column)
        bottom, left = max(bottom, top - GAP), right + BETWEEN
    return [x, y, right + PAD - x, bottom + PAD - y]


def pack() -> dict[str, str]:
    """This pack's name and version, under which registry and page know it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"cnr_id": project["name"], "ver": project["version"]}


def _describe(node: dict) -> dict:
    """A node with its size, or a note's colour, and the pack and files that it needs among its properties."""
    kind, (width, height) = node["type"], node["size"]
    if kind in NOTES:
        return {**node, "bgcolor": NOTE_GROUND}
    if kind.endswith((*_STAGES[MODELS], "PoseDetect")):
        width = max(width, FILE_WIDTH)
    origin = pack() if kind.startswith("Wan") else {"cnr_id": "comfy-core", "ver": OLDEST_HOST}
    properties = {"Node name for S&R": kind, **node["properties"], **origin}
    values = [value for value in node.get("widgets_values", []) if isinstance(value, str)]
    if models := [model for value in values if (model := published(kind, value))]:
        properties["models"] = models
    return {**node, "size": [width, max(height, HEIGHTS.get(kind, 0))], "properties": properties}


def arrange(drawing: dict[str, Any]) -> dict[str, Any]:
    """The drawing with new places, heights, groups, properties and view. ValueError where it has not just one note."""
    drawing = {**drawing, "nodes": [_describe(node) for node in drawing["nodes"]]}
    notes = [node for node in drawing["nodes"] if node["type"] in NOTES]
    if len(notes) != 1:
        raise ValueError(f"a drawing has one note that says which files it needs, not {len(notes)}")
    nodes = [node for node in drawing["nodes"] if node["type"] not in NOTES]
    depths, x = _depths(nodes, drawing["links"]), 40.0
    groups: list[dict[str, Any]] = []
    for column in _group_columns(nodes, depths, drawing["links"]):
        y, right = 40.0, x
        if column == (MODELS,):
            notes[0]["pos"] = [x, y + TITLE]
            right, y = x + notes[0]["size"][0], y + TITLE + notes[0]["size"][1] + BETWEEN
        for stage in column:
            members = [node for node in nodes if stage_of(node["type"]) == stage]
            if not members:
                continue
            box = _place(members, depths, x, y)
            groups.append({"id": len(groups) + 1, "title": stage, "bounding": box, "color": COLORS[stage],
                           "font_size": 24, "flags": {}})  # fmt: skip
            right, y = max(right, x + box[2]), y + box[3] + BETWEEN
        x = right + BETWEEN
    return {**drawing, "groups": groups, "extra": {"ds": _view(notes + nodes, groups)}}


def _view(nodes: list[dict], groups: list[dict]) -> dict[str, Any]:
    """First view of the page: all of it. A page that has to find that out by itself may move nodes meanwhile."""
    right, bottom = (
        max([node["pos"][i] + node["size"][i] for node in nodes] + [sum(g["bounding"][i::2]) for g in groups])
        for i in (0, 1)
    )
    scale = round(min(WINDOW[0] / right, WINDOW[1] / bottom, 1.0), 2)
    return {"scale": scale, "offset": [round(MENU / scale), round(MENU / scale)]}


def dump(drawing: dict[str, Any]) -> str:
    """JSON with one node, link or group a line."""
    parts = []
    for key, value in drawing.items():
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, list) and value:
            text = "[\n " + ",\n ".join(json.dumps(item, ensure_ascii=False) for item in value) + "\n]"
        parts.append(f'"{key}": {text}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    for name in sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.json")):
        file = FOLDER / f"{name}.json"
        file.write_text(dump(arrange(json.loads(file.read_text(encoding="utf-8")))), encoding="utf-8")
        sys.stdout.write(f"{file}\n")


if __name__ == "__main__":
    main()
