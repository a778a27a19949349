"""Texts for parts of a video -> one CONDITIONING, which says what tokens are for what latent frames."""

from typing import Any

import comfy.sd
import node_helpers

from ...wan_models.dit.text_schedule import Schedule, Segment
from ...wan_models.text.timeline import TimedText, latent_frames, parse
from ...wan_models.text.tokenizer import clean
from ...wan_models.wording import frames_between
from ..host_types import Conditioning
from .hosted.models import SCHEDULE_KEY
from .text_encoder import TEXT_LEN, TOKENS, encode_prompt

Tokens = list[tuple[Any, ...]]
"""The host's: (id, weight) each, and more where it was asked for."""


def encode_schedule(
    clip: comfy.sd.CLIP, lines: str, frames: int, fps: float, strength: float
) -> tuple[Conditioning, str]:
    """CONDITIONING of lines of text for a video of so many frames, see `timeline.parse`, and a report on each line.

    strength: factor on the penalties of looks from outside of a segment. One text for the whole video is encoded as
    `encode_prompt` does. Raises ValueError where the lines cannot be read, and where all texts are more than a model
    looks at."""
    texts = parse(lines, frames, fps)
    if len(texts) == 1 or clip is None:
        return encode_prompt(clip, texts[0].text), _report(texts, frames)
    key, bodies, end = _tokenized(clip, [one.text for one in texts])
    count = sum(map(len, bodies)) + 1
    if count > TEXT_LEN:
        raise ValueError(
            f"the texts of the schedule have {count} tokens together, and Wan models look at {TEXT_LEN}: shorten them, "
            "or say what they have in common in one line without a range"
        )
    tokens: Tokens = [token for body in bodies for token in body] + end
    encoded = clip.encode_from_tokens_scheduled({key: [tokens[:TEXT_LEN]]})
    segments, first = [], 0
    for one, body in zip(texts, bodies, strict=True):
        if one.start is not None and one.stop is not None:
            segments.append(Segment(first, first + len(body), one.start, one.stop))
        first += len(body)
    if segments and strength:
        schedule = Schedule(tuple(segments), latent_frames(frames), strength)
        encoded = node_helpers.conditioning_set_values(encoded, {SCHEDULE_KEY: schedule.plain()})
    return encoded, _report(texts, frames)


def _tokenized(clip: comfy.sd.CLIP, texts: list[str]) -> tuple[str, list[Tokens], Tokens]:
    """The host's name for the tokens, those of each text without its end, and the end with the padding after it."""
    bodies, end = [], []
    for text in texts:
        tokens = clip.tokenize(clean(text), disable_weights=True)
        if TOKENS not in tokens:
            raise ValueError(
                f"a schedule needs the text encoder of Wan, UMT5, and this one is another ({', '.join(tokens)}): load "
                "it with WanT5Loader"
            )
        (pairs,) = tokens[TOKENS]
        last = max(index for index, pair in enumerate(pairs) if pair[0] != 0)  # the end; padding is 0
        bodies.append(pairs[:last])
        # the host's tokenizer pads to as many as the models look at, and ours does not
        end = [pairs[last], *pairs[last + 1 :][:1] * TEXT_LEN]
    return TOKENS, bodies, end


def _report(texts: list[TimedText], frames: int) -> str:
    """A line for each text: its frames and how it begins."""
    lines = []
    for one in texts:
        where = "all frames"
        if one.start is not None and one.stop is not None:
            first, last = (_first_frame(latent, frames) for latent in (one.start, one.stop))
            where = frames_between(first, last - 1)
        lines.append(f"{where}: {one.text if len(one.text) <= 60 else one.text[:57] + '...'}")
    return "\n".join(lines)


def _first_frame(latent: int, frames: int) -> int:
    return 4 * latent if frames % 4 == 0 or latent == 0 else 4 * latent - 3
