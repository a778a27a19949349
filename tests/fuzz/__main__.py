# ruff: noqa: E402, T201  torchvision is repaired before what imports it; it prints its report
"""`make fuzz`: thousands of damaged model files; ends with an error where one is neither loaded nor refused.

Linux only: each case is a process with a bound on its memory. Files of failures are kept in the folder that is named.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # processes are made without their threads
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from devhost.cpu_torch import repair_torchvision

repair_torchvision()

import sentencepiece  # noqa: F401  imported once, and not in each case
import torch
from transformers import AutoTokenizer, Wav2Vec2Model  # noqa: F401

from tests.fuzz.campaign import run

torch.set_num_threads(1)  # also where it was imported before


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1, help="the same seed makes the same files")
    parser.add_argument("--kinds", default="", help="only kinds of files with this in their names")
    parser.add_argument(
        "--folder", type=Path, help="an empty one to work in; a new one where nothing is said"
    )
    arguments = parser.parse_args()
    root = arguments.folder or Path(tempfile.mkdtemp(prefix="wan-fuzz-"))
    result = run(root, arguments.cases, arguments.seed, arguments.kinds)
    for kind in sorted(result.loaded | result.refused):
        print(f"{kind:24} {result.refused[kind]:6} refused {result.loaded[kind]:6} loaded")
    print(f"{arguments.cases} cases of seed {arguments.seed}, the longest took {result.longest:.1f} s")
    for failure in result.failures:
        print(f"FAILED {failure}")
    print(f"{len(result.failures)} failures" + (f", kept in {root / 'failed'}" if result.failures else ""))
    return 1 if result.failures else 0


sys.exit(main())
