# ruff: noqa: E402, T201  torchvision is repaired before what imports it; it prints its report
"""`make soak`: hours of prompts on one ComfyUI server with tiny models; ends with an error where a prompt did not end
as it should, or the server holds ever more.

Linux only: what the server holds is read from /proc. The folder that is named at the end has the report and the log.
"""

import argparse
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from devhost.cpu_torch import repair_torchvision

repair_torchvision()

from devhost.host import Host
from devhost.setup_host import install_host
from tests.soak.day import Day, Length
from tests.soak.files import write_files
from tests.soak.prompts import TASKS
from tests.soak.report import write
from tests.soak.watched import Result


def _show(result: Result) -> None:
    held, failed = result.readings[-1].memory / 2**20, len(result.failures)
    print(
        f"{result.seconds / 60:6.1f} min {result.prompts:6} prompts {held:6.0f} MiB {failed} failures",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--prompts", type=int, default=1_000_000, help="ends after so many, too")
    parser.add_argument("--seed", type=int, default=1, help="the same seed makes the same row of prompts")
    parser.add_argument(
        "--folder", type=Path, help="an empty one to work in; a new one where nothing is said"
    )
    arguments = parser.parse_args()
    root = arguments.folder or Path(tempfile.mkdtemp(prefix="wan-soak-"))
    base, temporary = root / "base", root / "tmp"
    temporary.mkdir(parents=True)
    releases = sorted({release for task in TASKS.values() for release in task.releases})
    write_files(base, tuple(releases))
    os.environ["TMPDIR"] = str(temporary)
    comfyui = Path(os.environ["COMFYUI"]) if os.environ.get("COMFYUI") else install_host()
    with Host(comfyui, base=base) as host:
        day = Day(host, temporary, arguments.seed)
        with suppress(KeyboardInterrupt):  # what was seen until then is reported
            day.run(Length(arguments.minutes, arguments.prompts), _show)
    result = day.result
    about = {"seed": arguments.seed, "minutes": arguments.minutes}
    print(write(result, root, about), end="")
    print(f"report.json, plot.png and the server's log are in {root}")
    return 1 if result.failures else 0


sys.exit(main())
