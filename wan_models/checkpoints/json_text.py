"""JSON of model files, read with bounds: small texts can be made that unfold to gigabytes, or mean two things."""

import json
from pathlib import Path
from typing import Any

from .errors import CheckpointError

_MAX_BYTES = 64 * 2**20  # of a file; the tokenizer of UMT5-XXL has 17 MB
_MAX_VALUES = 4_000_000


def parse(raw: bytes) -> Any:
    """Value of a JSON text. Raises ValueError where it is none, is nested too deep, has too many values, says the
    same key twice, or holds numbers and texts that JSON does not know (NaN, halves of characters)."""
    # each value but the first follows one of these
    if sum(raw.count(sign) for sign in (b",", b":", b"[", b"{")) > _MAX_VALUES:
        raise ValueError("it has millions of values")
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=_mapping, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def read_object(file: Path) -> dict[str, Any]:
    """JSON object of a file. Raises CheckpointError where it cannot be read or is none."""
    try:
        size = file.stat().st_size
        if size > _MAX_BYTES:
            raise ValueError(f"it has {size:,} bytes")
        data = parse(file.read_bytes())
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{file} cannot be read as JSON ({error}): download it again") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{file} is not a JSON object: download it again")
    return data


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"{twice[:200]!r} is there twice")
    for key, value in pairs:
        for text in (key, value):
            if isinstance(text, str) and not text.isascii():
                text.encode("utf-8")  # halves of characters cannot be written anywhere
    return mapping


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of JSON")
