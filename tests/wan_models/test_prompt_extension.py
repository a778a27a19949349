"""Prompt extension: what is asked, what is taken from an answer, models in a folder, an endpoint that misbehaves."""

import base64
import contextlib
import gzip
import io
import itertools
import json
import logging
import socket
import threading
import time
import traceback
import tracemalloc
import zlib
from urllib.parse import urlsplit

import pytest
import torch
from chat_server import ChatServer, RawServer, completion, refusal
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from processes import wait_for
from tiny_language import write_qwen, write_qwen_vl

from wan_models.prompt import chat_endpoint
from wan_models.prompt.chat_endpoint import DASHSCOPE, Endpoint, answer, endpoint
from wan_models.prompt.extension import MAX_PIXELS, TASKS, clean_answer, language_of, question
from wan_models.prompt.language_model import LanguageModel, is_language_model

KEY = "sk-do-not-tell-0123456789"
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
        (("T2V", "a cat", "auto", RED), "disconnect the image"),
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
        clean_answer(answer)
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


# --- which key goes where ---


OWN = {"WAN_PROMPT_API_KEY": "w", "WAN_PROMPT_BASE_URL": "https://models.example/v1"}


@pytest.mark.parametrize(
    ("address", "environment", "expected"),
    [
        (DASHSCOPE, {"DASHSCOPE_API_KEY": "d"}, "d"),
        ("", {"DASHSCOPE_API_KEY": "d"}, "d"),
        (DASHSCOPE, {"WAN_PROMPT_API_KEY": "w", "DASHSCOPE_API_KEY": "d"}, "w"),
        ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", {"DASHSCOPE_API_KEY": "d"}, "d"),
        ("https://api.openai.com/v1", {"OPENAI_API_KEY": "o", "DASHSCOPE_API_KEY": "d"}, "o"),
        ("", OWN, "w"),
        ("https://MODELS.example/v2/", OWN, "w"),
        ("https://models.example.:443/v1", OWN, "w"),
        ("https://api.openai.com:443/v1", {"OPENAI_API_KEY": "o"}, "o"),
        (
            "http://[0:0::1]:8000/v1",
            {"WAN_PROMPT_API_KEY": "w", "WAN_PROMPT_BASE_URL": "http://[::1]:8000"},
            "w",
        ),
    ],
)
def test_a_key_goes_to_its_address(address, environment, expected):
    assert endpoint(address, "m", environment).key == expected


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.example/v1",
        "http://dashscope.aliyuncs.com/v1",
        "https://dashscope.aliyuncs.com.evil.example/v1",
        "https://dashscope.aliyuncs.com:8443/v1",
        "https://models.example:444/v1",
        "http://127.0.0.1:8000/v1",
        "http://models.example:443/v1",
        "https://models.example.evil.example/v1",
        "https://xn--models-example.evil.example/v1",
        "https://[::1]/v1",
    ],
)
def test_no_key_goes_elsewhere(address):
    assert endpoint(address, "m", OWN | {"DASHSCOPE_API_KEY": "d", "OPENAI_API_KEY": "o"}).key == "none"


@pytest.mark.parametrize(
    ("address", "environment", "message"),
    [
        (DASHSCOPE, {}, "WAN_PROMPT_API_KEY or DASHSCOPE_API_KEY$"),
        (DASHSCOPE, {"OPENAI_API_KEY": "o", "DASHSCOPE_API_KEY": " "}, "DASHSCOPE_API_KEY"),
        ("https://api.openai.com/v1", {"DASHSCOPE_API_KEY": "d"}, "OPENAI_API_KEY"),
        ("dashscope", {}, "must be an address"),
        ("ftp://a/v1", {}, "must be an address"),
        ("http://a:b/v1", {}, "must be an address"),
        ("http://[::1/v1", {}, "must be an address"),
        (f"https://me:{KEY}@a/v1", {}, "address alone"),
        (f"https://a/v1?key={KEY}", {}, "address alone"),
        (f"https://{KEY}@a/v1", {}, "address alone"),
        (f"https://@a/v1#{KEY}", {}, "address alone"),
        ("https://a/v1?", {}, "address alone"),
        ("https://api.openai.com\\@evil.example/v1", {}, r"none has \(U\+005C\)"),
        ("https://a/v1\r\nX-Key: 1", {}, r"none has \(U\+000D\)"),
        ("https://a\x00.example/v1", {}, r"none has \(U\+0000\)"),
        ("https://a\t.example/v1", {}, r"none has \(U\+0009\)"),
        ("https://a .example/v1", {}, "must be an address"),
        ("https://a\u202e.example/v1", {}, r"none has \(U\+202E\)"),
        ("https://a\ud800.example/v1", {}, r"none has \(U\+D800\)"),
        ("https://a..example/v1", {}, "must be an address"),
        ("https://./v1", {}, "must be an address"),
        ("https://-a/v1", {}, "must be an address"),
        (f"https://{'a' * 64}.example/v1", {}, "must be an address"),
        ("https://[fe80::1::2]/v1", {}, "must be an address"),
        ("https://a:70000/v1", {}, "must be an address"),
        ("https://a%2eb/v1", {}, "must be an address"),
        ("file:///etc/passwd", {}, "must be an address"),
        ("", {"WAN_PROMPT_BASE_URL": "models"}, "WAN_PROMPT_BASE_URL must be an address"),
        ("", {"DASHSCOPE_API_KEY": f"{KEY}\n{KEY}"}, "key in DASHSCOPE_API_KEY has characters"),
        ("", {"DASHSCOPE_API_KEY": f"{KEY}\u200b"}, "key in DASHSCOPE_API_KEY has characters"),
    ],
)
def test_addresses_and_keys_that_are_missing(address, environment, message):
    with pytest.raises(ValueError, match=message) as error:
        endpoint(address, "m", environment)
    assert KEY not in str(error.value)


@given(
    st.text(max_size=40),
    st.sampled_from(["", "https://api.openai.com", "http://[", "https://a@", "http://a:"]),
)
def test_any_text_is_an_address_or_explained(text, prefix):
    message, where = "", None
    try:
        where = endpoint(prefix + text, "m", {"OPENAI_API_KEY": KEY, "DASHSCOPE_API_KEY": KEY})
    except ValueError as error:
        message = str(error)
    if where is None:
        assert message.startswith("base_url must be an address") and message.isprintable()
    else:
        asked = urlsplit(where.base_url)
        assert asked.hostname and where.base_url.isascii() and where.base_url.isprintable()
        own = asked.scheme == "https" and asked.hostname in ("api.openai.com", "dashscope.aliyuncs.com")
        assert (where.key == KEY) == (own and asked.port is None)


@pytest.mark.parametrize("address", ["https://api.openai.com/v1", "https://api.openai.com./v1"])
def test_an_account_at_openai_is_told_there_alone(address):
    account = {
        "OPENAI_ORG_ID": "org-1",
        "OPENAI_PROJECT_ID": "proj_1",
        "OPENAI_CUSTOM_HEADERS": "X-Secret: 1",
    }
    where = endpoint(address, "m", account | {"OPENAI_API_KEY": KEY})
    assert where.account == {"OpenAI-Organization": "org-1", "OpenAI-Project": "proj_1"}
    odd = account | {"OPENAI_API_KEY": KEY, "OPENAI_ORG_ID": "org\r\nX-Key: 1"}
    assert endpoint(address, "m", odd).account == {"OpenAI-Project": "proj_1"}
    own = {"WAN_PROMPT_API_KEY": "w", "WAN_PROMPT_BASE_URL": address}
    assert not endpoint(address, "m", account | own).account
    for other in (
        "http://127.0.0.1:1/v1",
        "http://api.openai.com/v1",
        "https://api.openai.com.evil.example/v1",
    ):
        assert not endpoint(other, "m", account | {"OPENAI_API_KEY": KEY}).account


def test_the_model_must_be_named():
    with pytest.raises(ValueError, match="model is empty"):
        endpoint("http://127.0.0.1:1/v1", " ", {})


# --- an endpoint that answers ---


def ask(server, key=KEY, image=None, **options):
    asked = question("TI2V", "a cat", "en", image)
    return answer(Endpoint(server.url, "model-1", key), asked, 2**40 + 7, **options)


def test_what_is_sent(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with ChatServer(completion("A cat surfs.")) as server:
        assert ask(server, image=RED, temperature=0.3) == "A cat surfs."
        assert ask(server, key="none") == "A cat surfs."
    (path, headers, body), (_, keyless, plain) = server.asked
    asked = question("TI2V", "a cat", "en", RED)
    assert path == "/v1/chat/completions" and headers["Authorization"] == f"Bearer {KEY}"
    assert "sk-" not in keyless["Authorization"]
    assert body["model"] == "model-1" and body["temperature"] == 0.3 and body["seed"] == 7
    assert "enable_thinking" not in body and KEY not in json.dumps(body)
    system, user = body["messages"]
    assert system == {"role": "system", "content": asked.instructions}
    picture, words = user["content"]
    assert words == {"type": "text", "text": "a cat"}
    kind, _, data = picture["image_url"]["url"].partition(",")
    sent = Image.open(io.BytesIO(base64.b64decode(data)))
    assert kind == "data:image/jpeg;base64" and sent.size == RED.size and sent.getpixel((9, 9))[0] > 240
    assert plain["messages"][1] == {"role": "user", "content": "a cat"}


def test_dashscope_is_told_not_to_think(monkeypatch):
    with ChatServer(completion("A cat surfs.")) as server:
        origin = server.url.removesuffix("/v1")
        monkeypatch.setitem(chat_endpoint.KEYS, "DASHSCOPE_API_KEY", (origin,))
        assert ask(server) == "A cat surfs."
    assert server.asked[0][2]["enable_thinking"] is False


@pytest.mark.parametrize("bad", [refusal(429), refusal(500), refusal(503), "close"])
def test_a_passing_fault_is_tried_again(bad):
    with ChatServer(bad, bad, completion("A cat surfs.")) as server:
        assert ask(server) == "A cat surfs."
    assert len(server.asked) == 3


ECHO = f"Incorrect API key: {'x' * 285} {KEY}"  # the key where an error is cut
JSON = {"Content-Type": "application/json"}
REFUSED = completion(None, refusal=f"I will not. {KEY}")
FAULTS = {
    "401": (refusal(401, ECHO), ValueError, r"refuses the key of WAN_PROMPT_API_KEY \(401\)", 1),
    "403": (refusal(403, ECHO), ValueError, r"refuses the key of WAN_PROMPT_API_KEY \(403\)", 1),
    "404": (refusal(404, "The model does not exist"), ValueError, "no model 'model-1'.*does not exist", 1),
    "400": (
        refusal(400, f"temperature must be 1 {KEY}"),
        ValueError,
        "refuses the question.*temperature must be 1",
        1,
    ),
    "400 cut": (refusal(400, ECHO), ValueError, "refuses the question", 1),
    "429": (
        refusal(429, f"quota {KEY}"),
        ConnectionError,
        "too many requests.*429, after 3 retries.*quota",
        4,
    ),
    "500": (refusal(500, ECHO), ConnectionError, r"fault of its own \(500, after 3 retries\)", 4),
    "500 page": ((500, b"<html>oops", {"retry-after-ms": "5"}), ConnectionError, "fault of its own", 4),
    "page": (
        (200, b"<html>" + KEY.encode(), {"Content-Type": "text/html"}),
        ConnectionError,
        "no chat completion",
        1,
    ),
    "no json": ((200, b"{", JSON), ConnectionError, "no chat completion", 1),
    "not utf-8": ((200, b"\xff\xfe\x00", JSON), ConnectionError, "no chat completion", 1),
    "a list": ((200, [KEY], {}), ConnectionError, "no chat completion", 1),
    "a number": ((200, 5, {}), ConnectionError, "no chat completion", 1),
    "null": ((200, None, {}), ConnectionError, "no chat completion", 1),
    "no choices": ((200, {"choices": []}, {}), ConnectionError, "no chat completion", 1),
    "odd choices": ((200, {"choices": [KEY]}, {}), ConnectionError, "no chat completion", 1),
    "no message": ((200, {"choices": [{"message": None}]}, {}), ConnectionError, "no chat completion", 1),
    "odd text": (
        (200, {"choices": [{"message": {"content": {"a": KEY}}}]}, {}),
        ConnectionError,
        "no chat",
        1,
    ),
    "no bytes": ((200, b"", JSON), ConnectionError, "no chat completion", 1),
    "refusal": (REFUSED, ValueError, "model-1 refuses this prompt .I will not", 1),
    "filter": (completion("", finish="content_filter"), ValueError, "refuses this prompt .content filter", 1),
    "closed": ("close", ConnectionError, "no server answers", 4),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_told_without_the_key(name, caplog):
    reply, kind, message, times = FAULTS[name]
    caplog.set_level(logging.DEBUG)
    with ChatServer(reply) as server, pytest.raises(kind, match=message) as error:
        ask(server)
    assert type(error.value) is kind and server.url in str(error.value) + server.url
    assert len(server.asked) == times
    shown = "".join(traceback.format_exception(error.value)) + caplog.text
    assert KEY not in shown and KEY[:12] not in str(error.value)
    assert error.value.__cause__ is None and error.value.__context__ is None


@pytest.mark.parametrize("text", ["", None, "<think>hm"])
def test_an_empty_answer_is_refused_when_it_is_cleaned(text):
    with ChatServer(completion(text)) as server, pytest.raises(ValueError, match="gave no prompt"):
        clean_answer(ask(server))


def test_a_key_in_an_answer_is_hidden():
    with ChatServer(completion(f"A cat with {KEY}.")) as server:
        assert ask(server) == "A cat with ***."
    assert KEY not in repr(Endpoint(server.url, "m", KEY))


def test_no_server():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
    with pytest.raises(ConnectionError, match=f"no server answers at {url}.*start it"):
        answer(Endpoint(url, "m", KEY), question("T2V", "a cat"), 0)


def drip(body):
    time.sleep(0.4)
    return refusal(500)


@pytest.mark.parametrize("reply", ["hang", drip])
def test_time_is_up_retries_included(reply):
    started = time.monotonic()
    with ChatServer(reply) as server, pytest.raises(TimeoutError, match=r"did not answer within 0\.6 s"):
        ask(server, timeout=0.6)
    assert time.monotonic() - started < 10


def test_waiting_can_be_ended():
    class Cancelled(Exception):
        pass

    heard, started = threading.Event(), time.monotonic()

    def on_progress(done, total):
        if heard.is_set():
            raise Cancelled
        heard.set()

    with ChatServer("hang") as server, pytest.raises(Cancelled):
        ask(server, on_progress=on_progress)
    assert time.monotonic() - started < 10


# --- an endpoint that wants more than to answer ---


ACCOUNT = {
    "OPENAI_ORG_ID": "org-secret",
    "OPENAI_PROJECT_ID": "proj-secret",
    "OPENAI_CUSTOM_HEADERS": "X-Mine: header-secret",
    "OPENAI_API_KEY": "sk-secret",
    "OPENAI_ADMIN_KEY": "admin-secret",
    "DASHSCOPE_API_KEY": "dashscope-secret",
}


def test_nothing_of_the_environment_is_told(monkeypatch):
    for name, value in ACCOUNT.items():
        monkeypatch.setenv(name, value)
    with ChatServer(completion("A cat surfs.")) as server:
        where = endpoint(server.url, "model-1", ACCOUNT)
        assert answer(where, question("T2V", "a cat"), 0) == "A cat surfs."
    ((_, headers, body),) = server.asked
    assert "secret" not in f"{headers.items()}{body}"
    known = {
        "Accept",
        "Accept-Encoding",
        "Authorization",
        "Connection",
        "Content-Length",
        "Content-Type",
        "Host",
    }
    assert set(headers) <= known | {"User-Agent"}


def redirect(status, target):
    return status, b"", {"Location": target}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:{port}/v1/chat/completions",
        "//localhost:{own}/v1",
        "https://127.0.0.1:{own}/v1",
        "http://user@127.0.0.1:{own}/v1",
        "http://[::1]:{own}/v1",
        "ftp://127.0.0.1:{own}/v1",
        "file:///etc/hostname",
        "http://[",
        "",
    ],
)
def test_a_question_is_not_sent_on_to_others(status, target):
    with ChatServer(completion("A cat surfs.")) as other, ChatServer("close") as server:
        own, port = (int(s.url.rsplit(":", 1)[1].split("/")[0]) for s in (server, other))
        server.replies = [redirect(status, target.format(own=own, port=port))]
        with pytest.raises(ValueError, match=f"{server.url} redirects .*base_url") as error:
            ask(server, image=RED)
    assert KEY not in str(error.value) and not other.asked and len(server.asked) <= 6


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("target", ["/v2/chat/completions/", "completions/"])
def test_a_question_may_be_sent_on_within_its_server(status, target):
    with ChatServer(redirect(status, target), completion("A cat surfs.")) as server:
        assert ask(server) == "A cat surfs."
    (_, _, body), (path, headers, again) = server.asked
    assert path.endswith(target) and body == again and headers["Authorization"] == f"Bearer {KEY}"


def test_redirects_end():
    with ChatServer(redirect(307, "/again")) as server, pytest.raises(ValueError, match="more than 5 times"):
        ask(server)
    assert len(server.asked) == 6


ZEROS = b"0" * (1 << 20)


def repeated(head, piece):
    """What a server writes: a head, and then a piece again and again."""
    return itertools.chain([head], itertools.repeat(piece))


ENDLESS = {
    "no length": (b"\r\n", ZEROS),
    "a length": (b"Content-Length: 999999999999\r\n\r\n", ZEROS),
    "chunks": (b"Transfer-Encoding: chunked\r\n\r\n", b"100000\r\n" + ZEROS + b"\r\n"),
    "one chunk": (b"Transfer-Encoding: chunked\r\n\r\nffffffffff\r\n", ZEROS),
    "a header": (b"X-Long: ", ZEROS),
    "headers": (b"", b"X-Many: 1\r\n" * 10_000),
}


def bomb(kind):
    """40 MB in some kilobytes."""
    body = json.dumps(completion("a cat " * 7_000_000)[1]).encode()
    return (
        200,
        gzip.compress(body) if kind == "gzip" else zlib.compress(body),
        {**JSON, "Content-Encoding": kind},
    )


@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_answer_is_not_kept(name):
    head, piece = ENDLESS[name]
    tracemalloc.start()
    try:
        with (
            RawServer(repeated(b"HTTP/1.1 200 OK\r\n" + head, piece)) as server,
            pytest.raises(ConnectionError, match=server.url),
        ):
            ask(server, timeout=20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32e6 and server.sent < 64e6


@pytest.mark.parametrize("kind", ["gzip", "deflate"])
def test_a_packed_answer_is_unpacked_within_bounds(kind):
    small, large = json.dumps(completion("A cat surfs.")[1]).encode(), bomb(kind)
    packed = gzip.compress(small) if kind == "gzip" else zlib.compress(small)
    with ChatServer((200, packed, {**JSON, "Content-Encoding": kind}), large) as server:
        assert ask(server) == "A cat surfs."
        tracemalloc.start()
        try:
            with pytest.raises(ConnectionError, match="is larger than 4 MB, which no prompt is"):
                ask(server)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert len(large[1]) < 200_000 and peak < 32e6


@pytest.mark.parametrize(
    "body", [b"[" * 2_000_000, b'{"a":' * 500_000, b"9" * 3_000_000, json.dumps(ZEROS.decode()).encode()]
)
def test_json_that_is_no_answer(body):
    with ChatServer((200, body, JSON)) as server, pytest.raises(ConnectionError, match="no chat completion"):
        ask(server)


DRIPS = {
    "head": (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a"),
    "body": (b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b" "),
    "trailer": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: 1\r\n"),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("name", DRIPS)
@pytest.mark.parametrize("ends", ["time", "cancel"])
def test_a_slow_answer_ends_with_the_time_or_cancel(name, ends):
    class Cancelled(Exception):
        pass

    started = time.monotonic()

    def on_progress(done, total):
        if ends == "cancel" and time.monotonic() - started > 0.5:
            raise Cancelled

    expected, timeout = (Cancelled, 60) if ends == "cancel" else (TimeoutError, 1)
    with RawServer(repeated(*DRIPS[name]), pause=0.05) as server:
        with pytest.raises(expected):
            ask(server, on_progress=on_progress, timeout=timeout)
        assert time.monotonic() - started < 10
        wait_for(lambda: not [t for t in threading.enumerate() if t.name == "prompt extension"])


def test_what_a_server_says_is_shown_as_plain_text():
    said = "no\x1b[31m\u202ered\nline"
    with ChatServer(refusal(400, said)) as server, pytest.raises(ValueError, match=r"no.*red") as error:
        ask(server)
    assert str(error.value).isprintable()


def test_half_a_character_is_no_part_of_a_prompt():
    with ChatServer(completion("A cat \ud83d surfs.")) as server:
        assert ask(server) == "A cat ? surfs."
