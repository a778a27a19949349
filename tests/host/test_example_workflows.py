"""Every example workflow runs as it is saved, and its drawing for the web page is the same workflow."""

import json
import shutil

import av
import pytest
from example_files import write_example_files
from forked import ForkedHost
from tests_media import media

from demo.drawings import NOTES
from devhost.host import ROOT

FOLDER = ROOT / "example_workflows"
EXAMPLES = sorted(path.stem for path in FOLDER.glob("api/*.json"))
SMALL = {"width": 64, "height": 64, "frames": 5, "frames_per_clip": 8, "clips": 1}
DRIVEN = {"fit": "exact", "length": 5, "frames_per_clip": 5}
OWN = ("file", "audio")


@pytest.fixture(scope="module")
def example_host(comfyui, tmp_path_factory):
    base = tmp_path_factory.mktemp("examples")
    media(base / "input")
    shutil.copy(comfyui / "input" / "example.png", base / "input")
    write_example_files(base)
    with ForkedHost(comfyui, base=base) as server:
        yield server


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(example_host, name):
    graph = json.loads((FOLDER / "api" / f"{name}.json").read_text())
    for content in graph.values():
        small = SMALL | (DRIVEN if name.startswith(("animate", "long")) else {})
        if "keyframes" in name:
            small |= {"frames": 9}
        content["inputs"] |= {k: v for k, v in small.items() if k in content["inputs"]}
    entry = example_host.run(graph)
    videos = [file for file in example_host.outputs(entry) if file.suffix == ".mp4"]
    rate = 24 if "5b" in name or "animate_2" in name else 30 if name.startswith("animate") else 16
    for video in videos:
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            size = (512, 512) if video.stem.startswith("face") else (64, 64)
            assert (stream.width, stream.height, float(stream.average_rate)) == (*size, rate)
            assert sum(1 for _ in container.decode(stream)) == (9 if "keyframes" in name else 5)
    if name == "animate_preprocessing":
        assert sorted(video.stem.split("_")[0] for video in videos) == ["background", "face", "pose"]
        return
    assert len(videos) == 1
    (text,) = (
        output["text"][0]
        for output in entry["outputs"].values()
        if any(word in str(output.get("text")) for word in (" steps", "clip of", "clips of"))
    )
    steps = {
        "i2v": "15 of 40 steps on the high",
        "ti2v": "50 steps (shift 5",
        "t2v": "26 of 40 steps on the high",
        "s2v": "5 frames in 1 clip of 8",
        "animate": "5 frames in 1 clip of 5",
        "long": "5 frames in 1 clip of 5",
    }
    distilled = {
        "4_steps": "2 of 4 steps on the high",
        "draft": "2 of 4 steps on the high",
        "three_phases": "2 of 8 steps on the high",
    }
    expected = next((s for word, s in distilled.items() if word in name), steps[name.split("_")[0]])
    assert text.startswith(expected), text
    if "several_people" in name:
        assert "of 5: 1 in 5, 2 in 5" in str(entry["outputs"])


@pytest.mark.parametrize("name", EXAMPLES)
def test_drawing_is_the_same_workflow(example_host, name):
    """What the page would queue from the UI form, rebuilt from its links and widgets, is the API form."""
    api = json.loads((FOLDER / "api" / f"{name}.json").read_text())
    drawn = json.loads((FOLDER / f"{name}.json").read_text())
    info = example_host.get("/object_info")
    nodes = [node for node in drawn["nodes"] if node["type"] not in NOTES]  # the page queues no notes
    links = {link[0]: [str(link[1]), link[2]] for link in drawn["links"]}
    assert {str(n["id"]): n["type"] for n in nodes} == {k: v["class_type"] for k, v in api.items()}
    for drawn_node in nodes:
        wires = {
            i["name"]: links[i["link"]] for i in drawn_node.get("inputs", []) if i.get("link") is not None
        }
        values = dict(
            zip(_widgets(info[drawn_node["type"]]), drawn_node.get("widgets_values", []), strict=False)
        )
        found = wires | {k: v for k, v in values.items() if k not in wires}
        wanted = api[str(drawn_node["id"])]["inputs"]
        if not info[drawn_node["type"]]["category"].startswith("Wan2.2/"):
            # widgets of the host's nodes change with its version: their wires only
            wanted = {name: value for name, value in wanted.items() if isinstance(value, list)}
        # films and voices are the user's own: a drawing leaves them open, so that the page misses none
        wanted = {k: "" if k in OWN and isinstance(v, str) else v for k, v in wanted.items()}
        assert {k: found.get(k) for k in wanted} == wanted, drawn_node["type"]


def _widgets(info):
    """Names of a node's widgets in the order in which the page saves their values."""
    for group in ("required", "optional"):
        for name, (kind, *options) in info["input"].get(group, {}).items():
            if isinstance(kind, list) or kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"):
                yield name
                if options and options[0].get("control_after_generate"):
                    yield f"{name} control"
