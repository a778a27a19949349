"""The pack as the Comfy registry takes it: complete, small, and by the rules that `comfy node validate` and `comfy node
pack` check (comfy-cli 1.23; it is not needed here)."""

import ast
import importlib.util
import io
import json
import re
import subprocess
import zipfile
from pathlib import Path

import pathspec
import pytest

tomllib = pytest.importorskip("tomllib")  # of Python 3.11
ROOT = Path(__file__).parents[1]
MOST_BYTES = 1_000_000
OS = ("Microsoft", "POSIX", "MacOS", "OS Independent")
ACCELERATORS = {
    f"Environment :: {name}"
    for name in (
        "GPU :: NVIDIA CUDA",
        "GPU :: AMD ROCm",
        "GPU :: Intel Arc",
        "NPU :: Huawei Ascend",
        "GPU :: Apple Metal",
    )
}
VERSION = re.compile(r"(==|>=|<=|!=|~=|>|<|<>|=)?\s*\d+\.\d+\.\d+(-[a-zA-Z0-9]+)?")
BELOW = ("bench", "demo", "docs", "miniature", "tests", "tools", "training")
"""Folders that are not shipped, whether or not a checkout has them."""

_spec = importlib.util.spec_from_file_location("registry", ROOT / "tools" / "registry.py")
registry = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(registry)
TEXT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def published():
    """The project as a release fills it in."""
    return tomllib.loads(registry.fill_in(TEXT, "a-publisher", "https://github.com/an-owner/a-repository"))


@pytest.fixture(scope="module")
def left_out():
    lines = (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()
    return pathspec.PathSpec.from_lines("gitwildmatch", lines)


@pytest.fixture(scope="module")
def shipped(left_out):
    """Names of the files that are shipped."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.splitlines() if not left_out.match_file(name)]


def test_the_name_is_as_the_registry_advises():
    name = tomllib.loads(TEXT)["project"]["name"]
    assert len(name) < 100 and re.fullmatch(r"[a-zA-Z][a-zA-Z0-9]*([-_.][a-zA-Z0-9]+)*", name)
    assert "comfyui" not in name.lower()


def test_what_is_published_is_complete(published):
    project, comfy = published["project"], published["tool"]["comfy"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert project["description"] and (ROOT / project["license"]["file"]).is_file()
    assert set(project["urls"]) == {"Repository", "Documentation", "Issues"}
    assert comfy["PublisherId"] == "a-publisher" and comfy["DisplayName"]
    for picture, shape in (("Icon", 1.0), ("Banner", 21 / 9)):
        path = comfy[picture].removeprefix("https://raw.githubusercontent.com/an-owner/a-repository/main/")
        box = re.search(r'viewBox="0 0 (\d+) (\d+)"', (ROOT / path).read_text(encoding="utf-8"))
        assert int(box[1]) / int(box[2]) == pytest.approx(shape, rel=0.01)
    assert VERSION.fullmatch(comfy["requires-comfyui"])


def test_systems_accelerators_and_page_are_named_as_the_registry_reads_them(published):
    names = published["project"]["classifiers"]
    systems = [name.split(" :: ", 1)[1] for name in names if name.startswith("Operating System")]
    assert systems and all(name.startswith(OS) for name in systems)
    accelerators = {name for name in names if name.startswith("Environment")}
    assert accelerators and accelerators <= ACCELERATORS
    (page,) = (n for n in published["project"]["dependencies"] if n.startswith("comfyui-frontend-package"))
    assert VERSION.fullmatch(page.removeprefix("comfyui-frontend-package"))


@pytest.mark.parametrize(
    ("publisher", "repository", "message"),
    [
        ("", "https://github.com/a/b", "publisher's id"),
        ("A Name", "https://github.com/a/b", "publisher's id"),
        ("name", "", "repository is an address"),
        ("name", "git@github.com:a/b.git", "repository is an address"),
    ],
)
def test_a_wrong_publisher_is_refused(publisher, repository, message):
    with pytest.raises(ValueError, match=message):
        registry.fill_in(TEXT, publisher, repository)


def test_what_is_shipped_is_small_and_whole(shipped):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name in shipped:
            file.write(ROOT / name, name)
    assert archive.tell() <= MOST_BYTES
    folders = {name.split("/")[0] for name in shipped}
    needed = {"__init__.py", "nodes", "comfy_bridge", "wan_models", "web", "locales", "example_workflows"}
    assert needed | {"subgraphs", "node_list.json", "requirements.txt", "LICENSE", "README.md"} <= folders


def test_what_users_do_not_need_is_not_shipped(shipped, left_out):
    assert not [name for name in shipped if name.startswith((*(f"{folder}/" for folder in BELOW), "."))]
    assert all(left_out.match_file(f"{folder}/anything.bin") for folder in BELOW)


def test_what_is_shipped_needs_nothing_else(shipped):
    """No module of a folder that stays behind is imported."""
    found = []
    for name in (name for name in shipped if name.endswith(".py")):
        tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = [node.module]
            found += [(name, module) for module in modules if module.split(".")[0] in BELOW]
    assert found == []


def test_the_list_of_nodes_is_that_of_the_schemas():
    """locales/en has the schemas' names, which tests/host/test_help.py looks after."""
    names = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    assert json.loads((ROOT / "node_list.json").read_text(encoding="utf-8")) == {
        node: words["display_name"] for node, words in names.items()
    }
