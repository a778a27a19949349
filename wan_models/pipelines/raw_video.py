"""The reference picture and the raw video that Animate-2-14B is driven by, in one size."""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from ..images.pixels import rgb
from ..images.resize import letterbox, resize_area, resize_linear
from ..images.sizes import letterbox_rectangle, size_for_animate


@dataclass(frozen=True, kw_only=True)
class RawVideo:
    """A character [1, H, W, 3] and the video [T, H, W, 3] that it is to move like, both in 0..1.

    area: pixels of a frame that is made, in the reference's aspect. Both are letterboxed into that size: scaled to fit
    by OpenCV's rules, in the middle of black."""

    reference_image: Tensor
    driving_video: Tensor
    area: int

    def check(self) -> None:
        """Raises ValueError where there is nothing to be driven by, or no such size."""
        if not self.frames:
            raise ValueError("driving_video has no frames: give the video that the character is to move like")
        for name, images in (
            ("reference_image", self.reference_image),
            ("driving_video", self.driving_video),
        ):
            if images.dim() != 4 or images.shape[-1] < 3:
                raise ValueError(
                    f"{name} has shape {list(images.shape)}, where [frames, height, width, 3] is expected"
                )
        _ = self.size

    @property
    def frames(self) -> int:
        return self.driving_video.shape[0]

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height that the model works in, multiples of 16."""
        rows, columns = self.reference_image.shape[1:3]
        return size_for_animate(columns, rows, self.area)

    def picture(self) -> Tensor:
        """The reference [1, H, W, 3] in that size."""
        return self._boxed(self.reference_image[:1])

    def driving(self, rows: list[int]) -> Tensor:
        """Frames of these numbers of the driving video, in that size."""
        return self._boxed(self.driving_video[rows])

    def cropped(self, frames: Tensor) -> Tensor:
        """Frames [T, H, W, 3] without the black beside the reference, to an even width and height."""
        rows, columns = self.reference_image.shape[1:3]
        wide, high, left, top = letterbox_rectangle(columns, rows, *self.size)
        wide, high = max(2, wide - wide % 2), max(2, high - high % 2)
        return frames[:, top : top + high, left : left + wide]

    def _boxed(self, images: Tensor) -> Tensor:
        width, height = self.size
        if tuple(images.shape[1:3]) == (height, width):
            return rgb(images)
        shrinks = width * height < images.shape[1] * images.shape[2]
        return letterbox(rgb(images), width, height, resize_area if shrinks else resize_linear)
