"""The videos that drive a character of Animate-14B, frame by frame."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from ..images.pixels import rgb
from ..images.resize import centre_square, resize_area

_MULTIPLE = 16  # pixels of a patch of latent cells


class EmptyMaskError(ValueError):
    """A mask in which there is nobody to take the place of."""


class DrivingFrames(NamedTuple):
    """Frames that drive one clip, in the size that the model sees: poses, faces and background [T, H, W, 3], and mask
    [T, H, W]."""

    pose: Tensor
    face: Tensor
    background: Tensor | None
    mask: Tensor | None


@dataclass(frozen=True, kw_only=True)
class DrivingVideos:
    """Videos [T, H, W, 3] in 0..1 that are one frame for each of the character's video.

    pose_video: drawn poses. face_video: the driving face. background_video and mask [T, H, W], 1 where the character
    goes: those of a video that it is put into, both or neither. A face, background or mask of a single frame stands for
    all frames."""

    pose_video: Tensor
    face_video: Tensor
    background_video: Tensor | None = None
    mask: Tensor | None = None

    def check(self) -> None:
        """Raises ValueError where these do not belong together, EmptyMaskError where the mask is empty."""
        for name in ("face_video", "background_video", "mask"):
            video = getattr(self, name)
            if video is not None and video.shape[0] not in (1, self.frames):
                raise ValueError(
                    f"{name} has {video.shape[0]} frames and pose_video {self.frames}: make both of the same frames of "
                    "the driving video, or give one frame that stands for all"
                )
        if (self.background_video is None) != (self.mask is None):
            there, missing = "background_video", "mask"
            if self.background_video is None:
                there, missing = missing, there
            raise ValueError(
                f"there is a {there} but no {missing}: give both to put the character into a video, neither to "
                "animate the reference image"
            )
        if self.mask is not None and not bool((self.mask > 0).any()):
            raise EmptyMaskError("the mask is empty in every frame: there is nobody to take the place of")

    @property
    def frames(self) -> int:
        return self.pose_video.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the video: the pose video's, to the nearest that the model can make."""
        height, width = (max(_MULTIPLE, round(n / _MULTIPLE) * _MULTIPLE) for n in self.pose_video.shape[1:3])
        return width, height

    def driving(self, rows: list[int], face_size: int) -> DrivingFrames:
        """Driving frames of these numbers; face_size: width and height of a face, in pixels."""

        def pick(video: Tensor) -> Tensor:
            return video[:1].expand(len(rows), *video.shape[1:]) if video.shape[0] == 1 else video[rows]

        def pick_sized(video: Tensor) -> Tensor:
            return resize_area(rgb(pick(video)), *self.size)

        face = self.face_video if self.face_video.shape[0] == 1 else self.face_video[rows]
        face = resize_area(centre_square(rgb(face)), face_size, face_size)
        return DrivingFrames(
            pose=pick_sized(self.pose_video),
            face=face.expand(len(rows), -1, -1, -1),
            background=None if self.background_video is None else pick_sized(self.background_video),
            mask=None if self.mask is None else pick(self.mask),
        )
