"""A few prompts of `make soak`, and that it would find what is wrong."""

import json
import shutil
import sys
from types import SimpleNamespace

import pytest
from forked import ForkedHost
from PIL import Image

from tests.soak.day import Day, Length
from tests.soak.files import write_files
from tests.soak.prompts import BROKEN, broken, named
from tests.soak.readings import LIMITS, Reading, grown
from tests.soak.report import write
from tests.soak.watched import Watched

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="readings are of Linux's /proc")


@pytest.mark.long
def test_a_few_prompts(comfyui, tmp_path):
    """`make soak` runs for hours; these are always the same."""
    (tmp_path / "tmp").mkdir()
    write_files(tmp_path / "base", ("T2V-A14B", "S2V-14B"))
    with ForkedHost(comfyui, base=tmp_path / "base") as host:
        day = Day(host, tmp_path / "tmp", 2, tasks=("T2V packed", "T2V replaced", "S2V"))
        for step in (day.interrupted, day.replaced, day.broken, day.gone):
            day.checked(step)
        result = day.run(Length(10, prompts=6))
    assert not result.failures and result.made >= 4
    shutil.rmtree(tmp_path / "base")
    assert "0 failures" in write(result, tmp_path, {"seed": 2})
    assert json.loads((tmp_path / "report.json").read_text())["prompts"] == result.prompts
    with Image.open(tmp_path / "plot.png") as plot:
        assert plot.width > 300


def reading(n, **more):
    held = {"memory": 5e8 + n % 3 * 1e7, "descriptors": 9 + n % 2, "threads": 7, "processes": 0}
    files = {"mapped_files": 0, "temporary_files": 0, "other_files": 6}
    return Reading(**{"prompts": 25 * n, "seconds": 60.0 * n, **held, **files, **more})


@pytest.mark.parametrize("name", LIMITS)
def test_what_grows_is_seen_and_what_swings_is_not(name):
    flat = [reading(n) for n in range(20)]
    flat[11] = reading(11, **{name: 1e9})
    assert all(rose <= allowed for rose, allowed in grown(flat).values())
    step = 4e6 if name == "memory" else 1
    rising = [reading(n, **{name: 5e8 * (name == "memory") + step * n}) for n in range(20)]
    assert [what for what, (rose, allowed) in grown(rising).items() if rose > allowed] == [name]
    assert grown(flat[:5]) == {}


def test_other_pictures_and_a_run_that_did_not_end_are_seen(tmp_path):
    host = SimpleNamespace(base=tmp_path, outputs=lambda entry: [tmp_path / "out.png"])
    watched = Watched(host, tmp_path)
    graph, entry = {"save": {"inputs": {"filename_prefix": "x"}}}, {"status": {"completed": True}}
    for colour, found in (("red", 0), ("red", 0), ("blue", 1)):
        Image.new("RGB", (2, 2), colour).save(tmp_path / "out.png")
        watched.compare("T2V", named(graph, colour), entry)
        assert len(watched.result.failures) == found
    assert "T2V: other pictures than before" in watched.result.failures[0]
    watched.compare("T2V", graph, {"status": {"completed": False}})
    assert "did not end well" in watched.result.failures[1]
    assert (watched.result.made, watched.result.repeated) == (3, 2)


def test_each_broken_prompt_is_another():
    assert len({str(broken(what)) for what in BROKEN}) == len(BROKEN)
