"""The same weights written in the formats that people have, and what is left of them where a format rounds."""

import io
import json
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from safetensors.torch import save_file

from wan_models.checkpoints.gguf_blocks import BLOCKS
from wan_models.checkpoints.keys import to_foreign

# where in a block its half-precision numbers lie, and sizes that give weights of about 1 / 16
_K_SCALES = {
    "Q4_K": ((0, 2.5e-4), (2, 2e-3)), "Q5_K": ((0, 1.2e-4), (2, 2e-3)), "Q6_K": ((208, 6e-5),),
    "Q3_K": ((108, 2e-3),), "Q2_K": ((80, 2e-3), (82, 3e-3)),
}  # fmt: skip


def is_matrix(name, weight):
    return weight.dim() == 2 and "norm" not in name and "pos_embedding" not in name


def packed(weight, kind):
    """Blocks of a weight, uint8 [rows, bytes]; of the K formats, which nobody packs in Python, random ones."""
    if kind not in _K_SCALES:
        return quantize(weight.float().numpy(), GGMLQuantizationType[kind])
    rows, columns = weight.shape
    chance = np.random.default_rng(rows * columns)
    raw = chance.integers(0, 256, (rows, columns // BLOCKS[kind].values, BLOCKS[kind].bytes), dtype=np.uint8)
    for place, scale in _K_SCALES[kind]:
        halves = np.full((*raw.shape[:2], 1), scale, dtype=np.float16)
        raw[:, :, place : place + 2] = halves.view(np.uint8)
    return raw.reshape(rows, -1)


def write_gguf(path: Path, state, kind, architecture="wan", fields=()):
    """A GGUF file with matrices packed as `kind` and the rest as F32; returns the weights that it holds."""
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
            raw = packed(weight, kind)
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


def write_scaled_fp8(path: Path, state, dtype=torch.float8_e4m3fn, style="older", prefix="", extra=None):
    """Scaled fp8 as the host's repackaged files have it; returns the weights that it holds."""
    out, left = dict(extra or {}), {}
    for name, weight in state.items():
        if not is_matrix(name, weight):
            out[prefix + name] = left[name] = weight.float().contiguous()
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


def write_diffusers(folder: Path, scheme, state, config=None):
    """A folder of the diffusers layout: config.json and one safetensors file under foreign names."""
    folder.mkdir(parents=True)
    names = to_foreign(scheme, state)
    save_file(
        {names[k]: v.contiguous() for k, v in state.items()}, folder / "diffusion_pytorch_model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps(config or {}))


def vocabulary():
    """A small SentencePiece model of UMT5's kind as bytes, and the same as arguments of a GGUF writer."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["two cats surf in the evening sun"] * 9), model_writer=model, vocab_size=100,
        hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    described = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    fields = [
        ("add_tokenizer_model", "t5"),
        ("add_token_list", [piece.piece for piece in described.pieces]),
        ("add_token_scores", [piece.score for piece in described.pieces]),
        ("add_token_types", [piece.type for piece in described.pieces]),
        ("add_precompiled_charsmap", described.normalizer_spec.precompiled_charsmap),
        ("add_eos_token_id", 1),
        ("add_unk_token_id", 2),
    ]
    return model.getvalue(), fields
