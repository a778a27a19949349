"""Longer prompts in the real host: by tiny models of models/LLM and by a server on this machine."""

import time

import numpy as np
import pytest
from chat_server import ChatServer, completion, refusal
from forked import ForkedHost
from graphs import node
from PIL import Image
from tiny_language import write_qwen, write_qwen_vl

from devhost.errors import HostError
from wan_models.prompt.chat_endpoint import DASHSCOPE, KEYS
from wan_models.prompt.extension import clean_answer, question
from wan_models.prompt.language_model import LanguageModel

KEY = "sk-do-not-tell-0123456789"
ENDPOINT = "OpenAI-compatible endpoint"
IDEA = "a cat on a surfboard"
LARGE = 600_000  # tokens, each of 2 x 32 weights of 4 bytes


@pytest.fixture(scope="module")
def chat():
    """The server that has a key: the host knows it by its environment."""
    with ChatServer(completion("unused")) as server:
        yield server


@pytest.fixture(scope="module")
def host(comfyui, chat, tmp_path_factory):
    """A host of its own, for its environment and models."""
    base = tmp_path_factory.mktemp("prompts")
    models = base / "models" / "LLM"
    models.mkdir(parents=True)
    write_qwen(models / "qwen")
    write_qwen(models / "endless", layers=48, seed=1)
    write_qwen_vl(models / "qwen-vl")
    write_qwen(models / "large", vocabulary=LARGE)
    write_qwen(models / "no template", template=None)
    (models / "pictures").mkdir()
    (models / "pictures" / "config.json").write_text('{"architectures": ["ViTForImageClassification"]}')
    (base / "input").mkdir()
    for colour in ("red", "blue"):
        Image.new("RGB", (280, 200), colour).save(base / "input" / f"{colour}.png")
    with pytest.MonkeyPatch.context() as patch:
        for name in KEYS:
            patch.delenv(name, raising=False)
        patch.setenv("WAN_PROMPT_API_KEY", KEY)
        patch.setenv("WAN_PROMPT_BASE_URL", chat.url)
        with ForkedHost(comfyui, base=base) as server:
            yield server


def graph(prompt=IDEA, image=None, **inputs):
    """The node, and another one that shows the text at its output."""
    settings = {"task": "T2V", "language": "auto", "model": "qwen", "seed": 1, "max_tokens": 24}
    out = {}
    if image:
        out["picture"] = node("LoadImage", image=image)
        inputs["image"] = ("picture", 0)
    out["extend"] = node("WanPromptExtend", prompt=prompt, **(settings | inputs))
    out["see"] = node("PreviewAny", source=("extend", 0))
    return out


def through_endpoint(base_url="", **inputs):
    return graph(model=ENDPOINT, base_url=base_url, endpoint_model="model-1", **inputs)


def run(host, prompt):
    """(the text, the nodes that ran)."""
    ran = []
    entry = host.run(prompt, lambda kind, data: ran.append(data) if kind == "executing" else None)
    (text,) = entry["outputs"]["extend"]["text"]
    assert entry["outputs"]["see"]["text"] == [text]
    # the last words on the prompt before may come late
    own = [data["node"] for data in ran if data.get("prompt_id") == entry["prompt"][1]]
    return text, [name for name in own if name]


def test_the_node_lists_models_and_explains_its_inputs(host):
    info = host.get("/object_info/WanPromptExtend")["WanPromptExtend"]
    inputs = info["input"]["required"] | info["input"]["optional"]
    assert all(options.get("tooltip") for _, options in inputs.values())
    kind, options = inputs["model"]
    offered = options["options"] if kind == "COMBO" else kind
    assert offered == ["endless", "large", "no template", "qwen", "qwen-vl", ENDPOINT]
    assert not any("key" in name for name in inputs)
    assert inputs["seed"][1]["control_after_generate"] is False  # else the page asks anew with every run


def test_a_local_model_extends_and_is_not_asked_again(host):
    text, ran = run(host, graph())
    folder = host.base / "models" / "LLM" / "qwen"
    assert text == clean_answer(LanguageModel(folder).answer(question("T2V", IDEA), 1, max_tokens=24))
    assert "extend" in ran
    again, ran = run(host, graph())
    assert again == text and ran == []
    other, ran = run(host, graph(seed=2))
    assert other != text and "extend" in ran
    host.free()
    assert run(host, graph()) == (text, ["extend", "see"])


def test_the_image_changes_what_a_model_that_sees_says(host):
    texts = [run(host, graph(task="I2V", model="qwen-vl", image=f"{c}.png"))[0] for c in ("red", "blue")]
    texts.append(run(host, graph(task="I2V", model="qwen-vl"))[0])
    assert len(set(texts)) == 3
    with pytest.raises(HostError, match="qwen cannot see the image"):
        run(host, graph(task="I2V", image="red.png"))


def test_cancel_is_heard_in_the_middle_of_an_answer(host):
    values, pressed = [], []

    def on_event(kind, data):
        if kind == "progress" and data["node"] == "extend":
            values.append(data["value"])
            if data["value"] >= 5 and not pressed:
                pressed.append(time.monotonic())
                host.interrupt()

    with pytest.raises(HostError, match="interrupted"):
        host.run(graph(model="endless", max_tokens=8192), on_event)
    assert pressed and max(values) < 1000 and time.monotonic() - pressed[0] < 10
    assert run(host, graph(seed=7))[0]


def test_memory_is_given_back_after_each_answer(host):
    def one(seed, model):
        run(host, graph(model=model, seed=seed, temperature=0.0))
        return host.resident_bytes()

    for seed in range(100, 103):  # allocators fill up
        before = one(seed, "qwen")
    after = [one(seed, "large") for seed in range(103, 107)]
    read = LARGE * 32 * 4  # the head, all of which every token reads; of the embedding hardly anything is
    assert min(after[-2:]) < before + 0.6 * read, [round(n / 1e6) for n in (before, *after, read)]
    assert "memory leak" not in host.log.read_text(errors="replace").lower()


def test_the_endpoint_is_asked_once(host, chat):
    chat.replies, chat.asked[:] = [completion('<think>a cat</think>Prompt: "A cat surfs."')], []
    asked = through_endpoint(language="zh", image="red.png", task="TI2V", temperature=0.25, seed=2**33 + 5)
    text, _ = run(host, asked)
    assert text == "A cat surfs."
    again, ran = run(host, asked)
    assert (again, ran) == (text, []) and len(chat.asked) == 1
    _, headers, body = chat.asked[0]
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert body["model"] == "model-1" and body["seed"] == 5 and body["temperature"] == 0.25
    system, user = body["messages"]
    picture = Image.fromarray(np.full((200, 280, 3), (255, 0, 0), np.uint8))
    assert system["content"] == question("TI2V", IDEA, "zh", picture).instructions
    assert user["content"][0]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert run(host, through_endpoint(seed=6)) == ("A cat surfs.", ["extend", "see"]) and len(chat.asked) == 2


def test_a_key_goes_to_no_other_address(host):
    with ChatServer(completion("A cat surfs.")) as stranger:
        assert run(host, through_endpoint(stranger.url))[0] == "A cat surfs."
    ((_, headers, body),) = stranger.asked
    assert KEY not in f"{headers}{body}"
    with pytest.raises(
        HostError, match=r"no key for https://dashscope\.aliyuncs\.com.*_API_KEY before ComfyUI starts"
    ):
        run(host, through_endpoint(DASHSCOPE))


FAULTS = {
    "401": (refusal(401, f"wrong key {KEY}"), "refuses the key of WAN_PROMPT_API_KEY"),
    "429": (refusal(429, f"slow down {KEY}"), "too many requests.*after 3 retries"),
    "500": (refusal(500, f"oops {KEY}"), "fault of its own"),
    "garbage": ((200, b"<html>" + KEY.encode(), {}), "gave no chat completion"),
    "closed": ("close", "no server answers"),
    "empty": (completion(' "" '), "gave no prompt. Yours is as it was"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_told_without_the_key_and_kept_by_no_cache(host, chat, name):
    reply, message = FAULTS[name]
    chat.replies = [reply]
    errors, seed = [], 1000 + list(FAULTS).index(name)
    with pytest.raises(HostError, match=message):
        host.run(
            through_endpoint(seed=seed),
            lambda kind, data: errors.append(data) if kind == "execution_error" else None,
        )
    assert errors and KEY not in str(errors)
    chat.replies = [completion("A cat surfs.")]
    assert run(host, through_endpoint(seed=seed)) == ("A cat surfs.", ["extend", "see"])


def test_cancel_is_heard_while_a_server_is_silent(host, chat):
    pressed = []

    def press_cancel(body):
        pressed.append(time.monotonic())
        host.interrupt()
        return "hang"

    chat.replies = [press_cancel]
    with pytest.raises(HostError, match="interrupted"):
        host.run(through_endpoint(seed=77))
    assert len(pressed) == 1 and time.monotonic() - pressed[0] < 10
    chat.replies = [completion("A cat surfs.")]
    assert run(host, through_endpoint(seed=77))[0] == "A cat surfs."


def test_bad_inputs_are_explained(host):
    cases = [
        (graph(prompt="  "), "the prompt is empty"),
        (graph(image="red.png"), "leave the image out"),
        (graph(model="no template"), "no template has no chat template"),
        (through_endpoint("my server"), "base_url must be an address"),
        (through_endpoint("http://127.0.0.1:9/v1"), "no server answers at http://127.0.0.1:9/v1"),
    ]
    for prompt, message in cases:
        with pytest.raises(HostError, match=message):
            host.run(prompt)


def test_the_key_is_nowhere(host):
    """Runs last: after all that was answered and refused."""
    written = [path for path in host.base.rglob("*") if path.is_file() and path.stat().st_size < 10**7]
    assert host.log in written
    for path in written:
        assert KEY.encode() not in path.read_bytes(), path
    assert KEY not in str(host.get("/history")) and KEY not in str(host.get("/object_info/WanPromptExtend"))
