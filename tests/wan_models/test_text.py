"""UMT5 against the official encoder and transformers' one; tokens against the official tokenizer."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests_support import randomize_, rel_l2

from training.tiny_tokenizer import write_tokenizer
from wan_models.config import T5Config
from wan_models.text.tokenizer import WanTokenizer, clean
from wan_models.text.umt5 import UMT5Encoder

TINY = {"dim": 48, "dim_attn": 32, "dim_ffn": 96, "num_heads": 4, "num_layers": 3, "num_buckets": 32}
CONFIG = T5Config(vocab_size=101, text_len=200, **TINY)


def pair(official, std=0.3):
    from wan.modules.t5 import T5Encoder

    reference = randomize_(T5Encoder(101, shared_pos=False, **TINY), std=std).eval()
    with torch.device("meta"):
        ours = UMT5Encoder(CONFIG).eval()
    ours.load_state_dict(reference.state_dict(), assign=True)
    return reference, ours


def prompts(lengths, length):
    mask = torch.zeros(len(lengths), length, dtype=torch.long)
    for row, n in enumerate(lengths):
        mask[row, :n] = 1
    return torch.randint(0, 101, mask.shape) * mask, mask


@torch.no_grad()
def test_encoder_equals_official(official, seed):
    """Long enough that all position buckets are used."""
    reference, ours = pair(official)
    ids, mask = prompts([150, 1, 37], 150)
    expected = reference(ids, mask)
    assert rel_l2(ours(ids, mask), expected) < 1e-5
    encoded = ours.encode(ids, mask)
    assert encoded.shape == (3, 200, 48)
    for row, n in enumerate([150, 1, 37]):
        assert rel_l2(encoded[row, :n], expected[row, :n]) < 1e-5
        assert not encoded[row, n:].any()


@torch.no_grad()
def test_encoder_equals_transformers(official, seed):
    from transformers import UMT5Config, UMT5EncoderModel

    _, ours = pair(official)
    theirs = UMT5EncoderModel(
        UMT5Config(
            vocab_size=101,
            d_model=48,
            d_kv=8,
            d_ff=96,
            num_layers=3,
            num_heads=4,
            feed_forward_proj="gated-gelu",
        )
    ).eval()
    weights = {
        "shared.weight": ours.token_embedding.weight,
        "encoder.final_layer_norm.weight": ours.norm.weight,
    }
    for i, block in enumerate(ours.blocks):
        attention, feed_forward = f"encoder.block.{i}.layer.0.", f"encoder.block.{i}.layer.1."
        for name in "qkvo":
            weights[f"{attention}SelfAttention.{name}.weight"] = getattr(block.attn, name).weight
        weights[attention + "SelfAttention.relative_attention_bias.weight"] = (
            block.pos_embedding.embedding.weight
        )
        weights[attention + "layer_norm.weight"] = block.norm1.weight
        weights[feed_forward + "layer_norm.weight"] = block.norm2.weight
        weights[feed_forward + "DenseReluDense.wi_0.weight"] = block.ffn.gate[0].weight
        weights[feed_forward + "DenseReluDense.wi_1.weight"] = block.ffn.fc1.weight
        weights[feed_forward + "DenseReluDense.wo.weight"] = block.ffn.fc2.weight
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    assert not unexpected and set(missing) <= {"encoder.embed_tokens.weight"}
    ids, mask = prompts([40, 9], 40)
    expected = theirs(input_ids=ids, attention_mask=mask).last_hidden_state
    found = ours(ids, mask)
    assert rel_l2(found[0], expected[0]) < 1e-5
    assert rel_l2(found[1, :9], expected[1, :9]) < 1e-5


@torch.no_grad()
def test_bfloat16_is_as_near_to_float32_as_the_official_code(official, seed):
    """Over eight draws: a single one's error is as much as 1.2 times the official one's, or as little as 0.6."""
    errors, official_errors = [], []
    for _ in range(8):
        reference, ours = pair(official, std=0.15)
        ids, mask = prompts([60, 33], 60)
        exact = reference(ids, mask)
        official_errors.append(rel_l2(reference.to(torch.bfloat16)(ids, mask), exact))
        half = UMT5Encoder(CONFIG).to(torch.bfloat16)
        half.compute_dtype = torch.bfloat16
        half.load_state_dict(ours.state_dict())
        found = half(ids, mask)
        assert found.dtype == torch.bfloat16
        errors.append(rel_l2(found, exact))
    assert sum(errors) <= sum(official_errors) < 8 * 0.06


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release") / "google" / "umt5-xxl"
    write_tokenizer(folder)
    return folder


@pytest.mark.parametrize(
    "prompt", ["", "a cat on a surfboard", "  A &amp;amp; B\n\tC ", "(word:1.2) [x]", "静态 🙂", "cat " * 900]
)
def test_tokens_equal_official(official, tokenizer_folder, prompt):
    from wan.modules.tokenizers import HuggingfaceTokenizer

    reference = HuggingfaceTokenizer(name=str(tokenizer_folder), seq_len=512, clean="whitespace")
    ids, mask = reference([prompt], return_mask=True, add_special_tokens=True)
    found_ids, found_mask = WanTokenizer.from_folder(tokenizer_folder)([prompt])
    assert torch.equal(found_ids, ids) and torch.equal(found_mask, mask)
    assert found_ids[0, int(mask.sum()) - 1] == 1  # the end token is never cut off


def test_cleaning_equals_official(official):
    from wan.modules.tokenizers import basic_clean, whitespace_clean

    @settings(max_examples=100, deadline=None)
    @given(st.text())
    def check(text):
        assert clean(text) == whitespace_clean(basic_clean(text))

    check()


def test_missing_and_broken_tokenizers_say_so(tmp_path):
    with pytest.raises(ValueError, match="no tokenizer folder"):
        WanTokenizer.from_folder(tmp_path / "absent")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="holds no usable tokenizer"):
        WanTokenizer.from_folder(tmp_path)


@pytest.fixture(scope="module")
def sentencepiece_model():
    """A little SentencePiece vocabulary of UMT5's kind: unigram, byte fallback, pad 0 and end 1."""
    import io

    import sentencepiece

    model = io.BytesIO()
    text = ["two cats surf in the evening sun", "a cat in the rain, a dog on the road"] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_writer=model, vocab_size=320, hard_vocab_limit=False, byte_fallback=True,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    return model.getvalue()


def test_tokenizers_inside_files_agree(sentencepiece_model):
    """The spiece_model tensor and GGUF metadata of the same vocabulary give the same tokens."""
    from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

    processor = SentencePieceProcessor(model_proto=sentencepiece_model)
    described = sentencepiece_model_pb2.ModelProto.FromString(sentencepiece_model)
    fields = {
        "tokenizer.ggml.tokens": [piece.piece for piece in described.pieces],
        "tokenizer.ggml.scores": [piece.score for piece in described.pieces],
        "tokenizer.ggml.token_type": [piece.type for piece in described.pieces],
        "tokenizer.ggml.precompiled_charsmap": list(described.normalizer_spec.precompiled_charsmap),
        "tokenizer.ggml.unknown_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
    }
    assert len(fields["tokenizer.ggml.precompiled_charsmap"]) > 1000
    plain = WanTokenizer.from_sentencepiece(sentencepiece_model)
    gguf = WanTokenizer.from_gguf(fields.get)
    for prompt in [
        "two cats surf",
        "evening sun, rain! 猫 🏄",
        "ｆｕｌｌ ｗｉｄｔｈ  ﬁne",
        "",
        "a cat " * 400,
    ]:
        ids, mask = plain([prompt])
        assert ids.tolist() == gguf([prompt])[0].tolist()
        expected = [*processor.encode(clean(prompt)), 1]
        assert ids[0, : mask.sum()].tolist() == (expected if len(expected) <= 512 else [*expected[:511], 1])


def test_broken_tokenizer_inside_a_file_says_so():
    with pytest.raises(ValueError, match="tokenizer inside the text encoder file is broken"):
        WanTokenizer.from_sentencepiece(b"nonsense")
