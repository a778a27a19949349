"""Prompts -> token ids, with the official cleaning. Prompt weights like (word:1.2) are literal text."""

import html
from pathlib import Path

import ftfy
import torch
from torch import Tensor

FILES = "tokenizer.json (or spiece.model) and tokenizer_config.json"


def clean(text: str) -> str:
    """Mends broken encodings, resolves HTML entities and makes any run of white space one blank."""
    import regex  # comes with transformers; its white space is not quite that of `re`

    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return regex.sub(r"\s+", " ", text).strip()


class WanTokenizer:
    """A transformers tokenizer folder in the layout of google/umt5-xxl; nothing is ever downloaded.

    Raises ValueError where the folder or a file in it is missing or broken."""

    def __init__(self, folder: str | Path, text_len: int = 512) -> None:
        from transformers import AutoTokenizer  # slow to import, and not needed to list nodes

        folder = Path(folder)
        if not folder.is_dir():
            raise ValueError(f"no tokenizer folder {folder}: it must hold {FILES} of google/umt5-xxl")
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # the library raises many kinds for missing and broken files
            raise ValueError(f"{folder} holds no usable tokenizer ({error}); it must hold {FILES}") from error
        self.text_len = text_len

    def __call__(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Prompts -> ids and mask, int64 [B, text_len]; longer prompts are cut, the end token kept."""
        out = self.tokenizer(
            [clean(text) for text in texts],
            padding="max_length",
            truncation=True,
            max_length=self.text_len,
            add_special_tokens=True,
        )
        return torch.tensor(out["input_ids"]), torch.tensor(out["attention_mask"])
