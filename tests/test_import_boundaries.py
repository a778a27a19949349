"""Imports go one way: nodes -> comfy_bridge -> wan_models; only the bridge knows the host's insides."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOST = {
    "comfy",
    "comfy_api",
    "comfy_extras",
    "comfy_execution",
    "folder_paths",
    "node_helpers",
    "latent_preview",
    "server",
}
PACK = {"nodes", "comfy_bridge", "wan_models", "client", "demo", "tests", "bench"}


def imports(source: str) -> list[tuple[str, int]]:
    """Every imported module with the number of dots before it, imports inside functions too."""
    found = []
    for item in ast.walk(ast.parse(source)):
        if isinstance(item, ast.Import):
            found += [(alias.name, 0) for alias in item.names]
        elif isinstance(item, ast.ImportFrom):
            names = [item.module] if item.module else [alias.name for alias in item.names]
            found += [(name, item.level) for name in names]
    return found


def breaches(layer: str, source: str) -> list[str]:
    """What a file of a layer (wan_models, comfy_bridge, nodes or pack) may not import."""
    allowed_host = {"wan_models": set(), "comfy_bridge": HOST, "nodes": {"comfy_api"}, "pack": set()}[layer]
    allowed_pack = {
        "wan_models": set(), "comfy_bridge": {"wan_models"}, "nodes": {"comfy_bridge", "wan_models"}, "pack": {"nodes"},
    }[layer]  # fmt: skip
    wrong = []
    for name, level in imports(source):
        first = name.split(".")[0]
        if level == 0 and (first in HOST - allowed_host or first in PACK):
            wrong.append(
                name
            )  # the pack's own parts are imported relatively only: the host names the pack by its path
        if level > 0 and first in PACK - allowed_pack:
            wrong.append("." * level + name)
    return wrong


FILES = [(p.parts[0] if len(p.parts) > 1 else "pack", p) for p in (
    *(f.relative_to(ROOT) for layer in ("wan_models", "comfy_bridge", "nodes") for f in (ROOT / layer).rglob("*.py")),
    Path("__init__.py"),
)]  # fmt: skip


@pytest.mark.parametrize(("layer", "file"), FILES, ids=str)
def test_layers(layer, file):
    assert breaches(layer, (ROOT / file).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ("wan_models", "import comfy.ops"),
        ("wan_models", "def f():\n    from folder_paths import models_dir"),
        ("wan_models", "from ..comfy_bridge import folders"),
        ("wan_models", "import wan_models.config"),
        ("comfy_bridge", "from ..nodes import text"),
        ("nodes", "import comfy.samplers"),
        ("pack", "from .comfy_bridge import folders"),
    ],
)
def test_a_breach_is_seen(layer, source):
    assert breaches(layer, source)


def test_the_pack_exports_its_entry_point_alone():
    """The host ignores comfy_entrypoint where NODE_CLASS_MAPPINGS is there too."""
    tree = ast.parse((ROOT / "__init__.py").read_text())
    names = {getattr(t, "id", "") for item in tree.body if isinstance(item, ast.Assign) for t in item.targets}
    assert names == {"WEB_DIRECTORY", "__all__"}
    assert [item.name for item in tree.body if isinstance(item, ast.AsyncFunctionDef)] == ["comfy_entrypoint"]
