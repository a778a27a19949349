"""UMT5 as the host's CLIP: our tokenizer and encoder behind the calls the host's text nodes make."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import comfy.model_management
import comfy.sd
import torch
from torch import Tensor

from ...wan_models.checkpoints.files.stamp import Stamp
from ...wan_models.checkpoints.loading import load_into
from ...wan_models.checkpoints.reader import Checkpoint
from ...wan_models.config import T5Config
from ...wan_models.models import build_network, open_text_encoder
from ...wan_models.text.tokenizer import WanTokenizer, clean
from ...wan_models.text.umt5 import UMT5Encoder
from .. import compat, folders
from .hints import check_mapped, loader_hints
from .packed import quantized
from .packed.layers import has_packed, ops, set_unpacked_dtype
from .packed.patcher import packed_patcher

DTYPES = {"default": None, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TEXT_LEN = T5Config.text_len
TOKENS = "umt5xxl"  # the key under which the host's own Wan text encoder files its tokens


class HostTokenizer:
    """Text -> the host's token lists [(id, weight)], one list per prompt. Text is literal: no (word:1.2) weights."""

    def __init__(self, tokenizer: WanTokenizer) -> None:
        self.tokenizer = tokenizer

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **options: Any) -> dict:
        ids, mask = self.tokenizer([text])
        tokens = ids[0][: int(mask.sum())].tolist()
        return {TOKENS: [[(token, 1.0, 0) if return_word_ids else (token, 1.0) for token in tokens]]}

    def untokenize(self, token_weight_pair: list) -> list:
        return [(pair, str(pair[0])) for pair in token_weight_pair]

    def state_dict(self) -> dict:
        return {}


class RemoteEncoder(Protocol):
    """Computes a network's features somewhere else."""

    def __call__(self, network: "HostUMT5", ids: Tensor, mask: Tensor) -> Tensor:
        """As `UMT5Encoder.encode`."""
        ...


class HostUMT5(UMT5Encoder):
    """`UMT5Encoder` under the calls the host's CLIP makes of its text models."""

    execution_device: torch.device | None = None
    remote: RemoteEncoder | None = None
    """Slot for what computes elsewhere; the network then stays on the meta device."""
    stamps: tuple[Stamp, ...] = ()

    @property
    def dtypes(self) -> set[torch.dtype]:
        return {self.compute_dtype}

    def set_clip_options(self, options: dict) -> None:
        self.execution_device = options.get("execution_device", self.execution_device)

    def reset_clip_options(self) -> None:
        """Called by the host before it loads the weights for a prompt, with nothing to reset: layers to stop at and
        projections are options of CLIP models, not of this one."""
        check_mapped(self.stamps)

    def encode_token_weights(self, tokens: dict) -> tuple[Tensor, None]:
        """Token lists -> ([B, text_len, dim], no pooled output); rows past the text are zero."""
        if TOKENS not in tokens:
            raise ValueError(
                f"these tokens were made by another text encoder ({', '.join(tokens)}), not by UMT5"
            )
        batch = tokens[TOKENS]
        ids = torch.zeros(len(batch), self.config.text_len, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, pairs in enumerate(batch):
            pairs = pairs[: self.config.text_len]
            ids[row, : len(pairs)] = torch.tensor([int(pair[0]) for pair in pairs])
            mask[row, : len(pairs)] = 1
        if self.remote is not None:
            encoded = self.remote(self, ids, mask)
        else:
            device = self.execution_device or comfy.model_management.text_encoder_device()
            encoded = self.encode(ids.to(device), mask.to(device), on_layer=_check_cancelled)
        return encoded.to(comfy.model_management.intermediate_device(), torch.float32), None

    def load_sd(self, sd: dict) -> Any:
        return self.load_state_dict(sd, strict=False)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        return self if self.remote is not None else super()._apply(fn, recurse)


def _check_cancelled(_done: int, _total: int) -> None:
    comfy.model_management.throw_exception_if_processing_interrupted()


def build(
    path: str | Path, dtype: str, device: str = "default", keep_packed: bool = False
) -> tuple[comfy.sd.CLIP, Checkpoint]:
    """A CLIP as of `load_text_encoder` whose network has no weights yet, and the checkpoint that they are in.

    keep_packed: for layers that hold packed weights as they are stored."""
    with loader_hints():
        checkpoint, info, tokenizer = open_text_encoder(path, folders.release_roots())
    compute = DTYPES[dtype] or info.compute_dtype

    def network(device: Any, dtype: torch.dtype, model_options: dict) -> HostUMT5:  # noqa: ARG001  the host calls it so
        layers = quantized.layers(checkpoint, dtype) if keep_packed else None
        encoder = build_network(info.config, layers or ops, dtype, HostUMT5)
        set_unpacked_dtype(encoder, dtype)
        return encoder

    cpu = torch.device("cpu")
    # on CPU the host would "load" at once, which must wait until the weights are there
    options: dict[str, Any] = {"dtype": compute, "initial_device": torch.device("meta")}
    if device == "cpu":
        options |= {"load_device": cpu, "offload_device": cpu}
    target = SimpleNamespace(params={}, clip=network, tokenizer=lambda **_: HostTokenizer(tokenizer))
    return comfy.sd.CLIP(target, parameters=info.parameters, model_options=options), checkpoint


def load_text_encoder(path: str | Path, dtype: str = "default", device: str = "default") -> comfy.sd.CLIP:
    """Loads a UMT5 encoder as a CLIP.

    dtype: of weights and computation, one of `DTYPES`; "default" is the file's own (bfloat16 in the official one),
    and bfloat16 over weights that stay packed or in 8 bits.
    device: "default" is the host's choice, "cpu" keeps it off the GPU.
    Raises CheckpointError (a ValueError) where the file is broken or holds something else."""
    as_in_file = dtype == "default"
    clip, checkpoint = build(path, dtype, device, keep_packed=as_in_file)
    network = clip.cond_stage_model

    def convert(_name: str, weight: Tensor) -> Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        return weight.to(network.compute_dtype)

    load_into(network, checkpoint, None if as_in_file else convert, keep_packed=as_in_file)
    if has_packed(network):
        clip.patcher = packed_patcher(clip.patcher)
    network.stamps = checkpoint.stamps
    network.execution_device = clip.patcher.load_device
    compat.archive_dtypes(network)
    return clip


def encode_prompt(clip: comfy.sd.CLIP, text: str) -> list:
    """CONDITIONING of a prompt by any CLIP; token lists of a host's own CLIP are cut where the models were trained."""
    if clip is None:
        raise ValueError("no text encoder is connected: load one with WanT5Loader")
    tokens = clip.tokenize(clean(text), disable_weights=True)
    cut = {key: [_cut(batch, TEXT_LEN) for batch in batches] for key, batches in tokens.items()}
    return clip.encode_from_tokens_scheduled(cut)


def _cut(pairs: list, length: int) -> list:
    """A token list of at most `length`, its last token (the end of the text) kept."""
    return pairs if len(pairs) <= length else [*pairs[: length - 1], pairs[-1]]
