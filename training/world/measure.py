"""Measures of a video of the world, by image analysis alone: no network looks at it."""

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .canvas import Canvas, Colour
from .faces import MOUTH
from .objects import BACKGROUNDS, COLOURS, SHAPES, draw_shape

_DIFFERENT = 0.28
"""Distance of a pixel's colour from the background's, from which it belongs to the object."""
_TEMPLATE = 32


@dataclass(frozen=True)
class Seen:
    """Content of a video; `kind`, `colour` and `motion` are empty where no object is there.

    travel: way of the object between the first and the last fifth of the video, as shares of width and height."""

    kind: str
    colour: str
    background: str
    motion: str
    travel: tuple[float, float]


def look(video: Tensor) -> Seen:
    """Content of a video [T, H, W, 3] in 0..1."""
    background = _background(video)
    masks = (video - background).norm(dim=-1) > _DIFFERENT
    seen = [i for i, mask in enumerate(masks) if mask.float().mean() > 0.005]
    name = _nearest(background, BACKGROUNDS)
    if not seen:
        return Seen("", "", name, "", (0.0, 0.0))
    colour = _nearest(video[masks].median(dim=0).values, COLOURS)
    kind = _shape(masks[seen])
    part = max(1, len(seen) // 5)
    first = torch.stack([_centre(masks[i]) for i in seen[:part]]).mean(dim=0)
    last = torch.stack([_centre(masks[i]) for i in seen[-part:]]).mean(dim=0)
    across, down = (last - first).tolist()
    if max(abs(across), abs(down)) < 0.1:
        motion = ""
    elif abs(across) > abs(down):
        motion = "right" if across > 0 else "left"
    else:
        motion = "down" if down > 0 else "up"
    return Seen(kind, colour, name, motion, (across, down))


def obeyed(
    seen: Seen, facts: dict[str, str], aspects: tuple[str, ...] = ("kind", "colour", "motion")
) -> bool:
    """Whether a video shows the facts of these aspects."""
    return all(getattr(seen, aspect) == facts[aspect] for aspect in aspects)


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures or videos in 0..1."""
    return float(-10 * torch.log10(F.mse_loss(a.float(), b.float()).clamp_min(1e-12)))


def mouth_openings(video: Tensor) -> Tensor:
    """Opening of the mouth of a talking face in each frame of a video [T, H, W, 3]: its share of the face's lower
    middle, [T]."""
    mask = (video[0] - _background(video)).norm(dim=-1) > _DIFFERENT
    rows, columns = mask.nonzero(as_tuple=True)
    (top, bottom), (left, right) = ((int(x.min()), int(x.max()) + 1) for x in (rows, columns))
    height, width = bottom - top, right - left
    # hair and eyes, which are dark too, are above
    lower = video[
        :, top + int(0.58 * height) : top + int(0.95 * height), left + width // 4 : right - width // 4
    ]
    skin = video[0][mask].median(dim=0).values
    is_mouth = (lower - torch.tensor(MOUTH)).norm(dim=-1) < (lower - skin).norm(dim=-1)
    return is_mouth.float().mean(dim=(1, 2))


def offsets(frame: Tensor, expected: Tensor, points: Tensor, reach: int = 20, part: int = 9) -> Tensor:
    """Distances from where parts of a picture [H, W, 3] are to where another one has them, in pixels [N].

    points: x and y of their middles [N, 2]; reach: how far off is looked; part: half their width."""
    image = F.pad(frame.permute(2, 0, 1)[None], [reach + part] * 4, mode="replicate")[0]
    template = F.pad(expected.permute(2, 0, 1)[None], [part] * 4, mode="replicate")[0]
    out = []
    for x, y in points.round().long().tolist():
        patch = template[:, y : y + 2 * part + 1, x : x + 2 * part + 1]
        near = image[:, y : y + 2 * (reach + part) + 1, x : x + 2 * (reach + part) + 1]
        windows = near.unfold(1, patch.shape[1], 1).unfold(2, patch.shape[2], 1)  # 3, dy, dx, patch
        error = (windows - patch[:, None, None]).pow(2).mean(dim=(0, 3, 4))
        down, across = divmod(int(error.argmin()), error.shape[1])
        out.append(((down - reach) ** 2 + (across - reach) ** 2) ** 0.5)
    return torch.tensor(out)


def _background(video: Tensor) -> Tensor:
    """The colour of a plain background, from the rims."""
    rim = torch.cat([video[:, :2].flatten(0, 2), video[:, -2:].flatten(0, 2), video[:, :, :2].flatten(0, 2)])
    return rim.median(dim=0).values


def _nearest(colour: Tensor, palette: dict[str, Colour]) -> str:
    return min(palette, key=lambda name: float((colour - torch.tensor(palette[name])).norm()))


def _centre(mask: Tensor) -> Tensor:
    """Centre of a mask [H, W], as shares of width and height."""
    rows, columns = mask.nonzero().float().mean(dim=0)
    return torch.stack([columns / mask.shape[1], rows / mask.shape[0]])


def _normalised(masks: Tensor) -> Tensor:
    """Average shape of masks [T, H, W], each moved by its centre to the middle and scaled by the area of them
    all, in a square of `_TEMPLATE`. One frame's ragged edge counts little."""
    side = 2 * masks.flatten(1).sum(dim=1).median().clamp_min(1.0).sqrt()
    size = torch.tensor([masks.shape[2], masks.shape[1]])
    half = side / size  # of the square, where the picture reaches from -1 to 1
    centres = torch.stack([_centre(mask) for mask in masks]) * 2 - 1 + 1 / size
    affine = torch.zeros(len(masks), 2, 3)
    affine[:, 0, 0], affine[:, 1, 1], affine[:, :, 2] = half[0], half[1], centres
    grid = F.affine_grid(affine, [len(masks), 1, _TEMPLATE, _TEMPLATE], align_corners=False)
    return F.grid_sample(masks.float()[:, None], grid, align_corners=False).mean(dim=0)[0] > 0.5


@cache
def _templates() -> dict[str, Tensor]:
    shapes = {}
    for kind in SHAPES:
        canvas = Canvas(96, 96, (0.0, 0.0, 0.0))
        draw_shape(canvas, kind, (48.0, 48.0), 24.0, (1.0, 1.0, 1.0))
        shapes[kind] = _normalised(canvas.pixels()[None].mean(dim=-1) > 0.5)
    return shapes


def _shape(masks: Tensor) -> str:
    """The shape that fits masks [T, H, W] of a moving object best."""
    seen = _normalised(masks)
    fit = {kind: ((seen & shape).sum() / (seen | shape).sum()).item() for kind, shape in _templates().items()}
    return max(fit, key=lambda kind: fit[kind])
