"""A Chinese page shows the pack in Chinese."""

import json

from devhost.host import ROOT

LOCALES = ROOT / "locales"
DOCS = ROOT / "web" / "docs"


def test_the_page_shows_names_and_help_in_its_language(chromium, server):
    """The node's name, its widgets' labels, what we show on it, and the help page that its info button opens."""
    drawing = json.loads((ROOT / "example_workflows" / "t2v_a14b.json").read_text(encoding="utf-8"))
    words = json.loads((LOCALES / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))["WanMoESampler"]
    server.post("/settings", {"Comfy.Locale": "zh"})
    page = chromium.new_page(viewport={"width": 1500, "height": 900})
    try:
        page.set_default_timeout(120_000)  # other tests may keep the machine busy
        page.goto(f"http://{server.address}")
        page.wait_for_function(
            "window.app?.graph && window.app.extensionManager?.setting.get('Comfy.Locale') === 'zh'"
        )
        page.wait_for_timeout(2000)
        page.evaluate("drawing => app.loadGraphData(drawing)", drawing)
        shown = page.evaluate("""() => {
            const node = app.graph._nodes.find((node) => node.type === "WanMoESampler");
            app.canvas.selectNode(node);
            app.canvas.centerOnNode(node);
            return {
                title: LiteGraph.registered_node_types.WanMoESampler.title,
                widgets: Object.fromEntries(node.widgets.map((widget) => [widget.name, widget.label])),
                slots: Object.fromEntries(node.inputs.map((input) => [input.name, input.localized_name])),
            };
        }""")
        assert shown["title"] == words["display_name"]
        names = {name: entry["name"] for name, entry in words["inputs"].items()}
        assert {
            name: label for name, label in shown["widgets"].items() if name in names
        }.items() <= names.items()
        assert shown["slots"].items() <= names.items() and len(shown["slots"]) >= 5
        chart = page.locator(".wan22-chart .split")
        chart.wait_for()
        page.wait_for_function("e => e.textContent === '26 + 14，共 40 步'", arg=chart.element_handle())
        page.wait_for_function(
            "() => app.graph._nodes.find(n => n.type === 'WanEmptyLatent').widgets.find(w => w.name === 'size')"
            ".element.textContent.startsWith('81 帧 = 5.06 秒')"
        )
        page.get_by_test_id("info-button").click()
        opening = (DOCS / "WanMoESampler" / "zh.md").read_text(encoding="utf-8").splitlines()[2]
        page.get_by_text(opening[:12]).first.wait_for()
    finally:
        server.post("/settings", {"Comfy.Locale": "en"})
        page.close()
