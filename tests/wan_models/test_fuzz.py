"""A slice of the campaign on model files, and that it would find what is wrong."""

import sys

import pytest
from forked import run

from devhost.host import ROOT

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="each case is bounded by Linux's means"),
]


def test_a_slice_of_the_campaign(tmp_path):
    """`make fuzz` runs thousands; these are always the same."""
    done = run("-m", "tests.fuzz", "--cases", "85", "--seed", "7", "--folder", tmp_path)
    assert done.returncode == 0 and "85 cases of seed 7" in done.stdout, done.stdout + done.stderr[-2000:]


def test_the_campaign_finds_what_is_not_refused(tmp_path):
    """Memory, other errors, no name, the end of the process, and no end at all."""
    script = tmp_path / "campaign.py"
    script.write_text(
        f"import sys; sys.path[0] = {str(ROOT)!r}\n"
        "from devhost.cpu_torch import repair_torchvision\n"
        "repair_torchvision()\n"
        "import tests.fuzz.campaign as c, os, sys, time, pathlib\nsize = 7\n"
        "def use(kind, path):\n"
        "    if path.stat().st_size == size: return\n"
        "    [lambda: bytearray(2**31), lambda: {}[1], lambda: int('x'), lambda: os.abort(), lambda: sum(iter(int, 1))]"
        "[int(path.parent.name.split()[1])]()\n"
        "c.use, c.SECONDS = use, 2\n"
        "c._damage = lambda source, folder, kind, chance: (folder.mkdir(), (folder / 'm.pth').write_bytes(b'x'))\n"
        "c.write_seeds = lambda root: ((root / 'vae-pth').mkdir(), (root / 'vae-pth/m.pth').write_bytes(bytes(size)))\n"
        "print(*c.run(pathlib.Path(sys.argv[1]), 5, 1, 'vae').failures, sep='\\n')\n"
    )
    done = run(script, tmp_path / "x")
    found = [line.split(": ")[1] for line in done.stdout.splitlines()]
    assert found == ["MemoryError", "KeyError", "does not name the file", "ends the process", "hangs"], done
