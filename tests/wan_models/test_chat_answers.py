"""An endpoint that answers: what it is sent, and what becomes of its answers, of its faults, and of none."""

import base64
import io
import json
import logging
import socket
import threading
import time
import traceback

import pytest
from chat_server import JSON, KEY, ChatServer, ask, completion, refusal
from PIL import Image

from wan_models.prompt import chat_endpoint
from wan_models.prompt.chat_endpoint import Endpoint, answer
from wan_models.prompt.extension import clean_answer, question

RED = Image.new("RGB", (280, 200), "red")


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
    "400 without words": ((400, b"", {}), ValueError, r"refuses the question \(400\): it says no more", 1),
    "400 null": (
        (400, b'{"error": {"message": null}}', {}),
        ValueError,
        r'\(400\): {"error": {"message": null}}',
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
