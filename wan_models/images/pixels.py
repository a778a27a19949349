"""Images as the models take them (three colours), and as PIL's 8-bit pictures."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def rgb(images: Tensor) -> Tensor:
    """[B, H, W, C] or [H, W, C] of 1 (grey), 3 or 4 channels -> [B, H, W, 3]; transparency is dropped, as the official
    code does.

    Raises ValueError on an empty image and on other numbers of channels."""
    images = images[None] if images.dim() == 3 else images
    if images.dim() != 4 or not images.numel() or images.shape[-1] not in (1, 3, 4):
        raise ValueError(
            f"an image of shape {list(images.shape)} cannot be used: expected (batch, height, width, 3 colours)"
        )
    return images.expand(-1, -1, -1, 3) if images.shape[-1] == 1 else images[..., :3]


def to_pil(image: Tensor) -> Image.Image:
    """[H, W, 3] -> 8-bit picture, each value rounded to the nearest."""
    return Image.fromarray(image.detach().cpu().float().mul(255).round().clamp(0, 255).byte().numpy())


def from_pil(picture: Image.Image, device: torch.device) -> Tensor:
    """8-bit picture -> [H, W, 3] in steps of 1/255."""
    return torch.from_numpy(np.array(picture)).to(device, torch.float32).div_(255)
