"""The same weights written in the formats that people have, and what is left of them where a format rounds."""

import io
import json
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.torch import save_file

from training import copies
from training.copies import quantized
from wan_models.checkpoints.keys import to_foreign
from wan_models.checkpoints.packed.gguf_blocks import BLOCKS

# where in a block its half-precision numbers lie, and sizes that give weights of about 1 / 16
_K_SCALES = {
    "Q4_K": ((0, 2.5e-4), (2, 2e-3)), "Q5_K": ((0, 1.2e-4), (2, 2e-3)), "Q6_K": ((208, 6e-5),),
    "Q3_K": ((108, 2e-3),), "Q2_K": ((80, 2e-3), (82, 3e-3)),
}  # fmt: skip


def packed(weight, kind):
    """Blocks of a weight, uint8 [rows, bytes]; of the K formats, which nobody packs in Python, random ones."""
    if kind not in _K_SCALES:
        return quantized(weight, kind)
    rows, columns = weight.shape
    chance = np.random.default_rng(rows * columns)
    raw = chance.integers(0, 256, (rows, columns // BLOCKS[kind].values, BLOCKS[kind].bytes), dtype=np.uint8)
    for place, scale in _K_SCALES[kind]:
        halves = np.full((*raw.shape[:2], 1), scale, dtype=np.float16)
        raw[:, :, place : place + 2] = halves.view(np.uint8)
    return raw.reshape(rows, -1)


write_gguf = partial(copies.write_gguf, pack=packed)
write_scaled_fp8 = copies.write_scaled_fp8


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
