"""What nodes say about themselves where users look: reports after a reload, the share of a run in the bar."""

import ast
from pathlib import Path

import pytest

from client.workflows import SAMPLERS
from devhost.progress import WEIGHTS

NODES = Path(__file__).parents[1] / "nodes"
CLASSES = [
    pytest.param(item, id=item.name)
    for file in sorted(NODES.glob("*.py"))
    for item in ast.parse(file.read_text()).body
    if isinstance(item, ast.ClassDef)
]


@pytest.mark.parametrize("node", CLASSES)
def test_what_a_node_shows_is_sent_again_after_a_reload(node):
    keywords = {item.arg for item in ast.walk(node) if isinstance(item, ast.keyword)}
    assert "ui" not in keywords or keywords & {"reports", "is_output_node"}


def test_every_sampler_of_the_command_line_counts_for_most_of_the_bar():
    assert not [name for name in SAMPLERS if max(WEIGHTS.get(name, (1,))) < 50]
