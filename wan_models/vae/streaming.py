"""Base of all autoencoders for videos: a video streams through in pieces, so that memory does not grow with
its length; and latents are raw, with the statistics by which diffusion models have them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from ..config import TinyVAEConfig, VAEConfig
from ..progress import OnProgress

# bytes of one full-size feature map worked on at a time: enough to keep a device busy, no more
PIECE_BYTES = {"cpu": 32 << 20, "cuda": 512 << 20}


@dataclass(frozen=True)
class LatentStatistics:
    """Mean and standard deviation of each latent channel over the training data."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalize(self, mu: Tensor) -> Tensor:
        """Raw latents [B, C, T, H, W] -> zero mean and unit variance per channel."""
        return (mu - _per_channel(self.mean, mu)) / _per_channel(self.std, mu)

    def denormalize(self, z: Tensor) -> Tensor:
        """The inverse of `normalize`."""
        return z * _per_channel(self.std, z) + _per_channel(self.mean, z)


def _per_channel(values: tuple[float, ...], like: Tensor) -> Tensor:
    return rearrange(torch.tensor(values, device=like.device, dtype=like.dtype), "c -> 1 c 1 1 1")


class Autoencoder(nn.Module):
    """An encoder of videos to raw latents, and a decoder; a kind says how a piece goes through its layers."""

    statistics: LatentStatistics

    def __init__(self, config: VAEConfig | TinyVAEConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights, and of all that is computed."""
        raise NotImplementedError

    @property
    def values_per_pixel(self) -> float:
        """Size of the widest feature map, per pixel of video."""
        raise NotImplementedError

    def peak_bytes(self, task: str, frames: int, pixels: int, itemsize: int) -> int:
        """Bytes that "encode" or "decode" of `frames` of so many pixels takes on a GPU beside the weights."""
        raise NotImplementedError

    def encode_pieces(self, video: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The latents of `encode` piece by piece, each with the number of latent frames done so far."""
        raise NotImplementedError

    def decode_pieces(self, z: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The frames of `decode` piece by piece, each with the number of latent frames done so far."""
        raise NotImplementedError

    def encode(self, video: Tensor, on_frames: OnProgress | None = None) -> Tensor:
        """Video [B, 3, T, H, W] in -1..1 -> raw latents [B, z, 1 + (T - 1) / 4, H / stride, W / stride].

        on_frames(done, total) is called after each piece; an error raised in it ends the work and leaves nothing
        behind. Raises ValueError where T is not 4n + 1, or H or W does not divide by the stride."""
        time, height, width = self.config.stride
        frames = video.shape[2]
        if frames % time != 1 or video.shape[3] % height or video.shape[4] % width:
            raise ValueError(
                f"the VAE encodes {time}n + 1 frames of a size that divides by {height}, not {frames} frames of "
                f"{video.shape[4]}x{video.shape[3]}"
            )
        cells = (frames + time - 1) // time
        shape = (
            video.shape[0], self.config.z_dim, cells, video.shape[3] // height, video.shape[4] // width,
        )  # fmt: skip
        out = video.new_empty(shape, dtype=self.dtype)
        done = 0
        for end, latents in self.encode_pieces(video):
            out[:, :, done:end] = latents
            done = end
            if on_frames is not None:
                on_frames(end, cells)
        return out

    def decode(self, z: Tensor, on_frames: OnProgress | None = None) -> Tensor:
        """Raw latents [B, z, t, h, w] -> video [B, 3, 1 + 4 * (t - 1), stride * h, stride * w] in -1..1.

        on_frames as in `encode`."""
        cells, done = z.shape[2], 0
        out = self.empty_video(z)
        for end, frames in self.decode_pieces(z):
            out[:, :, done : done + frames.shape[2]] = frames
            done += frames.shape[2]
            del frames  # before the next piece takes memory
            if on_frames is not None:
                on_frames(end, cells)
        return out

    def empty_video(self, z: Tensor) -> Tensor:
        """Memory for what raw latents decode to."""
        time, height, width = self.config.stride
        shape = time * (z.shape[2] - 1) + 1, z.shape[3] * height, z.shape[4] * width
        return z.new_empty(z.shape[0], 3, *shape, dtype=self.dtype)

    def pieces(self, cells: int, pixels: int, device: torch.device) -> Iterator[tuple[int, int]]:
        """Ranges of latent frames to work on at a time; the first frame, which stands for one only, goes alone."""
        per_cell = self.config.stride[0] * pixels * self.values_per_pixel * self.dtype.itemsize
        size = max(1, int(PIECE_BYTES.get(device.type, PIECE_BYTES["cuda"]) // per_cell))
        yield 0, 1
        for start in range(1, cells, size):
            yield start, min(start + size, cells)
