# ruff: noqa: T201  it prints its report
"""Runs inside a ComfyUI's own Python process: `values_script.py COMFYUI PACK BASE`; prints one JSON object.

What each node says of a value that its schema does not allow, by node and input: [kind of input, value, what was said].
"""

import json
import math
import runpy
import sys
from pathlib import Path

inside = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "inside_host.py"))
nodes = inside["enter"](*map(Path, sys.argv[1:4]))

from comfy_api.latest import io  # noqa: E402


def wrong_values(entry):
    if isinstance(entry, io.Combo.Input):
        return ["no such choice"]
    if isinstance(entry, io.Int.Input | io.Float.Input):
        return [entry.min - 1, entry.max + 1] + [math.nan] * isinstance(entry, io.Float.Input)
    return []


def answer(node, name, value):
    try:
        node.execute(**{name: value})
    except (ValueError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


print(
    json.dumps(
        [
            [name, entry.id, type(entry).__name__, repr(value), answer(node, entry.id, value)]
            for name, node in nodes.items()
            for entry in node.define_schema().inputs
            for value in wrong_values(entry)
        ]
    )
)
