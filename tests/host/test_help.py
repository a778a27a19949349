"""What the page says about each node, as it fetches it: tooltips, help pages and names in other languages."""

import json
import re

import pytest
import requests

from devhost.host import PACK_NAME, ROOT

DOCS, LOCALES = ROOT / "web" / "docs", ROOT / "locales"
CHINESE = re.compile("[\u3002\u4e00-\u9fff]")  # its full stop too, for what is called alike everywhere


@pytest.fixture(scope="module")
def nodes(host):
    """Our nodes' definitions, by id."""
    info = host.get("/object_info")
    return {name: node for name, node in info.items() if node["python_module"].endswith(PACK_NAME)}


def inputs(node):
    """Names to tooltips."""
    return {
        name: (spec[1] if len(spec) > 1 else {}).get("tooltip")
        for group in ("required", "optional")
        for name, spec in node["input"].get(group, {}).items()
    }


def named_outputs(node):
    """Places to names; the page names outputs that are called as their type by itself."""
    pairs = enumerate(zip(node["output_name"], node["output"], strict=True))
    return {str(i): name for i, (name, kind) in pairs if name != kind}


def test_every_node_and_input_is_explained(nodes):
    assert len(nodes) >= 32
    assert all(node["description"] for node in nodes.values())
    assert not [
        (name, i) for name, node in nodes.items() for i, tooltip in inputs(node).items() if not tooltip
    ]


def test_a_node_shows_20_inputs_at_most(nodes):
    """Those besides that are seldom needed are marked, and folded away by pages that can."""
    shown = {
        name: [
            i
            for group in ("required", "optional")
            for i, spec in node["input"].get(group, {}).items()
            if not (len(spec) > 1 and spec[1].get("advanced"))
        ]
        for name, node in nodes.items()
    }
    assert {name: len(names) for name, names in shown.items() if len(names) > 20} == {}


@pytest.mark.parametrize("path", ["{}.md", "{}/zh.md"])
def test_help_page(host, nodes, path):
    """Every node has one, it is called as the node is, and speaks of inputs and outputs that the node has."""
    titles = json.loads((LOCALES / ("zh" if "zh" in path else "en") / "nodeDefs.json").read_text())
    for name, node in nodes.items():
        page = requests.get(
            f"http://{host.address}/extensions/{PACK_NAME}/docs/{path.format(name)}", timeout=30
        )
        assert page.status_code == 200, name
        page.encoding = "utf-8"
        lines = page.text.splitlines()
        assert 10 <= len(lines) <= 50, (name, len(lines))
        assert lines[0] == f"# {titles[name]['display_name']}"
        assert bool(CHINESE.search(page.text)) == ("zh" in path), name
        spoken_of = re.findall(r"\*\*([a-z_0-9]+(?:(?:, |、)[a-z_0-9]+)*)\*\*", page.text)
        known = {*inputs(node), *node["output_name"]}
        assert not {word for words in spoken_of for word in re.split(", |、", words)} - known, name
        assert set(re.findall(r"\*\*([A-Z_]{3,})\*\* - ", page.text)) <= {
            *node["output"],
            *node["output_name"],
        }, name
    found = (
        {f.stem for f in DOCS.glob("*.md")}
        if "zh" not in path
        else {f.parent.name for f in DOCS.glob("*/zh.md")}
    )
    assert found == set(nodes)


def test_chinese_names_are_complete(host, nodes):
    served = host.get("/i18n")["zh"]["nodeDefs"]
    assert set(served) == set(nodes)
    for name, node in nodes.items():
        words = served[name]
        assert words["display_name"] and CHINESE.search(words["description"]), name
        assert set(words.get("inputs", {})) == set(inputs(node)), name
        for key, entry in words.get("inputs", {}).items():
            assert entry["name"] and CHINESE.search(entry["tooltip"]), (name, key)
        assert set(words.get("outputs", {})) == set(named_outputs(node)), name
        assert all(CHINESE.search(entry["name"]) for entry in words.get("outputs", {}).values()), name


def test_english_names_are_the_schemas(host, nodes):
    assert host.get("/i18n")["en"]["nodeDefs"] == {
        name: {"display_name": node["display_name"]} for name, node in nodes.items()
    }
