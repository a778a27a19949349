"""Small ONNX models of the signatures that the official pose checkpoints have."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def _save(path, nodes, inputs, outputs, constants):
    values = lambda given: [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in given.items()]  # noqa: E731
    graph = helper.make_graph(
        nodes, "model", values(inputs), values(outputs),
        [numpy_helper.from_array(np.asarray(v, dtype=t), n) for n, (v, t) in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def write_detector(path, boxes):
    """A YOLOv10 that finds `boxes` (x and y from and to in 640 pixels, score, class) in any picture; in dark ones it is
    the less sure of them."""
    scores = np.zeros((1, len(boxes), 6))
    scores[..., 4] = np.asarray(boxes)[:, 4]
    _save(
        path,
        [
            helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Mul", ["mean", "ten"], ["bright"]),
            helper.make_node("Clip", ["bright", "zero", "one"], ["sure"]),
            helper.make_node("Mul", ["scores", "sure"], ["seen"]),
            helper.make_node("Add", ["places", "seen"], ["output0"]),
        ],
        {"images": [1, 3, 640, 640]},
        {"output0": [1, len(boxes), 6]},
        {
            "ten": (10.0, np.float32),
            "zero": (0.0, np.float32),
            "one": (1.0, np.float32),
            "scores": (scores, np.float32),
            "places": (np.asarray(boxes)[None] * [1, 1, 1, 1, 0, 1], np.float32),
        },
    )


def write_pose(path, points, size=(256, 192), sway=3.0, open_size=False):
    """A ViTPose that sees `points` [133, 3] (x and y within 0..1 of its picture, score), swayed to the right by the
    brightness of the picture; `open_size` leaves the sizes out of the file."""
    rows, columns = size[0] // 4, size[1] // 4
    y, x = np.mgrid[:rows, :columns]
    points = np.asarray(points)
    squares = (x - points[:, 0, None, None] * columns) ** 2 + (y - points[:, 1, None, None] * rows) ** 2
    peaks = points[:, 2, None, None] * np.exp(-squares / 8)
    _save(
        path,
        [
            helper.make_node("ReduceMean", ["input"], ["bright"], axes=[1, 2, 3], keepdims=1),
            helper.make_node("Mul", ["bright", "slope"], ["moved"]),
            helper.make_node("Mul", ["peaks", "moved"], ["more"]),
            helper.make_node("Add", ["peaks", "more"], ["output"]),
        ],
        {"input": ["batch", 3, "rows", "columns"] if open_size else [1, 3, *size]},
        {"output": ["batch", len(points), "high", "wide"] if open_size else [1, len(points), rows, columns]},
        {
            # towards one side of each peak the map grows with the brightness
            "slope": (0.02 * sway * (x[None, None] / columns - 0.5), np.float32),
            "peaks": (peaks[None], np.float32),
        },
    )
