"""The official preprocessing of Animate-14B, and somebody who moves for it."""

import colorsys
import contextlib
import importlib
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest


@contextlib.contextmanager
def official_preprocessing():
    """The official preprocessing's modules, which import each other by bare names, from the installed package."""
    folder = Path(importlib.util.find_spec("wan").submodule_search_locations[0], "modules/animate/preprocess")
    plot = types.ModuleType("matplotlib")  # of which one function is used
    plot.colors = types.SimpleNamespace(hsv_to_rgb=lambda hsv: np.array(colorsys.hsv_to_rgb(*hsv)))
    names = ["utils", "pose2d_utils", "human_visualization", "retarget_pose", "pose2d"]
    stood_in = {"matplotlib": plot, "matplotlib.pyplot": types.ModuleType("pyplot")}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        for name, module in stood_in.items():
            patch.setitem(sys.modules, name, module)
        out = types.SimpleNamespace(**{name: importlib.import_module(name) for name in names})
        for name in names:
            patch.delitem(sys.modules, name)
        yield out


STANDING = np.array(
    [
        (0.50, 0.12), (0.50, 0.22), (0.42, 0.22), (0.38, 0.36), (0.36, 0.48), (0.58, 0.22), (0.62, 0.36), (0.64, 0.48),
        (0.45, 0.50), (0.44, 0.70), (0.44, 0.90), (0.55, 0.50), (0.56, 0.70), (0.56, 0.90), (0.48, 0.10), (0.52, 0.10),
        (0.46, 0.11), (0.54, 0.11), (0.58, 0.94), (0.42, 0.94),
    ]
)  # fmt: skip
WHOLE_TO_BODY = {0: 0, 1: 15, 2: 14, 3: 17, 4: 16, 5: 5, 6: 2, 7: 6, 8: 3, 9: 7, 10: 4, 11: 11, 12: 8, 13: 12, 14: 9,
                 15: 13, 16: 10, 17: 18, 18: 18, 19: 18, 20: 19, 21: 19, 22: 19}  # fmt: skip


def people(frames, width, height, seed, zoom=1.0, low=0.0):
    """Somebody who moves, as COCO-WholeBody keypoints [T, 133, 3]; scores from `low` to 1."""
    random = np.random.default_rng(seed)
    out = np.zeros((frames, 133, 3))
    for i, j in WHOLE_TO_BODY.items():
        out[:, i, :2] = 0.5 + (STANDING[j] - 0.5) * zoom
    out[:, 23:91, :2] = out[:, :1, :2] + random.uniform(-0.03, 0.03, (1, 68, 2))
    for first, wrist in ((91, 9), (112, 10)):
        out[:, first : first + 21, :2] = out[:, wrist, None, :2] + random.uniform(-0.04, 0.04, (1, 21, 2))
        out[:, first, :2] = out[:, wrist, :2] + 0.003
    out[..., :2] += random.normal(0, 0.012, (frames, 133, 2)).cumsum(axis=0) * 0.3
    out[..., :2] *= (width, height)
    out[..., 2] = random.uniform(low, 1.0, (frames, 133))
    return out
