"""An endpoint that wants more than to answer: to be told secrets, to send on, to fill memory, never to end."""

import gzip
import itertools
import json
import threading
import time
import tracemalloc
import zlib

import pytest
from chat_server import JSON, KEY, ChatServer, RawServer, ask, completion, refusal
from PIL import Image
from processes import wait_for

from wan_models.prompt.chat_endpoint import answer, endpoint
from wan_models.prompt.extension import question

RED = Image.new("RGB", (280, 200), "red")


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
