"""Copies of a model whose weights are stored quantised, as ComfyUI's files have them.

`python -m wan_models.tools.quantize FORMAT MODEL FILE` writes a model file or folder as the safetensors FILE.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..checkpoints.detect import identify
from ..checkpoints.errors import CheckpointError
from ..checkpoints.loading import expect
from ..checkpoints.packed.quantized import SCHEMES
from ..checkpoints.reader import open_model
from ..checkpoints.release_folder import official_config
from ..config import DiTConfig

PACKERS = {kind: scheme.pack for scheme in SCHEMES if scheme.pack for kind in scheme.formats}


def quantized(
    state: Mapping[str, Tensor], kind: str, dtype: torch.dtype = torch.bfloat16
) -> dict[str, Tensor]:
    """The weights under official names with the matrices of the blocks stored as `kind`, one of `PACKERS`.

    The others are given in `dtype`, as are matrices of sizes that the format has no place for."""
    out: dict[str, Tensor] = {}
    for name, weight in state.items():
        try:
            if weight.dim() != 2 or not name.startswith("blocks.") or "pos_embedding" in name:
                raise ValueError("not one of those")
            packed = PACKERS[kind](weight, kind)
        except ValueError:
            out[name] = weight.to(dtype).contiguous()
            continue
        out |= {f"{name.removesuffix('weight')}{leaf}": tensor for leaf, tensor in packed.items()}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("format", choices=PACKERS)
    parser.add_argument("model", type=Path, help="a file or folder of safetensors, .pth or GGUF")
    parser.add_argument("file", type=Path, help="where the copy goes")
    chosen = parser.parse_args()
    try:
        model = open_model(chosen.model)
        info = expect(model, identify(model).kind)
    except CheckpointError as error:
        parser.error(str(error))
    # weights do not tell Animate-2 from image-to-video, nor the distilled one from the base: the copy says it
    is_dit = isinstance(info.config, DiTConfig)
    metadata = {"config": json.dumps(official_config(info.config))} if is_dit else None
    save_file(quantized({name: model.unpacked(name) for name in model}, chosen.format), chosen.file, metadata)


if __name__ == "__main__":
    main()
