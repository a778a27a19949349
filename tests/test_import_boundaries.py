"""Imports go one way: nodes -> comfy_bridge -> wan_models; only the bridge knows the host's insides. The rooms beside
the pack (client, training, demo, bench) stand on devhost, which knows none of them; tests may import everything."""

import ast
import re
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
# room -> modules of the host and rooms of ours that it may import
PACK = {
    "wan_models": (set(), set()),
    "comfy_bridge": (HOST, {"wan_models"}),
    "nodes": ({"comfy_api"}, {"comfy_bridge", "wan_models"}),
    "__init__.py": (set(), {"nodes"}),
}
"""The pack's own parts are imported relatively only: the host names the pack by its path."""
BESIDE = {
    "devhost": (set(), set()),
    "client": (set(), {"devhost", "wan_models"}),
    "demo": (set(), {"devhost", "training", "wan_models"}),
    "training": (set(), {"devhost", "wan_models"}),
    "bench": (HOST, {"demo", "devhost", "training", "wan_models"}),
    "tools": (set(), set()),
    "generate.py": (set(), {"client"}),
}
"""Run by themselves with the repository on sys.path: other rooms are imported by their names."""
OURS = {name.removesuffix(".py") for name in PACK | BESIDE} | {"tests"}

BASE = {"compat", "host_types", "progress", "folders", "listing"}
# package of comfy_bridge -> what of comfy_bridge it may import; its other files may import all of it
BRIDGE = {
    **dict.fromkeys(BASE, BASE),
    "models": BASE,
    "media": BASE | {"models"},
    "sampling": BASE | {"models", "media"},
    "multi_gpu": BASE | {"models"},
}


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


def breaches(file: str, source: str) -> list[str]:
    """What a file, by its path in the repository, imports and may not."""
    room, *inside = Path(file).parts
    wrong = []
    for name, dots in imports(source):
        first = name.split(".")[0]
        from_host, from_ours = {**PACK, **BESIDE}[room]
        leaves = dots > len(inside) or (dots == 0 and room in BESIDE)  # the room, for one of ours
        is_wrong = (
            (dots == 0 and first in HOST - from_host)
            or (leaves and first in OURS - from_ours - {room})
            or (dots == 0 and room in PACK and first in OURS)
        )
        if room == "comfy_bridge" and dots == len(inside):  # stays in comfy_bridge, and may leave its package
            part = inside[0].removesuffix(".py")
            is_wrong |= part in BRIDGE and first not in BRIDGE[part] | {part}
        if is_wrong:
            wrong.append("." * dots + name)
    return wrong


FILES = [
    str(path.relative_to(ROOT))
    for room in PACK | BESIDE
    for path in (sorted((ROOT / room).rglob("*.py")) if (ROOT / room).is_dir() else [ROOT / room])
]


@pytest.mark.parametrize("file", FILES)
def test_layers(file):
    assert breaches(file, (ROOT / file).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("wan_models/dit/base.py", "import comfy.ops"),
        ("wan_models/vae/base.py", "def f():\n    from folder_paths import models_dir"),
        ("wan_models/config.py", "from ..comfy_bridge import folders"),
        ("wan_models/dit/base.py", "from ...comfy_bridge.models import lora"),
        ("wan_models/config.py", "import wan_models.config"),
        ("wan_models/config.py", "from devhost.official import per_frame_attention"),
        ("comfy_bridge/routes.py", "from ..nodes import text"),
        ("comfy_bridge/compat.py", "from .models import lora"),
        ("comfy_bridge/folders.py", "from . import routes"),
        ("comfy_bridge/models/lora.py", "from ..sampling.run import run"),
        ("comfy_bridge/models/lora.py", "from .. import media"),
        ("comfy_bridge/media/video.py", "from ..sampling import preview"),
        ("comfy_bridge/multi_gpu/model.py", "from ..sampling import run"),
        ("comfy_bridge/sampling/run.py", "from ..multi_gpu.model import share"),
        ("comfy_bridge/sampling/run.py", "from .. import routes"),
        ("nodes/text.py", "import comfy.samplers"),
        ("__init__.py", "from .comfy_bridge import folders"),
        ("devhost/server.py", "from client.errors import ClientError"),
        ("client/command.py", "from demo.run import main"),
        ("client/command.py", "import comfy"),
        ("demo/run.py", "def f():\n    from tests.support import formats"),
        ("demo/run.py", "from client.graph import Graph"),
        ("bench/peers.py", "from client.graph import Graph"),
        ("generate.py", "import devhost.host"),
    ],
)
def test_a_breach_is_seen(file, source):
    assert breaches(file, source)


def test_tests_are_not_put_on_the_path_of_others():
    for file in FILES:
        assert "tests/support" not in (text := (ROOT / file).read_text(encoding="utf-8")), file
        assert '"tests"' not in text, file


def node_names() -> set[str]:
    """Class names of the nodes, as nodes/__init__.py lists them."""
    tree = ast.parse((ROOT / "nodes" / "__init__.py").read_text(encoding="utf-8"))
    (listed,) = (
        item.value
        for item in ast.walk(tree)
        if isinstance(item, ast.Return) and isinstance(item.value, ast.List)
    )
    return {element.id for element in listed.elts}


def nodes_named(source: str, names: set[str]) -> list[str]:
    return sorted(set(re.findall(r"\w+", source)) & names)


def test_the_models_know_no_node_names():
    """What to do in the words of the nodes is said in comfy_bridge."""
    names = node_names()
    assert {"WanDiTLoader", "WanMoESampler", "WanSpeechToVideo"} <= names
    files = sorted((ROOT / "wan_models").rglob("*.py"))
    named = {
        file.name: found for file in files if (found := nodes_named(file.read_text(encoding="utf-8"), names))
    }
    assert named == {}
    assert nodes_named("raise ValueError('load it with WanVAELoader')", names) == ["WanVAELoader"]


def test_the_pack_exports_its_entry_point_alone():
    """The host ignores comfy_entrypoint where NODE_CLASS_MAPPINGS is there too."""
    tree = ast.parse((ROOT / "__init__.py").read_text())
    names = {getattr(t, "id", "") for item in tree.body if isinstance(item, ast.Assign) for t in item.targets}
    assert names == {"WEB_DIRECTORY", "__all__"}
    assert [item.name for item in tree.body if isinstance(item, ast.AsyncFunctionDef)] == ["comfy_entrypoint"]
