"""The example workflows on the page: whole, and with room for what their nodes show, in both kinds of nodes."""

import json

import pytest
from canvas import ERROR_NOTICE
from tests_media import write_film

from demo.drawings import FOLDER

pytest.importorskip("playwright.sync_api", reason="pip install playwright")

EXAMPLES = sorted(FOLDER.glob("*.json"))
# the film in what loads films, and as what has been saved
SHOW_FILM = """async film => {
  const { api } = await import("/scripts/api.js");
  for (const node of app.graph.nodes) {
    if (node.type.endsWith("LoadVideo")) {
      const file = node.widgets.find(widget => widget.name === "file");
      file.value = film;
      file.callback?.(film);
    }
    if (node.type === "SaveVideo") {
      const output = { images: [{ filename: film, subfolder: "", type: "input" }], animated: [true] };
      const detail = { node: String(node.id), display_node: String(node.id), prompt_id: "", output };
      api.dispatchEvent(new CustomEvent("executed", { detail }));
    }
  }
}"""


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_a_dropped_workflow_loads(canvas, file):
    """No node, model or input is missing, every number is as it was saved, and nodes lie apart and in their groups."""
    workflow = json.loads(file.read_text())
    canvas.drop(file.name, workflow)
    canvas.page.wait_for_timeout(300)
    nodes = canvas.nodes()
    assert [node["type"] for node in nodes if not node["known"] or node["errors"]] == []
    assert canvas.page.locator(ERROR_NOTICE).filter(visible=True).count() == 0
    assert canvas.page.locator(".wan22-box:visible").count() == 0
    saved = {node["id"]: node.get("widgets_values", []) for node in workflow["nodes"]}
    for node in nodes:
        if node["type"].startswith("Wan"):
            pairs = zip(node["values"].items(), saved[node["id"]], strict=False)
            # what is left open is the user's, and older pages choose the first there is
            assert not [name for (name, shown), value in pairs if shown != value != ""], node["type"]
    models = canvas.page.evaluate("app.graph.serialize().nodes.map(n => n.properties.models ?? [])")
    assert models == [node["properties"].get("models", []) for node in workflow["nodes"]]
    canvas.show_all()
    canvas.photograph(f"workflow {file.stem}")
    canvas.check_layout()
    canvas.as_elements(True)
    canvas.page.locator(".lg-node").nth(len(nodes) - 1).wait_for(state="attached")
    canvas.page.wait_for_timeout(500)
    canvas.photograph(f"workflow {file.stem}, nodes as elements")
    canvas.check_layout()


@pytest.mark.parametrize("name", ["t2v_a14b_4_steps", "s2v_14b_pose", "animate_14b_replace"])
def test_nodes_lie_apart_where_models_are_missing(canvas, name):
    """What is said of them makes nodes larger."""
    workflow = json.loads((FOLDER / f"{name}.json").read_text())
    missing = {model["name"] for node in workflow["nodes"] for model in node["properties"].get("models", [])}
    for node in workflow["nodes"]:
        node["widgets_values"] = [
            value.replace("wan/", "wan/no-") if str(value).startswith("wan/") else f"no-{value}" if value in missing
            else value for value in node.get("widgets_values", [])
        ]  # fmt: skip
    canvas.drop("elsewhere.json", workflow)
    canvas.show_all()
    for as_elements in (False, True):
        canvas.as_elements(as_elements)
        canvas.page.wait_for_timeout(1500)
        canvas.check_layout()
        canvas.photograph(f"missing models {name}{', nodes as elements' if as_elements else ''}")


# what Wan Multi GPU says of a computer with eight cards
EIGHT_GPUS = (
    f"8 workers ({', '.join(f'cuda:{n} of workstation' for n in range(8))}): for 832x480, 81 frames (TI2V: 1280x704, "
    "121): CFG-parallel 2 x Ulysses 4: 3.38 s per step predicted, 28.4 GiB on each of 8 (free 80.0 GiB, 200 GB/s "
    "between them); one GPU: 26.1 s; Ulysses 8: 3.4 s"
)
REPORT = """([type, text]) => import("/scripts/api.js").then(({ api }) => {
  for (const node of app.graph.nodes.filter(node => node.type === type)) {
    const detail = { node: String(node.id), display_node: String(node.id), prompt_id: "", output: { text: [text] } };
    api.dispatchEvent(new CustomEvent("executed", { detail }));
  }
})"""


def test_nodes_lie_apart_with_long_reports(canvas):
    canvas.drop("reports.json", renumbered(FOLDER / "t2v_a14b_multi_gpu.json"))
    for as_elements in (False, True):
        canvas.as_elements(as_elements)
        canvas.page.wait_for_timeout(1000)
        canvas.page.evaluate(REPORT, ["WanMultiGPU", EIGHT_GPUS])
        canvas.show_all()
        canvas.page.get_by_text("28.4 GiB on each of 8").first.wait_for(state="attached")
        canvas.page.wait_for_timeout(1000)
        canvas.photograph(f"long reports{', nodes as elements' if as_elements else ''}")
        canvas.check_layout()


def renumbered(file):
    """The workflow with nodes of numbers that are in no other: for each the page keeps what a node has made."""
    workflow, first = json.loads(file.read_text()), 1000 * (1 + EXAMPLES.index(file))
    for node in workflow["nodes"]:
        node["id"] += first
    for link in workflow["links"]:
        link[1], link[3] = link[1] + first, link[3] + first
    return workflow | {"last_node_id": workflow["last_node_id"] + first}


@pytest.mark.parametrize("name", ["animate_preprocessing", "s2v_14b_pose"])
def test_nodes_lie_apart_with_films_in_portrait(canvas, name):
    """The picture that all workflows here load is in portrait, too."""
    film = canvas.server.base / "input" / "portrait.mp4"
    write_film(film, frames=4, width=144, height=256)
    try:
        canvas.page.evaluate("app.refreshComboInNodes()")
        canvas.drop("portrait.json", renumbered(FOLDER / f"{name}.json"))
        canvas.page.evaluate(SHOW_FILM, film.name)
        for as_elements in (False, True):
            canvas.as_elements(as_elements)
            canvas.page.wait_for_timeout(2000)
            canvas.show_all()
            canvas.photograph(f"portrait {name}{', nodes as elements' if as_elements else ''}")
            canvas.check_layout()
    finally:
        film.unlink()
        canvas.page.evaluate("app.refreshComboInNodes()")
