"""No function of ours takes more than eight parameters: what belongs together is handed over as one object."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("nodes", "comfy_bridge", "wan_models", "client", "demo", "devhost", "bench", "training", "tools")
MOST = 8

DICTATED = {
    "comfy_bridge/models/hosted/networks.py::Hosted.rope_encode": "of the host's Wan model, called by position",
}
"""Signatures that are not ours to choose, each with the reason."""


def long_signatures(source: str, path: str) -> dict[str, int]:
    """path::Class.function -> number of its parameters besides self and cls, where they are too many."""
    found = {}

    def visit(item: ast.AST, names: tuple[str, ...]) -> None:
        if isinstance(item, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names = (*names, item.name)
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
            given = item.args
            count = len([a for a in (*given.posonlyargs, *given.args) if a.arg not in ("self", "cls")])
            count += len(given.kwonlyargs) + bool(given.vararg) + bool(given.kwarg)
            if count > MOST:
                found[f"{path}::{'.'.join(names)}"] = count
        for child in ast.iter_child_nodes(item):
            visit(child, names)

    visit(ast.parse(source), ())
    return found


@pytest.fixture(scope="module")
def found() -> dict[str, int]:
    files = [file for room in ROOMS for file in sorted((ROOT / room).rglob("*.py"))]
    sources = {str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in files}
    return {name: n for path, text in sources.items() for name, n in long_signatures(text, path).items()}


def test_no_function_takes_more(found):
    assert {name: n for name, n in found.items() if name not in DICTATED} == {}


def test_what_is_mended_is_taken_off_the_list(found):
    assert DICTATED.keys() - found.keys() == set()


def test_parameters_are_counted():
    many = ", ".join("abcdefgh")
    source = f"def f({many}): ...\nclass C:\n    def g(self, {many}, *, i):\n        async def h({many}, *j, **k): ..."
    assert long_signatures(source, "x.py") == {"x.py::C.g": 9, "x.py::C.g.h": 10}
