"""Tokenizer and training of the text encoder: whatever a caption tells can be read off its features."""

import random
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wan_models.config import NEGATIVE_PROMPT
from wan_models.models import build_network
from wan_models.random_weights import random_state_dict
from wan_models.text.encoder import TextEncoder
from wan_models.text.tokenizer import WanTokenizer
from wan_models.text.umt5 import UMT5Encoder

from .loop import Schedule, train
from .sizes import TEXT_DIM, text_encoder
from .tiny_tokenizer import write_tokenizer
from .world.faces import Face
from .world.figures import Figure
from .world.objects import Objects
from .world.words import WORDS, Facts, caption, some_facts, vocabulary

_BATCH = 128
_FACTS_OF = (Objects.draw, Objects.draw, lambda rng: Face.draw(rng, 1), Figure.draw)


def make_tokenizer(folder: Path) -> tuple[WanTokenizer, int]:
    """Writes the tokenizer of the world's words into `folder`/google/umt5-xxl, and returns it with its number of
    tokens."""
    english, chinese = vocabulary()
    phrases = [*chinese, *NEGATIVE_PROMPT.split("，"), "，"]
    place = folder / "google" / "umt5-xxl"
    size = write_tokenizer(place, " ".join(english), phrases)
    return WanTokenizer.from_folder(place), size


class _Reader(nn.Module):
    """Reads each aspect off text features, as a transformer would: by attention of a learnt query."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(len(WORDS), TEXT_DIM) * TEXT_DIM**-0.5)
        self.keys = nn.Linear(TEXT_DIM, TEXT_DIM)
        self.answers = nn.ModuleList(nn.Linear(TEXT_DIM, len(values) + 1) for values in WORDS.values())

    def forward(self, features: Tensor, mask: Tensor) -> list[Tensor]:
        """Features [B, L, C], mask [B, L] -> for each aspect the scores of its values, the last one for "not told"."""
        scores = (self.keys(features) @ self.queries.T).masked_fill(mask[..., None] == 0, -1e4)
        read = torch.einsum("bla,blc->abc", scores.softmax(dim=1), features)
        return [answer(part) for answer, part in zip(self.answers, read, strict=True)]


class _EncoderAndReader(nn.Module):
    def __init__(self, encoder: UMT5Encoder) -> None:
        super().__init__()
        self.encoder, self.reader = encoder, _Reader()


def make_text_encoder(
    tokenizer: WanTokenizer, vocabulary_size: int, schedule: Schedule, folder: Path
) -> TextEncoder:
    """A trained text encoder."""
    torch.manual_seed(schedule.seed)
    config = text_encoder(vocabulary_size)
    encoder = build_network(config).to_empty(device="cpu")
    encoder.load_state_dict(random_state_dict(lambda: UMT5Encoder(config), schedule.seed))
    both = _EncoderAndReader(encoder.requires_grad_(True))

    def loss(generator: torch.Generator) -> Tensor:
        rng = random.Random(int(torch.randint(2**31, (), generator=generator)))
        told = [_told(rng) for _ in range(_BATCH)]
        ids, mask = tokenizer([_said(facts, rng) for facts in told])
        longest = int(mask.sum(dim=1).max())
        ids, mask = ids[:, :longest], mask[:, :longest]
        answers = both.reader(encoder(ids, mask), mask)
        return sum(
            (F.cross_entropy(scores, torch.tensor([_answer(aspect, facts) for facts in told]))
            for scores, aspect in zip(answers, WORDS, strict=True)),
            start=torch.zeros(()),
        )  # fmt: skip

    train("text_encoder", both, loss, schedule, folder)
    return TextEncoder(encoder.requires_grad_(False), tokenizer)


def _told(rng: random.Random) -> Facts:
    if rng.random() < 0.05:
        return {}
    return some_facts(rng.choice(_FACTS_OF)(rng).facts, rng)


def _said(facts: Facts, rng: random.Random) -> str:
    return caption(facts, rng) if facts else rng.choice(["", NEGATIVE_PROMPT])


def _answer(aspect: str, facts: Facts) -> int:
    return list(WORDS[aspect]).index(facts[aspect]) if aspect in facts else len(WORDS[aspect])
