"""Several prompts in one CONDITIONING, one for each clip of a long video.

The CONDITIONING is that of the first prompt, so any node samples that one; the others wait among its options. Options
that nodes add to it on the way are those of every clip.
"""

import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..host_types import Conditioning

CLIP_PROMPTS = "wan_clip_prompts"
"""Option of an encoded text that holds what stands in its place in each clip, from the first one on."""


def split(text: str) -> list[str]:
    """The prompts in a text, which blank lines or | part. ValueError where there is none."""
    prompts = [part.strip() for part in re.split(r"\||\n\s*\n", text) if part.strip()]
    if not prompts:
        raise ValueError(
            "prompts holds no text: write one prompt for each clip, with blank lines between them"
        )
    return prompts


def in_turn(prompts: Sequence[Conditioning]) -> Conditioning:
    """One CONDITIONING that holds these, the first clip's first; all are of one text encoder."""
    first = prompts[0]
    if len(prompts) == 1:
        return first
    return [
        _entry(text, {**options, CLIP_PROMPTS: [prompt[place] for prompt in prompts]})
        for place, (text, options) in enumerate(first)
    ]


def count(conditioning: Conditioning) -> int:
    """Number of clips after which the prompt stays the same."""
    return max((len(options.get(CLIP_PROMPTS, ())) for _, options in conditioning), default=0) or 1


def of_clip(conditioning: Conditioning, index: int) -> Conditioning:
    """CONDITIONING of a clip by its number from 0; the last prompt is that of all later clips too.

    Each of several that were combined gives its own, and options that nodes have added count in every clip."""
    chosen: Conditioning = []
    for text, options in conditioning:
        added = {name: value for name, value in options.items() if name != CLIP_PROMPTS}
        clips = options.get(CLIP_PROMPTS) or [(text, {})]
        mine, own = clips[min(index, len(clips) - 1)]
        chosen.append(_entry(mine, added | own))
    return chosen


def _entry(text: Tensor, options: dict[str, Any]) -> Any:
    """An entry of a CONDITIONING: a list, which some nodes write into."""
    return [text, options]
