"""Lets a torchvision wheel built for CUDA be imported beside a CPU build of torch.

The wheel's compiled operators cannot load there, and torchvision then fails on registering shapes for two
operators it never declared. Declaring the two (nothing here calls them) is enough for all its Python code.
"""

import sys

import torch

_kept: list[torch.library.Library] = []  # a Library that is collected takes its operators with it


def repair_torchvision() -> None:
    """Makes `import torchvision` work; does nothing where it works already or is not installed."""
    try:
        import torchvision
    except ImportError:
        return
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)
        import torchvision  # noqa: F401
