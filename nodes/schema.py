"""What the nodes' schemas share."""

import inspect
from typing import Any

from comfy_api.latest import io

CATEGORY = "Wan2.2"
POSITIVE = "The prompt: positive of WanT5Encode, or what a conditioning node made of it."
NEGATIVE = "The negative prompt, of the same node as positive; not looked at where CFG is 1."
_HAS_ALIASES = "search_aliases" in inspect.signature(io.Schema).parameters


def schema(node_id: str, title: str, aliases: list[str], **parts: Any) -> io.Schema:
    """A node's schema in our category; `aliases` are found by the search of hosts that have them."""
    if _HAS_ALIASES:
        parts["search_aliases"] = aliases
    folder = parts.pop("folder")
    return io.Schema(node_id=node_id, display_name=title, category=f"{CATEGORY}/{folder}", **parts)
