"""Makes the blueprints in subgraphs/ of example workflows: a whole task as one node, for the page's node library.

    python -m demo.blueprints

A blueprint is a workflow that holds one subgraph node. Its inputs are what a user brings or most often changes; all
else is inside, where it can be opened, with the values of the drawing. Its output is the video.
"""

import json
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.drawings import FOLDER, NOTES, ROOT, dump, pack

BLUEPRINTS = ROOT / "subgraphs"
CATEGORY = "Video generation and editing/Wan2.2"
GIVEN = ("LoadImage", "LoadAudio", "SaveVideo")
"""Nodes that stay outside: their wires are inputs and the output of the blueprint."""
INPUT_NODE, OUTPUT_NODE = -10, -20


@dataclass(frozen=True)
class Blueprint:
    """One of them: the drawing it is made of, and the widgets that are its inputs, as {name: (node type, widget)}."""

    title: str
    drawing: str
    description: str
    widgets: dict[str, tuple[str, str]]


_MODELS = {"text_encoder": ("WanT5Loader", "t5_name"), "vae": ("WanVAELoader", "vae_name")}
_PROMPT = {"prompt": ("WanT5Encode", "positive")}
_SINGLE = {"model": ("WanDiTLoader", "model_name"), **_MODELS}


def _size(kind: str) -> dict[str, tuple[str, str]]:
    return {name: (kind, name) for name in ("width", "height", "frames")}


ALL = (
    Blueprint("Text to Video (Wan2.2)", "t2v_a14b_fp8_scaled", "A video of a text, by the two experts of T2V-A14B.",
              {**_PROMPT, **_size("WanEmptyLatent"), **_MODELS}),
    Blueprint("Image to Video (Wan2.2)", "i2v_a14b", "A video that begins with an image, by the two experts of "
              "I2V-A14B.", {**_PROMPT, **_size("WanI2VCondition"), **_MODELS}),
    Blueprint("Speech to Video (Wan2.2)", "s2v_14b", "The person in an image speaks or sings, by S2V-14B.",
              {**_PROMPT, "clips": ("WanSpeechToVideo", "clips"), **_SINGLE}),
    Blueprint("Animate to Video (Wan2.2)", "animate_14b", "The person in an image moves like the one in a video, by "
              "Animate-14B.", {**_PROMPT, "video": ("WanLoadVideo", "file"), **_SINGLE}),
)  # fmt: skip


class _Subgraph:
    """A drawing being turned into a subgraph with inputs and an output."""

    def __init__(self, drawing: dict[str, Any]) -> None:
        self.outside = {n["id"]: n for n in drawing["nodes"] if n["type"] in (*GIVEN, *NOTES)}
        self.nodes = [n for n in drawing["nodes"] if n["id"] not in self.outside]
        self.links: list[dict[str, Any]] = []
        self.inputs: list[dict[str, Any]] = []
        self.outputs: list[dict[str, Any]] = []
        for node in self.nodes:
            for slot in node["outputs"]:
                slot["links"] = []
        for _, source, out, target, place, kind in drawing["links"]:
            self._wire(source, out, target, place, kind)

    def node(self, number: int) -> dict[str, Any]:
        return next(node for node in self.nodes if node["id"] == number)

    def link(self, source: tuple[int, int], target: tuple[int, int], kind: str) -> int:
        """A wire from an output slot to an input slot; returns its number."""
        number = len(self.links) + 1
        names = ("origin_id", "origin_slot", "target_id", "target_slot")
        self.links.append({"id": number, **dict(zip(names, (*source, *target), strict=True)), "type": kind})
        if source[0] != INPUT_NODE:
            self.node(source[0])["outputs"][source[1]]["links"].append(number)
        if target[0] != OUTPUT_NODE:
            self.node(target[0])["inputs"][target[1]]["link"] = number
        return number

    def add_input(self, name: str, kind: str, target: tuple[int, int]) -> None:
        """Leads an input, that of the same name where there is one, to a slot inside."""
        place = next((i for i, slot in enumerate(self.inputs) if slot["name"] == name), len(self.inputs))
        if place == len(self.inputs):
            self.inputs.append({"id": _id(name), "name": name, "type": kind, "linkIds": []})
        self.inputs[place]["linkIds"].append(self.link((INPUT_NODE, place), target, kind))

    def _wire(self, source: int, out: int, target: int, place: int, kind: str) -> None:
        if source in self.outside:
            self.add_input(kind.lower(), kind, (target, place))
        elif target in self.outside:
            number = self.link((source, out), (OUTPUT_NODE, len(self.outputs)), kind)
            self.outputs.append({"id": _id("out"), "name": kind.lower(), "type": kind, "linkIds": [number]})
        else:
            self.link((source, out), (target, place), kind)


def _id(name: str) -> str:
    """The same name has the same id each time that blueprints are made."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{pack()['cnr_id']}/{name}"))


def _widgets(blueprint: Blueprint, graph: _Subgraph) -> list[tuple[str, int, str]]:
    """Name, node and widget of each input; both experts are inputs where there are two."""
    loaders = [node for node in graph.nodes if node["type"] == "WanDiTLoader"]
    widgets = [
        (name, node["id"], widget)
        for name, (kind, widget) in blueprint.widgets.items()
        for node in graph.nodes
        if node["type"] == kind
    ]
    if len(loaders) == 2:
        experts = zip(("model_high", "model_low"), loaders, strict=True)
        widgets += [(name, node["id"], "model_name") for name, node in experts]
    return widgets


def make(blueprint: Blueprint) -> dict[str, Any]:
    """The blueprint as a workflow of one subgraph node."""
    drawing = json.loads((FOLDER / f"{blueprint.drawing}.json").read_text(encoding="utf-8"))
    graph = _Subgraph(drawing)
    for name, number, widget in _widgets(blueprint, graph):
        slots = graph.node(number)["inputs"]
        place = next(i for i, slot in enumerate(slots) if slot["name"] == widget)
        graph.add_input(name, slots[place]["type"], (number, place))
    seeded = next(node["id"] for node in graph.nodes if any(i["name"] == "seed" for i in node["inputs"]))
    right = max(node["pos"][0] + node["size"][0] for node in graph.nodes)
    kind, last = _id(blueprint.title), max(node["id"] for node in graph.nodes)
    subgraph = {
        "id": kind, "version": 1, "revision": 0, "config": {}, "name": blueprint.title,
        "state": {"lastGroupId": len(drawing["groups"]), "lastNodeId": last, "lastLinkId": len(graph.links),
                  "lastRerouteId": 0},
        "inputNode": {"id": INPUT_NODE, "bounding": [-220, 300, 140, 20 * len(graph.inputs) + 40]},
        "outputNode": {"id": OUTPUT_NODE, "bounding": [right + 100, 300, 120, 60]},
        "inputs": graph.inputs, "outputs": graph.outputs, "widgets": [], "nodes": graph.nodes,
        "groups": drawing["groups"], "links": graph.links, "extra": {}, "category": CATEGORY,
        "description": blueprint.description,
    }  # fmt: skip
    shown = [
        {"name": slot["name"], "type": slot["type"], "link": None}
        | ({} if slot["type"] in ("IMAGE", "AUDIO") else {"widget": {"name": slot["name"]}})
        for slot in graph.inputs
    ]
    node = {
        "id": last + 1, "type": kind, "pos": [100, 100], "size": [400, 420], "flags": {}, "order": 0, "mode": 0,
        "inputs": shown,
        "outputs": [{"name": slot["name"], "type": slot["type"], "links": []} for slot in graph.outputs],
        "properties": {**pack(), "proxyWidgets": [[str(seeded), "seed"], [str(seeded), "control_after_generate"]]},
        "widgets_values": [], "title": blueprint.title,
    }  # fmt: skip
    return {
        "id": _id(f"{blueprint.title} workflow"), "revision": 0, "last_node_id": last + 1, "last_link_id": 0,
        "nodes": [node], "links": [], "definitions": {"subgraphs": [subgraph]}, "config": {},
        "extra": {"BlueprintDescription": blueprint.description, "BlueprintSearchAliases": ["wan", "wan2.2"]},
        "version": 0.4,
    }  # fmt: skip


def file_of(blueprint: Blueprint) -> Path:
    return BLUEPRINTS / f"{blueprint.title}.json"


def main() -> None:
    BLUEPRINTS.mkdir(exist_ok=True)
    for blueprint in ALL:
        file_of(blueprint).write_text(dump(make(blueprint)), encoding="utf-8")
        sys.stdout.write(f"{file_of(blueprint)}\n")


if __name__ == "__main__":
    main()
