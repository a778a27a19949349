"""Prompts -> token ids, with the official cleaning. Prompt weights like (word:1.2) are literal text."""

import html
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.json_text import read_object
from ..checkpoints.reader import Checkpoint
from ..files import walk_files

_SPIECE = "spiece_model"  # the tensor in which repackaged encoders carry their tokenizer
_MAX_BYTES = 32 * 2**20  # of a SentencePiece model; UMT5's has 4.5 MB
_MAX_TEXT = 4 * 2**20  # of all tokens of a vocabulary, in UTF-8; UMT5's have about 2 MB
_JSON = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "config.json",
)
FILES = "tokenizer.json (or spiece.model) and tokenizer_config.json"


def clean(text: str) -> str:
    """Mends broken encodings, resolves HTML entities and makes any run of white space one blank."""
    import ftfy
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
        return _named(file.path, lambda: WanTokenizer.from_sentencepiece(_bytes_of(file, spiece)))
    if (gguf := file.gguf) and gguf.field("tokenizer.ggml.tokens"):
        return _named(file.path, lambda: WanTokenizer.from_gguf(gguf.field))
    folder = file.path if file.path.is_dir() else file.path.parent
    # in a diffusers folder the tokenizer lies beside the encoder's own folder
    for place in (folder, folder.parent / "tokenizer", *places):
        if tokenizer_folder := find_folder(place):
            return WanTokenizer.from_folder(tokenizer_folder)
    raise TokenizerNotFoundError(file.path, folder)


def _named(path: Path, make: Callable[[], "WanTokenizer"]) -> "WanTokenizer":
    """Result of `make` for a file; its ValueErrors name the file."""
    try:
        return make()
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _bytes_of(file: Checkpoint, name: str) -> bytes:
    """The bytes that a tensor holds. Raises ValueError where it cannot be a tokenizer."""
    shape, dtype = file.shapes[name], file.dtypes[name]
    if dtype not in (torch.uint8, torch.int8) or math.prod(shape) > _MAX_BYTES:
        raise ValueError(f"{name} of shape {list(shape)} and type {dtype} is no tokenizer")
    return file[name].numpy().tobytes()


class WanTokenizer:
    """Prompts -> token ids of UMT5, from any of the places where its vocabulary is found; nothing is downloaded."""

    def __init__(self, encode: Callable[[str], list[int]], text_len: int = 512) -> None:
        """encode: text -> ids, the end token last."""
        self._encode = encode
        self.text_len = text_len
        self.vocab_size: int | None = None
        """Rows of the encoder's table, where it is known. Other ids would stop a GPU for good."""

    @classmethod
    def from_folder(cls, folder: str | Path, text_len: int = 512) -> "WanTokenizer":
        """A folder of files in the layout of google/umt5-xxl; ValueError where it or a file is missing or broken."""
        from transformers import AutoTokenizer  # slow to import, and needed for folders alone

        folder = Path(folder)
        if not folder.is_dir():
            raise ValueError(f"no tokenizer folder {folder}: it must hold {FILES} of google/umt5-xxl")
        with _as_value_error(f"{folder} holds no usable tokenizer", f"; it must hold {FILES}"):
            for file in (folder / name for name in _JSON):  # the library knows no bounds
                if file.is_file():
                    stated = read_object(file)
                    _check_size(_texts_in([stated.get("model"), stated.get("added_tokens")]))
            if (spiece := folder / "spiece.model").is_file() and spiece.stat().st_size > _MAX_BYTES:
                raise ValueError("spiece.model is too large")
            tokenizer = AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
            return cls._tried(lambda text: tokenizer(text, add_special_tokens=True)["input_ids"], text_len)

    @classmethod
    def _tried(cls, encode: Callable[[str], list[int]], text_len: int) -> "WanTokenizer":
        """Tries words and signs that few vocabularies have, which a broken one fails at. Raises ValueError where what
        comes out are no ids."""
        tokenizer = cls(encode, text_len)
        ids = encode("a cat 二 \U0001f600")
        if not 0 < len(ids) <= text_len or not all(0 <= number < 2**31 for number in ids):
            raise ValueError("it makes no list of tokens of a word")
        return tokenizer

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
        with _as_value_error("the tokenizer inside the text encoder file is broken"):
            processor = SentencePieceProcessor(model_proto=model)
            return cls._tried(lambda text: [*processor.encode(text), processor.eos_id()], text_len)

    @classmethod
    def from_gguf(cls, field: Callable[[str], Any], text_len: int = 512) -> "WanTokenizer":
        """The vocabulary in a GGUF file's metadata, read through `field(name)`."""
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

        tokens = _listed(field, "tokens", str)
        scores = _listed(field, "scores", float)
        kinds = _listed(field, "token_type", int)
        unknown, end = (_number(field, f"{name}_token_id", len(tokens)) for name in ("unknown", "eos"))
        _check_size(tokens)
        if len(scores) != len(tokens):
            raise ValueError(f"its tokenizer has {len(tokens):,} tokens and {len(scores):,} scores")
        with _as_value_error("its tokenizer is broken"):
            pieces, has_bytes = list(zip(tokens, scores, strict=True)), _BYTE_TOKEN in kinds
            tokenizer = Tokenizer(models.Unigram(pieces, unk_id=_or(unknown, 2), byte_fallback=has_bytes))
            steps: list[Any] = [normalizers.Replace(Regex(" {2,}"), " ")]
            if charsmap := _listed(field, "precompiled_charsmap", int):
                steps.insert(0, normalizers.Precompiled(bytes(value & 255 for value in charsmap)))
            tokenizer.normalizer = normalizers.Sequence(steps)
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
            return cls._tried(lambda text: [*tokenizer.encode(text).ids, _or(end, 1)], text_len)

    def __call__(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Prompts -> ids and mask, int64 [B, text_len]; longer prompts are cut, the end token kept. Raises ValueError
        where the tokenizer is another encoder's."""
        ids = torch.zeros(len(texts), self.text_len, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, text in enumerate(texts):
            tokens = self._encode(clean(text))
            if len(tokens) > self.text_len:
                tokens = [*tokens[: self.text_len - 1], tokens[-1]]
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        if self.vocab_size is not None and int(ids.max()) >= self.vocab_size:
            raise ValueError(
                f"the tokenizer makes the token {int(ids.max())}, and the text encoder has {self.vocab_size}: they do "
                "not belong together. Use the google/umt5-xxl folder of the official release"
            )
        return ids, mask


_BYTE_TOKEN = 6  # in GGUF's list of token types


@contextmanager
def _as_value_error(problem: str, what_to_do: str = "") -> Iterator[None]:
    """Ends whatever a library raises on a broken vocabulary as a ValueError that begins with the problem."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # what ends a thread of the tokenizers library is no Exception
        why = (str(error) or type(error).__name__)[:500]
        raise ValueError(f"{problem} ({why}){what_to_do}") from None


def _check_size(texts: Iterable[str]) -> None:
    """ValueError on a vocabulary whose search tree would take more than a gigabyte."""
    if sum(len(text.encode()) for text in texts) > _MAX_TEXT:
        raise ValueError(f"its tokens have more than {_MAX_TEXT:,} bytes")


def _texts_in(data: list[Any]) -> Iterator[str]:
    """All texts in what a JSON text says, keys too."""
    while data:
        value = data.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from value
            data += value.values()
        elif isinstance(value, list):
            data += value


def _listed(field: Callable[[str], Any], name: str, kind: type) -> list[Any]:
    """A list of GGUF's metadata; [] where there is none. Raises ValueError on one of other things, or not finite."""
    values = field(f"tokenizer.ggml.{name}")
    if values is None:
        return []
    if not isinstance(values, list) or not all(type(value) is kind for value in values):
        raise ValueError(f"its tokenizer.ggml.{name} is no list of the right kind")
    if kind is float and not all(map(math.isfinite, values)):
        raise ValueError(f"its tokenizer.ggml.{name} are not all numbers")
    return values


def _number(field: Callable[[str], Any], name: str, end: int) -> int | None:
    value = field(f"tokenizer.ggml.{name}")
    if value is not None and not (type(value) is int and 0 <= value < end):
        raise ValueError(f"its tokenizer.ggml.{name} is no token")
    return value


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
