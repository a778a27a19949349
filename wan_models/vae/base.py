"""Base of the two Wan video autoencoders: the layers of both halves, and what they take of memory."""

import itertools
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops as default_ops
from ..config import VAEConfig
from ..progress import OnProgress
from .causal import AttentionBlock, Cache, ResidualBlock, RMSNorm, Upsample2d, causal_conv3d, keeps_frames
from .streaming import PIECE_BYTES, Autoencoder

# bytes of one full-size feature map worked on at a time where frames are largest, in whose layers most memory lies; on
# a CPU, which has more of it, without bound
_FRAMES_BYTES = 128 << 20


class _Stack(nn.Module):
    """A first convolution, levels of one size each, layers at the smallest size, and a last convolution."""

    conv1: nn.Module
    middle: nn.Sequential
    head: nn.Sequential

    def _finish(self, x: Tensor, cache: Cache) -> Tensor:
        norm, _, conv = self.head
        return conv(F.silu(norm(x), inplace=True), cache)


def _by_frames(
    layers: Sequence[Callable[[Tensor, Cache], Tensor]], x: Tensor, cache: Cache, frames: int
) -> Tensor:
    """The layers, which keep the number of frames, over so many `frames` at a time: the same in less memory."""
    out = []
    for part in x.split(frames, dim=2):
        for layer in layers:
            part = layer(part, cache)
        out.append(part)
    return torch.cat(out, dim=2) if len(out) > 1 else out[0]


def _middle(dim: int, ops: ModuleType) -> nn.Sequential:
    return nn.Sequential(ResidualBlock(dim, dim, ops), AttentionBlock(dim, ops), ResidualBlock(dim, dim, ops))


def _head(dim: int, out_dim: int, ops: ModuleType) -> nn.Sequential:
    return nn.Sequential(RMSNorm(dim, 3), nn.Identity(), causal_conv3d(ops)(dim, out_dim, 3, padding=1))


class Encoder(_Stack):
    """Input of the first layer -> two values (mean, log variance) per latent channel.

    A version says how many channels its first layer takes, and makes the levels."""

    in_dim = 3

    def __init__(self, config: VAEConfig, ops: ModuleType) -> None:
        super().__init__()
        dims = [config.base_dim * m for m in (1, *config.dim_mult)]
        self.conv1 = causal_conv3d(ops)(self.in_dim, dims[0], 3, padding=1)
        self.downsamples = nn.Sequential(*self.levels(config, dims, ops))
        self.middle = _middle(dims[-1], ops)
        self.head = _head(dims[-1], config.z_dim * 2, ops)

    def levels(self, config: VAEConfig, dims: list[int], ops: ModuleType) -> Iterable[nn.Module]:
        """The layers from each width of `dims` to the next, on the way down."""
        raise NotImplementedError

    def forward(self, x: Tensor, cache: Cache, frames: int) -> Tensor:
        """[B, in_dim, T, H, W] -> [B, 2 z, t, h, w]; `frames` are worked on at a time while they are large."""
        layers = [self.conv1, *self.downsamples, *self.middle]
        large = next(i for i, layer in enumerate(layers) if not keeps_frames(layer))
        x = _by_frames(layers[:large], x, cache, frames)
        for layer in layers[large:]:
            x = layer(x, cache)
        return self._finish(x, cache)


class Decoder(_Stack):
    """Latents -> what `to_pixels` makes a video of; the parts are those of `Encoder`."""

    out_dim = 3

    def __init__(self, config: VAEConfig, ops: ModuleType) -> None:
        super().__init__()
        mult = config.dim_mult[::-1]
        dims = [(config.dec_dim or config.base_dim) * m for m in (mult[0], *mult)]
        self.conv1 = causal_conv3d(ops)(config.z_dim, dims[0], 3, padding=1)
        self.middle = _middle(dims[0], ops)
        self.upsamples = nn.Sequential(*self.levels(config, dims, ops))
        self.head = _head(dims[-1], self.out_dim, ops)

    def levels(self, config: VAEConfig, dims: list[int], ops: ModuleType) -> Iterable[nn.Module]:
        """The layers from each width of `dims` to the next, on the way up."""
        raise NotImplementedError

    def forward(self, x: Tensor, cache: Cache, frames: int, columns: slice | None = None) -> Tensor:
        """[B, z, t, h, w] -> [B, out_dim, T, H, W]; `frames` are worked on at a time once they are large.

        columns: as of `middle_features`, which the video then is as wide as."""
        return self.upsample(self.middle_features(x, cache, columns), cache, frames)

    def middle_features(self, x: Tensor, cache: Cache, columns: slice | None = None) -> Tensor:
        """The layers at the smallest size, whose attention sees whole frames: [B, z, t, h, w] -> [B, C, t, h, w].

        columns: the part of each row that is returned; None for all of it."""
        for layer in (self.conv1, *self.middle):
            x = layer(x, cache)
        return x if columns is None else x[..., columns].contiguous()

    def upsample(self, x: Tensor, cache: Cache, frames: int) -> Tensor:
        """`middle_features` -> [B, out_dim, T, H, W]; each value depends on `reach` rows and columns to either side."""
        layers = [*self.upsamples]
        large = max(i for i, layer in enumerate(layers) if not keeps_frames(layer)) + 1
        for layer in layers[:large]:
            x = layer(x, cache)
        return _by_frames([*layers[large:], self._finish], x, cache, frames)

    @property
    def reach(self) -> int:
        """Rows or columns of `upsample`'s input, to either side of one, that what becomes of it depends on: how far the
        kernels see at each size. 13 in the released decoders (6.5, 3.25, 1.625 and 0.875 at their four sizes)."""
        rows, scale = 0.0, 1
        for layer in (*self.upsamples.modules(), *self.head.modules()):
            scale *= 2 if isinstance(layer, Upsample2d) else 1
            if isinstance(layer, nn.Conv2d | nn.Conv3d):
                rows += layer.kernel_size[-1] // 2 / scale
        return math.ceil(rows)


class VideoVAE(Autoencoder):
    """Encoder and decoder of a Wan VAE.

    A version names its two halves, and overrides the conversions between pixels and what its layers take."""

    encoder_class: type[Encoder]
    decoder_class: type[Decoder]
    config: VAEConfig
    maps: dict[str, tuple[float, float, float]]
    """Full-size feature maps alive at the widest point of "encode" and "decode" where one frame is worked on at a time,
    most of them in the causal layers' caches; for each further frame worked on; for each further frame of a piece."""

    def __init__(self, config: VAEConfig, ops: ModuleType = default_ops) -> None:
        super().__init__(config)
        conv = causal_conv3d(ops)
        self.conv1 = conv(config.z_dim * 2, config.z_dim * 2, 1)
        self.conv2 = conv(config.z_dim, config.z_dim, 1)
        self.encoder = self.encoder_class(config, ops)
        self.decoder = self.decoder_class(config, ops)

    @property
    def dtype(self) -> torch.dtype:
        return self.conv1.weight.dtype

    def from_pixels(self, video: Tensor) -> Tensor:
        """Pixels -> input of the first layer."""
        return video

    def to_pixels(self, x: Tensor) -> Tensor:
        """Output of the last layer -> pixels."""
        return x

    @property
    def values_per_pixel(self) -> float:
        return self.config.base_dim

    def peak_bytes(self, task: str, frames: int, pixels: int, itemsize: int) -> int:
        """As of `Autoencoder`.

        At most 10 % above what bench/accounting.py counts at the usual sizes; a bound at small ones."""
        config = self.config
        map_bytes = pixels * self.values_per_pixel * itemsize
        cells = max(1, min((frames - 1) // 4, int(PIECE_BYTES["cuda"] // (4 * map_bytes))))
        together = max(1, min(4 * cells, int(_FRAMES_BYTES // map_bytes)))
        one, further, waiting = self.maps[task]
        maps = one + further * (together - 1) + waiting * 4 * (cells - 1)
        if task == "encode":
            return int(maps * map_bytes * config.base_dim / max(config.base_dim, config.dec_dim or 0))
        return int(maps * map_bytes) + 3 * frames * pixels * itemsize

    def peak_bytes_in_bands(self, frames: int, height: int, width: int, itemsize: int, bands: int) -> int:
        """As `peak_bytes`, of `decode_in_bands`."""
        time, rows, columns = self.config.stride
        cells, latent = (frames + time - 1) // time, (height // rows, width // columns)
        largest = max(below - above for _, _, above, below in self._bands(latent[0], bands))
        video = 3 * frames * width * itemsize
        of_band = self.peak_bytes("decode", frames, largest * rows * width, itemsize) - video * largest * rows
        channels: int = self.decoder.conv1.out_channels  # type: ignore[assignment]
        seen = channels * cells * math.prod(latent) * itemsize
        return of_band + seen + video * height

    def encode_pieces(self, video: Tensor) -> Iterator[tuple[int, Tensor]]:
        time = self.config.stride[0]
        cache: Cache = {}
        pixels = video.shape[0] * video.shape[3] * video.shape[4]
        cells = (video.shape[2] + time - 1) // time
        for start, end in self.pieces(cells, pixels, video.device):
            piece = video[:, :, max(0, time * (start - 1) + 1) : time * (end - 1) + 1].to(self.dtype)
            large = self._frames(pixels, video.device)
            moments = self.conv1(self.encoder(self.from_pixels(piece), cache, large), cache)
            yield end, moments[:, : self.config.z_dim]

    def decode_pieces(self, z: Tensor, columns: slice | None = None) -> Iterator[tuple[int, Tensor]]:
        """As of `Autoencoder`; columns: those of the latents that a video is made of, where not of all. Its attention
        sees all of them."""
        _, height, width = self.config.stride
        cache: Cache = {}
        pixels = z.shape[0] * z.shape[3] * height * z.shape[4] * width
        frames = self._frames(pixels, z.device)
        for start, end in self.pieces(z.shape[2], pixels, z.device):
            x = self.conv2(z[:, :, start:end].to(self.dtype), cache)
            yield end, self.to_pixels(self.decoder(x, cache, frames, columns)).clamp_(-1, 1)

    def decode_in_bands(self, z: Tensor, bands: int, on_frames: OnProgress | None = None) -> Tensor:
        """`decode` in less memory: one band of rows of the whole video after another.

        Each is computed with as many rows around it as it depends on, so it comes out as in the whole, but for
        rounding. That takes more time: two bands of 720 rows are 1.3 times the arithmetic with the 2.1 version, 1.6
        times with 2.2."""
        factor = self.config.stride[1]
        cells, height, width = z.shape[2:]
        pixels = z.shape[0] * factor * width * factor
        seen: list[Tensor] = []
        cache: Cache = {}
        for start, end in self.pieces(cells, pixels * height, z.device):
            seen.append(
                self.decoder.middle_features(self.conv2(z[:, :, start:end].to(self.dtype), cache), cache)
            )
        rows = torch.cat(seen, dim=2)
        del seen, cache
        out = self.empty_video(z)
        for band, (top, bottom, above, below) in enumerate(self._bands(height, bands)):
            of_band, done, cache = pixels * (below - above), 0, {}
            for start, end in self.pieces(cells, of_band, z.device):
                part = rows[:, :, start:end, above:below]
                video = self.to_pixels(self.decoder.upsample(part, cache, self._frames(of_band, z.device)))
                video = video[:, :, :, (top - above) * factor : (bottom - above) * factor].clamp_(-1, 1)
                out[:, :, done : done + video.shape[2], top * factor : bottom * factor] = video
                done += video.shape[2]
                del video  # before the next piece takes memory
                if on_frames is not None:
                    on_frames(band * cells + end, bands * cells)
        return out

    def _bands(self, height: int, bands: int) -> Iterator[tuple[int, int, int, int]]:
        """Latent rows of each band: its first and end, and those of what it is computed from."""
        reach, edges = self.decoder.reach, [round(height * i / bands) for i in range(bands + 1)]
        for top, bottom in itertools.pairwise(edges):
            yield top, bottom, max(0, top - reach), min(height, bottom + reach)

    def _frames(self, pixels: int, device: torch.device) -> int:
        """Frames to work on at a time where they are large."""
        per_frame = pixels * self.values_per_pixel * self.dtype.itemsize
        return sys.maxsize if device.type == "cpu" else max(1, int(_FRAMES_BYTES // per_frame))
