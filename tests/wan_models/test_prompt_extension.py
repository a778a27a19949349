"""Prompt extension: what is asked, what is taken from an answer, and models in a folder."""

import contextlib
import json
import time

import pytest
import torch
from PIL import Image
from tiny_language import write_qwen, write_qwen_vl

from wan_models.prompt.extension import MAX_PIXELS, TASKS, clean_answer, language_of, question
from wan_models.prompt.language_model import LanguageModel, is_language_model

RED, BLUE = (Image.new("RGB", (280, 200), colour) for colour in ("red", "blue"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("LLM")
    write_qwen(root / "qwen2", generation=2)
    write_qwen(root / "qwen3")
    write_qwen_vl(root / "qwen2.5-vl")
    return root


# --- what is asked ---


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("a cat", "en"),
        ("一只猫", "zh"),
        ("一只猫在冲浪, Pixar style", "zh"),
        ("a neon sign that says 咖啡", "en"),
        ("サーフィンをするネコ", "en"),
        ("", "en"),
    ],
)
def test_language_of(text, language):
    assert language_of(text) == language


@pytest.mark.parametrize("task", TASKS)
def test_each_task_has_instructions_in_both_languages(task):
    asked = {language: question(task, "一只猫 a cat", language) for language in ("zh", "en")}
    assert "用中文回答" in asked["zh"].instructions and "Answer in English" in asked["en"].instructions
    assert language_of(asked["zh"].instructions) == "zh" and language_of(asked["en"].instructions) == "en"
    assert all(q.text == "一只猫 a cat" for q in asked.values())
    assert question(task, "一只猫").instructions == asked["zh"].instructions
    others = {question(other, "a cat").instructions for other in TASKS}
    assert len(others) == len(TASKS)


@pytest.mark.parametrize("language", ["zh", "en"])
def test_instructions_say_whether_the_image_is_seen(language):
    plain, shown, unseen = (
        question(*args).instructions
        for args in (("TI2V", "a", language), ("TI2V", "a", language, RED), ("I2V", "a", language))
    )
    seen_words = {"zh": "已给你看", "en": "is shown to you"}[language]
    unseen_words = {"zh": "你看不到", "en": "cannot see the picture"}[language]
    assert seen_words in shown and seen_words not in plain + unseen
    assert unseen_words in unseen and unseen_words not in plain + shown


def test_an_image_may_stand_alone_and_is_made_small_enough():
    asked = question("I2V", "  ", "auto", Image.new("RGBA", (4000, 3000), "red"))
    assert asked.text.startswith("(No idea") and asked.image.mode == "RGB"
    width, height = asked.image.size
    assert 0.98 * MAX_PIXELS < width * height <= MAX_PIXELS and abs(width / height - 4 / 3) < 0.01
    assert question("I2V", "go", "auto", RED).image.size == RED.size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("T2V", " \n"), "prompt is empty"),
        (("TI2V", ""), "prompt is empty"),
        (("T2V", "a cat", "auto", RED), "leave the image out"),
        (("V2V", "a cat"), "'V2V'"),
        (("T2V", "a cat", "fr"), "'fr'"),
    ],
)
def test_questions_without_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        question(*arguments)


# --- what an answer holds ---


@pytest.mark.parametrize(
    "answer",
    [
        "A cat surfs.",
        "  \nA cat\n\nsurfs. ",
        '"A cat surfs."',
        "“A cat surfs.”",
        "「A cat surfs.」",
        '<think>\nThe user wants a cat: "cat".\n</think>\n\nA cat surfs.',
        "It was begun in the template.</think>A cat surfs.",
        "<think></think>A cat surfs.<think>and now",
        "Prompt: A cat surfs.",
        "**Rewritten Prompt:** A cat surfs.",
        "### Extended video prompt\uff1a\nA cat surfs.",
        'Sure! Here is the rewritten prompt:\n\n"A cat surfs."',
        "Here's your extended prompt for the video: A cat surfs.",
        "改写后的提示词：A cat surfs.",
        "好的，以下是扩写后的提示词：\n“A cat surfs.”",
        "```text\nA cat surfs.\n```",
        'Output: "A cat surfs."',
    ],
)
def test_answers_are_cleaned(answer):
    assert clean_answer(answer) == "A cat surfs."


@pytest.mark.parametrize(
    "answer",
    [
        '"Stop", says a man, and the sign reads "open"',
        'A sign reads "open"',
        "Here is a quiet harbour at dawn: boats rock on the water.",
        "The prompter of a theatre whispers: all look up.",
        "提示牌上写着：“开门”",
        "'Tis the cat's board that the cats ride'",
        "Sure-footed goats climb a wall.",
    ],
)
def test_what_belongs_to_the_prompt_stays(answer):
    assert clean_answer(answer) == answer


@pytest.mark.parametrize(
    "answer", ["", " \n", '""', "“”", "Prompt:", "``````", "<think>I see", "<think>a</think>"]
)
def test_nothing_left_is_an_error(answer):
    with pytest.raises(ValueError, match=r"gave no prompt\. Yours is as it was") as error:
        clean_answer(answer, ", or more max_tokens")
    assert ("max_tokens" in str(error.value)) == ("think" in answer)


@pytest.mark.parametrize(
    "piece",
    [
        "<think>",
        "</think>",
        "<think></think>",
        "Prompt: ",
        "```",
        "``` ",
        "*",
        " * ",
        "“",
        "new ",
        "的",
        "Sure: ",
    ],
)
def test_no_answer_takes_long_to_clean(piece):
    for text in (
        piece * 300_000,
        "```" + piece * 12_000 + "A cat",
        piece * 12_000 + "\n" * 40_000 + "A cat.",
    ):
        started = time.process_time()
        with contextlib.suppress(ValueError):
            clean_answer(text)
        assert time.process_time() - started < 5
    with pytest.raises(ValueError, match=r"of 600001 characters and no prompt\. Yours is as it was"):
        clean_answer("a cat " * 100_000 + "!")


# --- a model in a folder ---


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "qwen2.5-vl"])
def test_a_seed_is_a_text(folders, name, seed):
    model = LanguageModel(folders / name)
    asked, state = question("T2V", "a cat on a surfboard"), torch.random.get_rng_state()
    first = model.answer(asked, seed, max_tokens=24)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(seed + 1)
    again = LanguageModel(folders / name).answer(asked, seed, 0.7, 24)
    assert model.answer(asked, seed, max_tokens=24) == first == again
    texts = {model.answer(asked, seed + n, temperature=1.5, max_tokens=24) for n in range(4)}
    assert len(texts) == 4
    greedy = {model.answer(asked, seed + n, temperature=0, max_tokens=24) for n in range(3)}
    assert len(greedy) == 1
    assert (
        model.answer(question("T2V", "海上的暴风雨，闪电划过夜空，巨浪拍打黑色礁石"), 1, 0, 24) not in greedy
    )
    assert model.answer(question("TI2V", "a cat on a surfboard"), 1, 0, 24) not in greedy


def test_the_image_changes_the_answer(folders):
    model = LanguageModel(folders / "qwen2.5-vl")
    red, blue, again, none = (
        model.answer(question("I2V", "go", "en", image), 1, 0, 40) for image in (RED, BLUE, RED.copy(), None)
    )
    assert red == again and len({red, blue, none}) == 3


@pytest.mark.parametrize("image", [None, RED])
def test_the_likeliest_answer_is_that_of_the_librarys_own_path(folders, image):
    import transformers as t

    folder = folders / "qwen2.5-vl"
    reader, network = (
        kind.from_pretrained(folder) for kind in (t.AutoProcessor, t.Qwen2_5_VLForConditionalGeneration)
    )
    asked = question("TI2V", "go", "en", image)
    words = [{"type": "text", "text": asked.text}]
    chat = [
        {"role": "system", "content": [{"type": "text", "text": asked.instructions}]},
        {"role": "user", "content": ([] if image is None else [{"type": "image", "image": image}]) + words},
    ]
    inputs = reader.apply_chat_template(
        chat, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    out = network.generate(**inputs, do_sample=False, max_new_tokens=40)
    expected = reader.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert LanguageModel(folder).answer(asked, 0, 0, 40) == expected


def test_thinking_is_switched_off_in_the_template(tmp_path):
    template = "{% if enable_thinking is defined and not enable_thinking %}ok{% else %}{{ 1 / 0 }}{% endif %}"
    write_qwen(tmp_path / "a", template=template)
    assert LanguageModel(tmp_path / "a").answer(question("T2V", "a cat"), 0, max_tokens=4)


def test_the_precision_of_the_file_is_kept(tmp_path):
    write_qwen_vl(tmp_path / "half", dtype=torch.bfloat16)
    model = LanguageModel(tmp_path / "half")
    assert {weight.dtype for weight in model.network.parameters()} == {torch.bfloat16}
    assert clean_answer(model.answer(question("I2V", "go", "en", RED), 1, max_tokens=24))


def test_a_text_model_refuses_an_image(folders):
    with pytest.raises(ValueError, match=r"qwen3 cannot see the image.*Qwen2\.5-VL"):
        LanguageModel(folders / "qwen3").answer(question("I2V", "go", "en", RED), 0)


def test_progress_is_reported_at_every_layer_and_may_end_the_work(folders):
    model, heard = LanguageModel(folders / "qwen3"), []
    model.answer(question("T2V", "a cat"), 3, max_tokens=10, on_progress=lambda *now: heard.append(now))
    assert heard == sorted(heard) and heard[0] == (0, 10) and heard[-1][0] == 9
    assert all(heard.count((n, 10)) == 3 for n in range(10))  # the network and its two layers

    class Cancelled(Exception):
        pass

    def cancel(done, total):
        if done == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        model.answer(question("T2V", "a cat"), 3, max_tokens=10, on_progress=cancel)
    heard_before = len(heard)
    model.answer(question("T2V", "a cat"), 3, max_tokens=10)
    assert len(heard) == heard_before  # nobody listens any more


def test_folders_that_are_no_language_model(folders, tmp_path):
    assert all(is_language_model(folder) for folder in folders.iterdir())
    cases = {
        "empty": (None, "holds no language model"),
        "no json": ("{", "holds no language model"),
        "no list": ('["Qwen2ForCausalLM"]', "holds no language model"),
        "other": (
            '{"model_type": "vit", "architectures": ["ViTForImageClassification"]}',
            "holds no language model",
        ),
    }
    for name, (text, message) in cases.items():
        (tmp_path / name).mkdir()
        if text:
            (tmp_path / name / "config.json").write_text(text)
        assert not is_language_model(tmp_path / name)
        with pytest.raises(ValueError, match=message):
            LanguageModel(tmp_path / name)
    assert not is_language_model(tmp_path / "missing")
    with pytest.raises(ValueError, match="holds no language model"):
        LanguageModel(tmp_path / "missing")


def changed(folder, **entries):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | entries))


def test_folders_that_cannot_be_used(tmp_path):
    write_qwen(tmp_path / "base", template=None)
    with pytest.raises(ValueError, match="base has no chat template"):
        LanguageModel(tmp_path / "base")
    changed(write_qwen(tmp_path / "packed"), quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(ValueError, match="weights are quantized"):
        LanguageModel(tmp_path / "packed")
    (write_qwen(tmp_path / "gone") / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="gone holds no language model"):
        LanguageModel(tmp_path / "gone")


def test_code_in_a_folder_never_runs_and_nothing_is_asked(tmp_path, monkeypatch):
    folder = write_qwen(tmp_path / "bomb")
    (folder / "model_code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    code = {"AutoConfig": "model_code.C", "AutoModelForCausalLM": "model_code.M"}
    changed(folder, auto_map=code, model_type="unheard-of")
    monkeypatch.setattr("builtins.input", lambda *text: pytest.fail("the user was asked"))
    with pytest.raises(ValueError, match="bomb holds no language model"):
        LanguageModel(folder)
    assert not (tmp_path / "ran").exists()
