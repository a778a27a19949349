"""A language model behind an OpenAI-compatible address (DashScope, OpenAI, vLLM, Ollama, LM Studio ...), asked one
question.

Keys come from the environment and go only where they belong: the address comes from a file that may be somebody
else's, which must not be able to send a key elsewhere. So each key has its own address, that of WAN_PROMPT_API_KEY
being WAN_PROMPT_BASE_URL; other addresses are asked without a key, as servers on one's own machine are.
"""

import base64
import io
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from .extension import Question

OnProgress = Callable[[int, int], None]
DASHSCOPE = "https://dashscope.aliyuncs.com/compatible-mode/v1"
OWN_KEY, OWN_ADDRESS = "WAN_PROMPT_API_KEY", "WAN_PROMPT_BASE_URL"
KEYS = {
    "DASHSCOPE_API_KEY": ("https://dashscope.aliyuncs.com", "https://dashscope-intl.aliyuncs.com"),
    "OPENAI_API_KEY": ("https://api.openai.com",),
}
TIMEOUT = 180.0
RETRIES = 3
_NO_KEY = "none"  # the client wants one
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Endpoint:
    """Where to ask which model. The key is kept out of the representation, so that no log shows it."""

    base_url: str
    model: str
    key: str = field(default=_NO_KEY, repr=False)
    variable: str = OWN_KEY

    @property
    def is_dashscope(self) -> bool:
        return _origin(self.base_url) in KEYS["DASHSCOPE_API_KEY"]

    def hide(self, text: str) -> str:
        """A text without the key."""
        return text if self.key == _NO_KEY else text.replace(self.key, "***")

    def quote(self, said: object) -> str:
        """The beginning of what a server or library says, to be repeated in an error."""
        return self.hide(str(said))[:300] or type(said).__name__


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
    own = environment.get(OWN_ADDRESS, "").strip() or DASHSCOPE
    base_url, model = base_url.strip().rstrip("/") or own.rstrip("/"), model.strip()
    _check_address(base_url)
    if not model:
        raise ValueError("the endpoint's model is empty: write its name, such as qwen-plus")
    origin = _origin(base_url)
    variables = [OWN_KEY] if origin == _origin(own) else []
    variables += [name for name, origins in KEYS.items() if origin in origins]
    for variable in variables:
        key = environment.get(variable, "").strip()
        if key:
            return Endpoint(base_url, model, key, variable)
    if any(name in KEYS for name in variables):
        raise MissingKeyError(base_url, variables)
    return Endpoint(base_url, model)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"base_url must be an address such as {DASHSCOPE} or http://127.0.0.1:8000/v1")
    if (
        parts.username or parts.password or parts.query or parts.fragment
    ):  # it may hold a key: not repeated here
        raise ValueError(
            "base_url must be an address alone, without a user, password or ?...: a key goes into the environment "
            f"variable {OWN_KEY}, its address into {OWN_ADDRESS}"
        )


def answer(
    where: Endpoint,
    asked: Question,
    seed: int,
    temperature: float = 0.7,
    on_progress: OnProgress = lambda done, total: None,
    timeout: float = TIMEOUT,
) -> str:
    """The model's whole answer, thoughts included, within `timeout` seconds, retries among them.

    on_progress(done, total) is called while waiting and may raise to end it. Raises ImportError with what to install,
    ValueError where key, model or question are refused, TimeoutError, and ConnectionError for the server's own faults;
    none of them shows the key."""
    try:
        import openai
    except ImportError:
        raise ImportError("asking an endpoint needs the openai package: pip install openai") from None
    client: Any = openai.OpenAI(
        base_url=where.base_url, api_key=where.key, timeout=timeout, max_retries=RETRIES
    )
    # hybrid models there think by default, and then only answer in a stream
    extra = {"extra_body": {"enable_thinking": False}} if where.is_dashscope else {}

    def ask() -> str:
        reply = client.chat.completions.create(
            model=where.model,
            messages=_messages(asked),
            temperature=temperature,
            seed=seed % 2**31,  # DashScope's range
            **extra,
        )
        return _text(reply)

    try:
        return where.hide(_within(ask, timeout, on_progress))
    except (openai.APITimeoutError, TimeoutError):
        failure: Exception = TimeoutError(
            f"{where.base_url} did not answer within {timeout:g} s: the model may be too large for its machine, or the "
            "server hangs"
        )
    except openai.APIConnectionError as error:
        failure = ConnectionError(
            f"no server answers at {where.base_url} ({where.quote(error.__cause__ or error)}): start it, or correct "
            "base_url"
        )
    except openai.APIStatusError as error:
        failure = _refusal(where, error.status_code, where.quote(error.message))
    except _Refused as error:
        failure = ValueError(f"{where.model} refuses this prompt ({where.quote(error)}): word it differently")
    except (openai.OpenAIError, AttributeError, LookupError, TypeError, ValueError) as error:
        failure = ConnectionError(
            f"{where.base_url} gave no chat completion ({where.quote(error)}): is it an OpenAI-compatible address, "
            "often one that ends in /v1?"
        )
    finally:
        client.close()
    raise failure  # outside the handlers: the library's own errors may repeat what was sent


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
    """What a chat completion says; an empty text is one too, and whoever cleans it refuses it."""
    if not getattr(reply, "choices", None):
        raise ValueError(f"but {reply!r}")
    choice = reply.choices[0]
    if choice.finish_reason == "content_filter" or getattr(choice.message, "refusal", None):
        raise _Refused(getattr(choice.message, "refusal", None) or "content filter")
    if not isinstance(choice.message.content, str | None):
        raise ValueError(f"but {choice.message.content!r}")
    return choice.message.content or ""


def _within(work: Callable[[], str], timeout: float, on_progress: OnProgress) -> str:
    """The result of work in a thread, which is left to its own end where `on_progress` raises or time is up."""
    future: Future[str] = Future()

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


def _refusal(where: Endpoint, status: int, said: str) -> Exception:
    """The error of a status code."""
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
