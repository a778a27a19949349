"""A language model behind an OpenAI-compatible address (DashScope, OpenAI, vLLM, Ollama, LM Studio ...), asked one
question.

Keys come from the environment and go only where they belong: the address comes from a file that may be somebody
else's, which must not be able to send a key elsewhere. So each key has its own address, that of WAN_PROMPT_API_KEY
being WAN_PROMPT_BASE_URL; other addresses are asked without a key, as servers on one's own machine are. What else the
environment says of an account at OpenAI goes there alone.
"""

import base64
import io
import json
import re
import time
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from http.client import HTTPException, IncompleteRead
from threading import Thread
from typing import Any

from PIL import Image

from ..progress import OnProgress
from .address import Address, OddAddressError, parse_address
from .extension import Question
from .post import Call, RedirectError, Reply, TooLargeError

DASHSCOPE = "https://dashscope.aliyuncs.com/compatible-mode/v1"
OWN_KEY, OWN_ADDRESS = "WAN_PROMPT_API_KEY", "WAN_PROMPT_BASE_URL"
KEYS = {
    "DASHSCOPE_API_KEY": ("https://dashscope.aliyuncs.com", "https://dashscope-intl.aliyuncs.com"),
    "OPENAI_API_KEY": ("https://api.openai.com",),
}
TIMEOUT = 180.0
RETRIES = 3
_ACCOUNT = {"OPENAI_ORG_ID": "OpenAI-Organization", "OPENAI_PROJECT_ID": "OpenAI-Project"}
"""Headers beside OPENAI_API_KEY, by variable."""
_PASSING = (408, 409, 429)
"""Status codes that a later try may not have, beside those of the server's own faults."""
_LONGEST_PAUSE = 60.0
_NO_KEY = "none"  # what servers without keys are told
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Endpoint:
    """Address and model to ask. The key is kept out of the representation, so that no log shows it."""

    base_url: str
    model: str
    key: str = field(default=_NO_KEY, repr=False)
    variable: str = OWN_KEY
    account: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Headers that go with the key."""

    @property
    def is_dashscope(self) -> bool:
        return parse_address(self.base_url).origin in KEYS["DASHSCOPE_API_KEY"]

    def hide(self, text: str) -> str:
        """A text without the key."""
        return text if self.key == _NO_KEY else text.replace(self.key, "***")

    def quote(self, said: object) -> str:
        """The beginning of what a server or library says, to be repeated in an error."""
        text = self.hide(str(said))[:300] or type(said).__name__
        return "".join(c if c.isprintable() else " " for c in text)


class MissingKeyError(ValueError):
    """A service needs a key and none is set; `variables` of the environment are where one is looked for."""

    def __init__(self, base_url: str, variables: list[str]) -> None:
        super().__init__(
            f"there is no key for {base_url}: set the environment variable {' or '.join(variables)}"
        )
        self.variables = variables


def endpoint(base_url: str, model: str, environment: Mapping[str, str]) -> Endpoint:
    """The endpoint of an address; an empty one is WAN_PROMPT_BASE_URL, and DashScope where that is not set.

    Raises ValueError where address or model cannot be used, and MissingKeyError where a key is needed and not set."""
    own = _address(environment.get(OWN_ADDRESS, "").strip() or DASHSCOPE, OWN_ADDRESS)
    address = _address(base_url.strip(), "base_url") if base_url.strip() else own
    if not model.strip():
        raise ValueError("the endpoint's model is empty: write its name, such as qwen-plus")
    variables = [OWN_KEY] if address.origin == own.origin else []
    variables += [name for name, origins in KEYS.items() if address.origin in origins]
    for variable in variables:
        key = environment.get(variable, "").strip()
        if key and not (key.isascii() and key.isprintable()):
            raise ValueError(f"the key in {variable} has characters that no key has: set the variable anew")
        if key:
            account = {
                header: environment[name]
                for name, header in _ACCOUNT.items()
                if variable == "OPENAI_API_KEY"
                and re.fullmatch(r"[\w-]+", environment.get(name, ""), re.ASCII)
            }
            return Endpoint(str(address), model.strip(), key, variable, account)
    if any(name in KEYS for name in variables):
        raise MissingKeyError(str(address), variables)
    return Endpoint(str(address), model.strip())


def _address(url: str, name: str) -> Address:
    try:
        return parse_address(url.rstrip("/"))
    except OddAddressError as error:
        raise ValueError(
            f"{name} {error}. A key goes into the environment variable {OWN_KEY}, its address into {OWN_ADDRESS}"
        ) from None


def answer(
    where: Endpoint,
    asked: Question,
    seed: int,
    temperature: float = 0.7,
    on_progress: OnProgress = lambda done, total: None,
    timeout: float = TIMEOUT,
) -> str:
    """The model's whole answer, thoughts included, within `timeout` seconds, retries among them.

    on_progress(done, total) is called while waiting and may raise to end it. Raises ValueError where key, model or
    question are refused, or the server sends the question elsewhere; TimeoutError; and ConnectionError for the
    server's own faults. None of them shows the key."""
    body = {
        "model": where.model,
        "messages": _messages(asked),
        "temperature": temperature,
        "seed": seed % 2**31,  # DashScope's range
    }
    if where.is_dashscope:  # hybrid models there think by default, and then only answer in a stream
        body["enable_thinking"] = False
    call = Call(timeout)
    try:
        reply = _within(lambda: _post(call, where, json.dumps(body).encode()), timeout, on_progress)
        if 200 <= reply.status < 300:
            return where.hide(_text(json.loads(reply.body)))
        failure: Exception = _refusal(where, reply)
    except TimeoutError:
        failure = TimeoutError(
            f"{where.base_url} did not answer within {timeout:g} s: the model may be too large for its machine, or the "
            "server hangs"
        )
    except RedirectError as error:
        failure = ValueError(
            f"{where.base_url} {error}. Questions are not sent on to another server: if you trust that one, write its "
            "address into base_url"
        )
    except TooLargeError as error:
        failure = ConnectionError(
            f"the answer of {where.base_url} {error}, which no prompt is: is it an OpenAI-compatible address?"
        )
    except OSError as error:
        failure = ConnectionError(
            f"no server answers at {where.base_url} ({where.quote(error)}): start it, or correct base_url"
        )
    except _Refused as error:
        failure = ValueError(f"{where.model} refuses this prompt ({where.quote(error)}): word it differently")
    except (
        HTTPException,
        zlib.error,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:
        failure = ConnectionError(
            f"{where.base_url} gave no chat completion ({where.quote(error)}): is it an OpenAI-compatible address, "
            "often one that ends in /v1?"
        )
    finally:
        call.end()
    raise failure  # outside the handlers: the errors there may repeat what was sent


def _post(call: Call, where: Endpoint, body: bytes) -> Reply:
    """The server's reply, or what is wrong with its last one after the retries."""
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "wan22",
        "Authorization": f"Bearer {where.key}",
        **where.account,
    }
    address = parse_address(where.base_url)
    for tries in range(RETRIES):
        seconds = 0.5 * 2**tries
        try:
            reply = call.post(address, "/chat/completions", headers, body)
            if not (reply.status in _PASSING or reply.status >= 500):
                return reply
            seconds = _asked_pause(reply) or seconds
        except TimeoutError:
            raise
        except (OSError, IncompleteRead):
            pass
        call.pause(seconds)
    return call.post(address, "/chat/completions", headers, body)


def _asked_pause(reply: Reply) -> float:
    """Seconds that a busy server asks to wait before the next try; 0 where it does not say."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(reply.headers.get(name, "")) / unit
        except ValueError:
            continue
        if 0 < seconds <= _LONGEST_PAUSE:
            return seconds
    return 0.0


class _Refused(Exception):
    """The model or its service will not answer this."""


def _messages(asked: Question) -> list[dict[str, Any]]:
    words: Any = asked.text
    if asked.image is not None:
        words = [
            {"type": "image_url", "image_url": {"url": _data_url(asked.image)}},
            {"type": "text", "text": asked.text},
        ]
    return [{"role": "system", "content": asked.instructions}, {"role": "user", "content": words}]


def _data_url(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _text(reply: Any) -> str:
    """Text of a chat completion; it may be empty, and whoever cleans it refuses that."""
    if not (isinstance(reply, dict) and reply.get("choices")):
        raise ValueError(f"but {reply!r:.400}")
    choice = reply["choices"][0]
    message = choice["message"]
    if choice.get("finish_reason") == "content_filter" or message.get("refusal"):
        raise _Refused(message.get("refusal") or "content filter")
    text = message.get("content") or ""
    if not isinstance(text, str):
        raise ValueError(f"but {text!r:.400}")
    return text.encode("utf-8", "replace").decode()  # JSON can hold halves of characters


def _within(work: Callable[[], Reply], timeout: float, on_progress: OnProgress) -> Reply:
    """The result of work in a thread, which is left to itself where `on_progress` raises or time is up."""
    future: Future[Reply] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, name="prompt extension", daemon=True).start()
    deadline = time.monotonic() + timeout
    while not wait([future], _POLL_SECONDS).done:
        on_progress(0, 1)
        if time.monotonic() > deadline:
            raise TimeoutError
    return future.result()


def _refusal(where: Endpoint, reply: Reply) -> Exception:
    """The error of a status code that is none of success."""
    status, said = reply.status, where.quote(_explanation(reply.body))
    if status in (401, 403):
        sent = f"the key of {where.variable}" if where.key != _NO_KEY else "a question without a key"
        return ValueError(
            f"{where.base_url} refuses {sent} ({status}). Keys are read from the environment: "
            f"{', '.join(KEYS)}, or {OWN_KEY} with the server's address in {OWN_ADDRESS}"
        )
    if status == 404:
        return ValueError(
            f"{where.base_url} has no model {where.model!r}, or is not the right address ({said})"
        )
    if status == 429:
        return ConnectionError(
            f"{where.base_url} has too many requests, or your quota there is used up (429, after {RETRIES} retries): "
            f"wait a little ({said})"
        )
    if status >= 500:
        return ConnectionError(
            f"{where.base_url} has a fault of its own ({status}, after {RETRIES} retries): {said}"
        )
    return ValueError(f"{where.base_url} refuses the question ({status}): {said}")


def _explanation(body: bytes) -> str:
    """Message in the body of an error, in the form that OpenAI gives it or in another."""
    try:
        said = json.loads(body)["error"]["message"]
    except (LookupError, TypeError, ValueError, RecursionError):
        said = None
    if isinstance(said, str) and said.strip():
        return said
    return body.decode("utf-8", "replace").strip() or "it says no more"
