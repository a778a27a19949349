"""The endpoint of prompt extension: its address, and which key goes where."""

from urllib.parse import urlsplit

import pytest
from chat_server import KEY
from hypothesis import given
from hypothesis import strategies as st

from wan_models.prompt.chat_endpoint import DASHSCOPE, endpoint

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
