"""Copies of a model in the small formats that people share: scaled 8-bit floats, and GGUF.

`python -m training.copies FOLDER FILE ...` writes both of each model FILE (or model folder) into FOLDER.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from safetensors.torch import save_file
from torch import Tensor

from wan_models.checkpoints.packed.gguf_blocks import BLOCKS
from wan_models.checkpoints.reader import open_model

GGUF_KIND = "Q8_0"
State = Mapping[str, Tensor]


def is_matrix(name: str, weight: Tensor) -> bool:
    """Whether a weight is of those that these formats make small."""
    return weight.dim() == 2 and "norm" not in name and "pos_embedding" not in name


def quantized(weight: Tensor, kind: str) -> np.ndarray:
    """Blocks of a weight [rows, columns], uint8 [rows, bytes]."""
    return quantize(weight.float().numpy(), GGMLQuantizationType[kind])


def write_gguf(
    path: Path,
    state: State,
    kind: str,
    architecture: str = "wan",
    fields: Any = (),
    pack: Callable[[Tensor, str], np.ndarray] = quantized,
) -> dict[str, Tensor]:
    """A GGUF file with matrices packed as `kind` and the rest as F32; returns the weights that it holds.

    fields: metadata, each the name of a method of GGUFWriter and its arguments."""
    writer = gguf.GGUFWriter(path, architecture)
    for add, *arguments in fields:
        getattr(writer, add)(*arguments)
    left = {}
    for name, weight in state.items():
        values = weight.float().contiguous().numpy()
        if (
            kind not in ("F32", "F16")
            and is_matrix(name, weight)
            and weight.shape[1] % BLOCKS[kind].values == 0
        ):
            raw = pack(weight, kind)
            writer.add_tensor(name, raw, raw_dtype=GGMLQuantizationType[kind])
            values = dequantize(raw, GGMLQuantizationType[kind])
        else:
            if kind == "F16" and is_matrix(name, weight):
                values = values.astype(np.float16)
            if values.ndim > 4:  # as converters do
                writer.add_array(f"comfy.gguf.orig_shape.{name}", list(values.shape))
                writer.add_tensor(name, values.reshape(values.shape[0], -1))
            else:
                writer.add_tensor(name, values)
        left[name] = torch.from_numpy(np.asarray(values, dtype=np.float32)).reshape(weight.shape).clone()
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return left


def write_scaled_fp8(
    path: Path,
    state: State,
    dtype: torch.dtype = torch.float8_e4m3fn,
    style: str = "older",
    prefix: str = "",
    extra: State | None = None,
    others: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """Scaled 8-bit floats as ComfyUI's repackaged files have them; returns the weights that the file holds.

    style: "older" (scale_weight) or "newer" (comfy_quant) names. extra: what else is in the file. others: of weights
    that are no matrices."""
    out, left = dict(extra or {}), {}
    for name, weight in state.items():
        if not is_matrix(name, weight):
            out[prefix + name] = weight.to(others).contiguous()
            left[name] = out[prefix + name].float()
            continue
        scale = weight.float().abs().amax() / torch.finfo(dtype).max
        out[prefix + name] = (weight.float() / scale).to(dtype)
        left[name] = out[prefix + name].float() * scale
        module = prefix + name.removesuffix(".weight")
        if style == "older":
            out[f"{module}.scale_weight"] = scale
            out[f"{module}.scale_input"] = torch.tensor(1.0)
        else:
            described = json.dumps({"format": str(dtype).removeprefix("torch.")}).encode()
            out[f"{module}.comfy_quant"] = torch.tensor(list(described), dtype=torch.uint8)
            out[f"{module}.weight_scale"] = scale
    if style == "older":
        out[f"{prefix}scaled_fp8"] = torch.empty(2, dtype=dtype)
    save_file(out, path)
    return left


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="where the copies go")
    parser.add_argument("models", type=Path, nargs="+", help="model files or folders")
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    for model in chosen.models:
        state = dict(open_model(model))
        write_scaled_fp8(chosen.folder / f"{model.stem}_fp8_scaled.safetensors", state)
        write_gguf(chosen.folder / f"{model.stem}_{GGUF_KIND}.gguf", state, GGUF_KIND)


if __name__ == "__main__":
    main()
