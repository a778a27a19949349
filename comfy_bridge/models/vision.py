"""CLIP's image tower as the host's CLIP vision model."""

from pathlib import Path

import comfy.clip_vision
import comfy.model_management
from torch import Tensor

from ...wan_models.checkpoints.files.stamp import Stamp
from ...wan_models.checkpoints.loading import load_tower
from ...wan_models.images.pixels import rgb
from ...wan_models.images.resize import centre_square
from ...wan_models.models import build_network, open_as
from ...wan_models.vision.clip import VisionTransformer, preprocess
from .. import compat
from .hints import check_mapped, loader_hints
from .packed.layers import ops


class WanClipVision:
    """CLIP_VISION: has the one call that the host's nodes make, and sees pictures as the official code does."""

    def __init__(self, tower: VisionTransformer) -> None:
        self.tower = tower
        self.image_size = tower.config.image_size
        self.stamps: tuple[Stamp, ...] = ()
        self.patcher = compat.make_patcher(
            tower,
            comfy.model_management.text_encoder_device(),
            comfy.model_management.text_encoder_offload_device(),
        )

    def encode_image(self, image: Tensor, crop: bool = True) -> comfy.clip_vision.Output:
        """IMAGE [B, H, W, C] -> CLIP_VISION_OUTPUT. crop: the centre square, else the whole picture, stretched."""
        check_mapped(self.stamps)
        comfy.model_management.load_model_gpu(self.patcher)
        pictures = rgb(image).to(self.patcher.load_device).float()
        pictures = preprocess(centre_square(pictures) if crop else pictures, self.image_size)
        features, last = self.tower(pictures.to(self.tower.cls_embedding.dtype))
        device = comfy.model_management.intermediate_device()
        out = comfy.clip_vision.Output()
        out["last_hidden_state"] = last.float().to(device)
        out["image_embeds"] = self.tower.embed(last).to(device)
        out["penultimate_hidden_states"] = features.float().to(device)
        out["mm_projected"] = None
        return out


def load_clip_vision(path: str | Path) -> WanClipVision:
    """Loads the open-clip checkpoint of an official release, or the host's clip_vision_h file.

    Raises CheckpointError (a ValueError) where it is broken or holds something else."""
    dtype = comfy.model_management.text_encoder_dtype(comfy.model_management.text_encoder_device())
    with loader_hints():
        checkpoint, info = open_as(path, "clip_vision")
    tower = build_network(info.config, ops)
    vision = WanClipVision(tower)
    load_tower(tower, checkpoint)
    tower.to(dtype)
    vision.stamps = checkpoint.stamps
    compat.archive_dtypes(tower)
    return vision
