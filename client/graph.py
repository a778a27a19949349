"""An API-format workflow as something to fill in: nodes are found by their class."""

import json
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parents[1] / "example_workflows" / "api"


class LocalFile(str):
    """A file of this computer as a node's input; it becomes the server's name for it when it is uploaded."""


class Graph(dict[str, dict[str, Any]]):
    """Node id -> {"class_type", "inputs"}, as the server takes it."""

    @classmethod
    def example(cls, name: str) -> "Graph":
        """One of the example workflows."""
        return cls(json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8")))

    def of(self, class_type: str) -> list[str]:
        """The ids of all nodes of a class, in order."""
        return [node for node, content in self.items() if content["class_type"] == class_type]

    def only(self, class_type: str) -> dict[str, Any]:
        """The inputs of the one node of a class."""
        (node,) = self.of(class_type)
        return self[node]["inputs"]

    def add(self, node: str, class_type: str, **inputs: Any) -> str:
        """Adds a node and returns its id; a tuple (node, output) is a wire."""
        wired = {name: list(value) if isinstance(value, tuple) else value for name, value in inputs.items()}
        self[node] = {"class_type": class_type, "inputs": wired}
        return node

    def drop_unused(self, end: str) -> None:
        """Removes every node that does not lead to the node `end`."""
        used, open_ = set(), [end]
        while open_:
            node = open_.pop()
            if node not in used:
                used.add(node)
                open_ += [value[0] for value in self[node]["inputs"].values() if isinstance(value, list)]
        for node in [node for node in self if node not in used]:
            del self[node]
