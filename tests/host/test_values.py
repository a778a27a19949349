"""Values that a node's schema does not allow, as they come over a wire, or to a host that does not look at them."""

import pytest
from forked import run_script
from graphs import base_graph, node, sampler, save

from devhost.errors import HostError


@pytest.fixture(scope="module")
def answers(comfyui, tmp_path_factory):
    return run_script("values_script.py", comfyui, tmp_path_factory.mktemp("values"))


def test_every_node_refuses_what_lies_outside_of_its_ranges_and_choices(answers):
    """In a sentence that names input and value; choices of files are left to what loads them."""
    assert len(answers) > 400 and len({name for name, *_ in answers}) > 30
    files = 0
    for name, entry, kind, value, said in answers:
        if kind == "FileInput":
            files += 1
            continue
        told = f"{entry} {value} is no choice: there are " if value.startswith("'") else f"{entry} must be "
        assert said.startswith(f"ValueError: {told}"), (name, entry, value, said)
    assert 0 < files < 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise_source": "gpus"}, "noise_source.*gpus"),
        ({"preset": "I2V"}, "preset.*I2V"),
        ({"steps": ("wire", 0)}, "steps must be 1 to 1000, not -2"),
    ],
)
def test_a_prompt_with_one_is_refused(host, settings, message):
    graph = base_graph() | {"wire": node("PrimitiveInt", value=-2), "sample": sampler(1, **settings)}
    with pytest.raises(HostError, match=message):
        host.run(graph | {"save": save()})
