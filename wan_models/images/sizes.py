"""The video size that each model gives an image, and where an image of another aspect stands in it.

Source: wan/image2video.py, wan/utils/utils.py, wan/speech2video.py and
wan/modules/animate/preprocess/utils.py of the official code.
"""

import math

import numpy as np


def size_for_i2v(width: int, height: int, area: int, stride: int = 8, patch: int = 2) -> tuple[int, int]:
    """Width and height in pixels of about `area` pixels with the image's aspect: I2V-A14B's rule.

    Raises ValueError where the image is too narrow for any size."""
    aspect = height / width
    cells_high = round(np.sqrt(area * aspect) // stride // patch * patch)
    cells_wide = round(np.sqrt(area / aspect) // stride // patch * patch)
    return check_size(cells_wide * stride, cells_high * stride, width, height, area)


def size_for_ti2v(width: int, height: int, area: int, multiple: int = 32) -> tuple[int, int]:
    """Width and height in pixels, multiples of `multiple` and at most `area` pixels, nearest to the image's aspect:
    TI2V-5B's rule, best_output_size of the official code.

    Raises ValueError where the image is too narrow for any size."""
    aspect = width / height
    exact_width = math.sqrt(area * aspect)
    exact_height = area / exact_width
    down = lambda x: int(x // multiple * multiple)  # noqa: E731
    candidates = []
    if wide := down(exact_width):
        candidates.append((wide, down(area / wide)))
    if high := down(exact_height):
        candidates.append((down(area / high), high))
    candidates = [size for size in candidates if min(size) > 0]
    if not candidates:
        check_size(0, 0, width, height, area)

    def distortion(size: tuple[int, int]) -> float:
        return max(aspect * size[1] / size[0], size[0] / size[1] / aspect)

    # where both are as good the official code takes the one that fits the height
    return min(reversed(candidates), key=distortion)


def size_for_s2v(width: int, height: int, area: int, multiple: int = 64) -> tuple[int, int]:
    """Width and height in pixels, multiples of `multiple` and at most `area` pixels, that hold the image scaled down
    as little as needed: S2V-14B's rule, get_size_less_than_area of the official code, which never enlarges.

    Raises ValueError where the image is too small or too narrow for any size."""
    largest, smallest = 1.0, 0.1
    if height * width > area:
        margin = multiple - 1
        b, c = margin * (height + width), margin**2 - area
        smallest = (math.sqrt(b**2 - 2 * height * width * c) - b) / (2 * height * width)
        largest = math.sqrt(area / (height * width))
    up = lambda x: x + (multiple - x % multiple) % multiple  # noqa: E731
    for i in range(100):
        scale = largest - (largest - smallest) * i / 100
        high, wide = up(int(height * scale)), up(int(width * scale))
        if high * wide <= area:
            return check_size(wide, high, width, height, area)
    aspect = width / height
    wide, high = (int(math.sqrt(x) // multiple * multiple) for x in (area * aspect, area / aspect))
    if wide >= width or high >= height:
        wide, high = (int(x // multiple * multiple) for x in (width, height))
    return check_size(wide, high, width, height, area)


def size_for_animate(width: int, height: int, area: int, multiple: int = 16) -> tuple[int, int]:
    """Width and height in pixels, multiples of `multiple` and at most `area` pixels, of about the image's aspect: the
    rule of Animate-14B's preprocessing. Raises ValueError where the image is too narrow for any size."""
    high = math.sqrt(area / (width / height))
    wide, high = (int(n // multiple * multiple) for n in (area / high, high))
    return check_size(wide, high, width, height, area)


def letterbox_rectangle(columns: int, rows: int, width: int, height: int) -> tuple[int, int, int, int]:
    """Width and height of a columns x rows image scaled to fit into width x height, and how far from the left and the
    top it then stands in the middle."""
    if rows / columns > height / width:
        wide, high = int(height / rows * columns), height
    else:
        wide, high = width, int(width / columns * rows)
    return wide, high, (width - wide) // 2, (height - high) // 2


def check_size(out_width: int, out_height: int, width: int, height: int, area: int) -> tuple[int, int]:
    """The size of an image of width x height in `area` pixels, as it is given; ValueError where a side is nothing."""
    if min(out_width, out_height) < 1:
        raise ValueError(
            f"an image of {width}x{height} has no video size of its aspect in {area:,} pixels: crop the image, "
            "or set the exact width and height"
        )
    return out_width, out_height


def check_video_size(width: int, height: int, frames: int, multiple: int, name: str = "frames") -> None:
    """Raises ValueError on a size that no model can make, with the nearest that one can. name: of the number of frames,
    where the user gives it."""
    for side, value in (("width", width), ("height", height)):
        if value % multiple or value <= 0:
            nearest = max(multiple, round(value / multiple) * multiple)
            raise ValueError(
                f"{side} {value} is not a multiple of {multiple}; the nearest that is: {nearest}"
            )
    if frames % 4 != 1:
        nearest = max(1, round((frames - 1) / 4) * 4 + 1)
        raise ValueError(f"{name} {frames} is not 4n + 1 (1, 5, 9 ... 81); the nearest that is: {nearest}")
