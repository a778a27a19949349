"""A small tokenizer folder in the layout of google/umt5-xxl, for the demo, the tests and the miniatures."""

import string
from collections.abc import Sequence
from pathlib import Path

from wan_models.config import NEGATIVE_PROMPT

WORDS = (
    "a an and are at behind beside bright by camera cat cinematic city close cloud cold colour dance dark day dog down "
    "evening eyes face fall field fire flies flower forest from golden grass green hand heavy her high his house in "
    "is it landscape light long man moon morning motion mountain moves night of old on over people quiet rain red "
    "river road run sand scene sea shadow shot sky slow small smoke snow soft star still stone storm street sun "
    "surf surfboard swim the their through to tree two under video view walk warm water wave white wide wind with "
    "woman young"
)
SPECIAL = ["<pad>", "</s>", "<s>", "<unk>"]  # ids 0 to 3, as in umt5


def write_tokenizer(folder: Path, words: str = WORDS, phrases: Sequence[str] = ()) -> int:
    """Writes the folder (made where absent) and returns the number of tokens.

    words: with blanks between them, tokens at a word's beginning. phrases: tokens anywhere: Chinese has no blanks."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    characters = sorted({*string.printable.strip(), *NEGATIVE_PROMPT} - {*phrases})
    pieces = [(token, 0.0) for token in SPECIAL]
    pieces += [("▁" + word, -4.0) for word in words.split()]  # likelier than their letters one by one
    pieces += [(phrase, -4.0) for phrase in phrases]
    pieces += [("▁", -6.0), *((character, -8.0) for character in characters)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])

    folder.mkdir(parents=True, exist_ok=True)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", bos_token="<s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return len(pieces)
