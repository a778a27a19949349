"""The example workflows as drawings: tidy, with a note and a picture, and each with its API form."""

import json

import pytest
from PIL import Image

from demo import blueprints
from demo.drawings import FOLDER, NOTES, ROOT, TITLE, arrange, dump, pack, stage_of
from demo.model_files import published

MODEL_FILES = (".pth", ".safetensors", ".gguf", ".onnx", ".ckpt")
DRAWINGS = sorted(path.stem for path in FOLDER.glob("*.json"))


def read(name):
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def box(node):
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - TITLE, x + width, y + height


def test_each_drawing_has_its_api_form():
    assert {path.stem for path in FOLDER.glob("api/*.json")} == set(DRAWINGS)


@pytest.mark.parametrize("name", DRAWINGS)
def test_drawing_is_laid_out(name):
    """Else: python -m demo.drawings <name>"""
    drawing = read(name)
    assert arrange(drawing) == drawing
    boxes = {node["id"]: box(node) for node in drawing["nodes"]}
    for one, (left, top, right, bottom) in boxes.items():
        for other, (l2, t2, r2, b2) in boxes.items():
            assert one == other or right <= l2 or r2 <= left or bottom <= t2 or b2 <= top, (one, other)
    groups = {group["title"]: group["bounding"] for group in drawing["groups"]}
    for node in drawing["nodes"]:
        if node["type"] in NOTES:
            continue
        x, y, width, height = groups[stage_of(node["type"])]
        left, top, right, bottom = boxes[node["id"]]
        assert x < left and y < top and right < x + width and bottom < y + height, node["type"]


@pytest.mark.parametrize("name", DRAWINGS)
def test_wires_go_to_the_right(name):
    drawing = read(name)
    nodes = {node["id"]: node for node in drawing["nodes"]}
    for _, source, _, target, *_ in drawing["links"]:
        left, right = nodes[source], nodes[target]
        in_column = left["pos"][0] == right["pos"][0] and left["pos"][1] < right["pos"][1]
        assert in_column or box(left)[2] <= right["pos"][0], (left["type"], right["type"])


@pytest.mark.parametrize("name", DRAWINGS)
def test_note_says_where_the_files_go(name):
    (note,) = (node for node in read(name)["nodes"] if node["type"] in NOTES)
    assert "models/" in note["widgets_values"][0]


def test_each_drawing_has_a_title_in_both_languages():
    """That of its note: the page's template browser shows it (web/js/templates.js)."""
    english, chinese = (
        json.loads((ROOT / "locales" / language / "main.json").read_text(encoding="utf-8"))
        for language in ("en", "zh")
    )
    titles = english["templateWorkflows"]["template"][pack()["cnr_id"]]
    assert set(titles) == set(chinese["templateWorkflows"]["template"][pack()["cnr_id"]]) == set(DRAWINGS)
    for name, title in titles.items():
        (note,) = (node for node in read(name)["nodes"] if node["type"] in NOTES)
        assert note["widgets_values"][0].splitlines()[0] == f"## {title}"


@pytest.mark.parametrize("name", DRAWINGS)
def test_drawing_has_a_picture(name):
    """Else: python -m tests.thumbnails <name>. The page looks for a .jpg of the same name."""
    file = FOLDER / f"{name}.jpg"
    assert file.stat().st_size <= 60_000
    with Image.open(file) as picture:
        assert picture.format == "JPEG" and picture.width >= 480


def test_a_drawing_without_a_note_is_named():
    drawing = read(DRAWINGS[0])
    drawing["nodes"] = [node for node in drawing["nodes"] if node["type"] not in NOTES]
    with pytest.raises(ValueError, match="one note"):
        arrange(drawing)


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_page_is_told_where_files_and_packs_are_from(name):
    """Every file of a loader has an address that the page downloads from, and every node its pack."""
    for node in read(name)["nodes"]:
        if node["type"] in NOTES:
            continue
        properties, values = node["properties"], node.get("widgets_values", [])
        assert properties["cnr_id"] and properties["ver"]
        files = [value for value in values if isinstance(value, str) and value.endswith(MODEL_FILES)]
        models = properties.get("models", [])
        assert [model["name"] for model in models] == files
        for model in models:
            assert model["url"].startswith("https://huggingface.co/") and "/resolve/main/" in model["url"]
            assert model["url"].endswith(model["name"].rsplit("/", 1)[-1]) and model["directory"]


def test_a_file_of_ones_own_has_no_address():
    assert published("WanDiTLoader", "mine.safetensors") is None
    assert published("WanDiTLoader", "wan/T2V-A14B/high_noise_model") is None


def test_films_and_voices_are_left_open():
    """Nobody has ours; an example picture comes with the host."""
    for name in DRAWINGS:
        for node in read(name)["nodes"]:
            if node["type"] in ("WanLoadVideo", "LoadVideo", "LoadAudio"):
                assert node["widgets_values"][0] == "", (name, node["type"])


@pytest.mark.parametrize("blueprint", blueprints.ALL, ids=lambda blueprint: blueprint.drawing)
def test_blueprints_are_made_of_the_drawings(blueprint):
    """Else: python -m demo.blueprints"""
    assert blueprints.file_of(blueprint).read_text(encoding="utf-8") == dump(blueprints.make(blueprint))


def test_there_are_no_other_blueprints():
    files = {blueprints.file_of(blueprint) for blueprint in blueprints.ALL}
    assert set(blueprints.BLUEPRINTS.glob("*.json")) == files
