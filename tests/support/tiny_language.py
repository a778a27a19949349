"""Language models as transformers has them, small enough for tests: a Qwen2, a Qwen3 and a Qwen2.5-VL of random weights
that answer in words."""

import string

import torch

SENTENCE = "a cat surfs slowly on the golden wave at dusk and wind moves its fur while light falls from sky"
WORDS = SENTENCE.split()
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
           "<|video_pad|>"]  # fmt: skip
TEMPLATE = (
    "{%- for message in messages -%}<|im_start|>{{ message.role }}\n"
    "{%- if message.content is string -%}{{ message.content }}{%- else -%}{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>{%- else -%}{{ part.text }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}<|im_end|>\n{% endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"
)
BYTES = 256
FIRST_WORD = BYTES + len(SPECIAL)
VOCABULARY = FIRST_WORD + len(WORDS)


def _tokenizer(template, kind="PreTrainedTokenizerFast"):
    import transformers
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    assert len(letters) == BYTES and set(string.ascii_letters) < set(letters)
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL])
    # not split off what is read: only what is said is in words
    tokenizer.add_tokens([AddedToken(f" {word}~", normalized=False) for word in WORDS])
    assert tokenizer.get_vocab_size() == VOCABULARY
    return getattr(transformers, kind)(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=template,
        image_token="<|image_pad|>", video_token="<|video_pad|>", model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def _randomize(model, seed):
    """Weights large enough that every input tells on the answer, which is of words alone."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            scale = 1.0 if "embed_tokens" in name else 1.5 * weight[0].numel() ** -0.5
            # sharp attention: an answer hangs on single tokens, not on the mean of all
            scale *= 3.0 if "q_proj" in name or "k_proj" in name else 1.0
            weight.data = torch.randn(weight.shape, generator=generator) * scale
        elif "q_norm" in name or "k_norm" in name:
            weight.data *= 3.0
    head = model.get_output_embeddings().weight.data
    head[:FIRST_WORD] = 0
    head[FIRST_WORD:VOCABULARY] *= 2.5
    head[VOCABULARY:] = 0


def _text_config(layers=2, vocabulary=VOCABULARY):
    return {
        "vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": layers,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 16384, "eos_token_id": 258,
        "pad_token_id": 256, "bos_token_id": None, "tie_word_embeddings": False,
    }  # fmt: skip


def write_qwen(folder, seed=0, layers=2, template=TEMPLATE, generation=3, vocabulary=VOCABULARY):
    """Qwen2, or Qwen3 where generation is that and transformers knows it (from 4.51 on). A larger vocabulary has tokens
    that are never likeliest."""
    import transformers as t

    generation = generation if hasattr(t, "Qwen3ForCausalLM") else 2
    kind, config = (
        (t.Qwen3ForCausalLM, t.Qwen3Config) if generation == 3 else (t.Qwen2ForCausalLM, t.Qwen2Config)
    )
    model = kind(config(**_text_config(layers, vocabulary), **({"head_dim": 8} if generation == 3 else {})))
    _randomize(model, seed)
    model.save_pretrained(folder)
    _tokenizer(template).save_pretrained(folder)
    return folder


def write_qwen_vl(folder, seed=0, dtype=torch.float32):
    """Qwen2.5-VL, which sees."""
    import transformers as t

    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6}
    text = {**_text_config(), "rope_parameters": rope}
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32,
        "fullatt_block_indexes": [1], "window_size": 56,
    }  # fmt: skip
    tokens = {
        "image_token_id": 261,
        "video_token_id": 262,
        "vision_start_token_id": 259,
        "vision_end_token_id": 260,
    }
    is_old = not hasattr(t, "Qwen2VLVideoProcessor")  # before 4.52 videos are the image processor's
    if is_old:
        mrope = {"rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]}, "rope_theta": 1e6}
        config = t.Qwen2_5_VLConfig(**_text_config(), **mrope, vision_config=vision, **tokens)
    else:
        config = t.Qwen2_5_VLConfig(
            text_config=text, vision_config=vision, tie_word_embeddings=False, **tokens
        )
    model = t.Qwen2_5_VLForConditionalGeneration(config)
    _randomize(model, seed)
    model.to(dtype).save_pretrained(folder)
    if is_old:
        readers = [t.Qwen2VLImageProcessor(), _tokenizer(TEMPLATE, "Qwen2TokenizerFast")]
    else:
        readers = [t.Qwen2VLImageProcessor(), _tokenizer(TEMPLATE), t.Qwen2VLVideoProcessor()]
    t.Qwen2_5_VLProcessor(*readers, chat_template=TEMPLATE).save_pretrained(folder)
    return folder
