"""`python -m training [model ...]`: trains the miniatures in turn, resumes what was begun, and writes them as releases.

Each model stands on those before it. What was trained is kept in the folder of --work; delete a model's folder there to
train it anew.
"""

import argparse
from pathlib import Path

from devhost.cpu_torch import repair_torchvision

from .trainer import MODELS, Trainer

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", metavar="model", help=f"of {', '.join(MODELS)}; all by default")
    parser.add_argument(
        "--work", type=Path, default=ROOT / ".training", help="folder of what is in the making"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "miniature", help="folder of the finished releases"
    )
    chosen = parser.parse_args()
    if unknown := set(chosen.models) - set(MODELS):
        parser.error(f"there is no model {', '.join(sorted(unknown))}; there are {', '.join(MODELS)}")
    repair_torchvision()  # transformers imports it
    trainer = Trainer(chosen.work, chosen.out)
    for model in MODELS:
        if not chosen.models or model in chosen.models:
            getattr(trainer, model)()


if __name__ == "__main__":
    main()
