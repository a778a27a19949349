"""Prompts -> token ids, with the official cleaning. Prompt weights like (word:1.2) are literal text."""

import html
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ftfy
import torch
from torch import Tensor

from ..checkpoints.reader import Checkpoint
from ..files import walk_files

_SPIECE = "spiece_model"  # the tensor in which repackaged encoders carry their tokenizer
FILES = "tokenizer.json (or spiece.model) and tokenizer_config.json"


def clean(text: str) -> str:
    """Mends broken encodings, resolves HTML entities and makes any run of white space one blank."""
    import regex  # comes with transformers; its white space is not quite that of `re`

    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return regex.sub(r"\s+", " ", text).strip()


def find_folder(place: Path) -> Path | None:
    """The first folder at or below `place` that holds a tokenizer's files; links are followed. None where none is."""
    return next((file.parent for file in walk_files(place, names=("tokenizer.json", "spiece.model"))), None)


class TokenizerNotFoundError(ValueError):
    """A text encoder without a tokenizer. folder: where one is looked for."""

    def __init__(self, file: Path, folder: Path) -> None:
        super().__init__(
            f"No tokenizer was found for {file.name}. Put the folder google/umt5-xxl of the official release "
            f"(tokenizer.json, tokenizer_config.json, spiece.model) beside the file, that is into {folder}."
        )
        self.folder = folder


def find_tokenizer(file: Checkpoint, places: Iterable[Path] = ()) -> "WanTokenizer":
    """The tokenizer that belongs to an encoder's checkpoint as it is stored: the one inside it, else in a folder at or
    below its own, else in one at or below `places`. Raises TokenizerNotFoundError, and ValueError on a broken one."""
    if spiece := next((name for name in file if name.rpartition(".")[2] == _SPIECE), None):
        return WanTokenizer.from_sentencepiece(bytes(file[spiece].tolist()))
    if file.gguf and file.gguf.field("tokenizer.ggml.tokens"):
        return WanTokenizer.from_gguf(file.gguf.field)
    folder = file.path if file.path.is_dir() else file.path.parent
    # in a diffusers folder the tokenizer lies beside the encoder's own folder
    for place in (folder, folder.parent / "tokenizer", *places):
        if found := find_folder(place):
            return WanTokenizer.from_folder(found)
    raise TokenizerNotFoundError(file.path, folder)


class WanTokenizer:
    """Prompts -> token ids of UMT5, from any of the places where its vocabulary is found; nothing is downloaded."""

    def __init__(self, encode: Callable[[str], list[int]], text_len: int = 512) -> None:
        """encode: text -> ids, the end token last."""
        self._encode = encode
        self.text_len = text_len

    @classmethod
    def from_folder(cls, folder: str | Path, text_len: int = 512) -> "WanTokenizer":
        """A folder of files in the layout of google/umt5-xxl; ValueError where it or a file is missing or broken."""
        from transformers import AutoTokenizer  # slow to import, and not needed to list nodes

        folder = Path(folder)
        if not folder.is_dir():
            raise ValueError(f"no tokenizer folder {folder}: it must hold {FILES} of google/umt5-xxl")
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # the library raises many kinds for missing and broken files
            raise ValueError(f"{folder} holds no usable tokenizer ({error}); it must hold {FILES}") from error
        return cls(lambda text: tokenizer(text, add_special_tokens=True)["input_ids"], text_len)

    @classmethod
    def from_sentencepiece(cls, model: bytes, text_len: int = 512) -> "WanTokenizer":
        """The bytes of a spiece.model, as repackaged encoder files carry them; ValueError where they are broken."""
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError:
            raise ValueError(
                "this text encoder file carries a SentencePiece tokenizer, which needs a package: "
                "pip install sentencepiece"
            ) from None
        try:
            processor = SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError(f"the tokenizer inside the text encoder file is broken ({error})") from None
        return cls(lambda text: [*processor.encode(text), processor.eos_id()], text_len)

    @classmethod
    def from_gguf(cls, field: Callable[[str], Any], text_len: int = 512) -> "WanTokenizer":
        """The vocabulary in a GGUF file's metadata, read through `field(name)`."""
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

        pieces = list(zip(field("tokenizer.ggml.tokens"), field("tokenizer.ggml.scores"), strict=True))
        kinds = field("tokenizer.ggml.token_type") or []
        unknown, end = (field(f"tokenizer.ggml.{name}_token_id") for name in ("unknown", "eos"))
        has_bytes = _BYTE_TOKEN in kinds
        tokenizer = Tokenizer(models.Unigram(pieces, unk_id=_or(unknown, 2), byte_fallback=has_bytes))
        steps: list[Any] = [normalizers.Replace(Regex(" {2,}"), " ")]
        if charsmap := field("tokenizer.ggml.precompiled_charsmap"):
            steps.insert(0, normalizers.Precompiled(bytes(value & 255 for value in charsmap)))
        tokenizer.normalizer = normalizers.Sequence(steps)
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        return cls(lambda text: [*tokenizer.encode(text).ids, _or(end, 1)], text_len)

    def __call__(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Prompts -> ids and mask, int64 [B, text_len]; longer prompts are cut, the end token kept."""
        ids = torch.zeros(len(texts), self.text_len, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, text in enumerate(texts):
            tokens = self._encode(clean(text))
            if len(tokens) > self.text_len:
                tokens = [*tokens[: self.text_len - 1], tokens[-1]]
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        return ids, mask


_BYTE_TOKEN = 6  # in GGUF's list of token types


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
