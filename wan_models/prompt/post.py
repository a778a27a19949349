"""One POST to a server that is not trusted: its time, what comes back and where it leads to have bounds.

Nothing of the environment goes along but the way, the proxy of HTTPS_PROXY and its like.
"""

import http.client
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.error import URLError
from urllib.parse import urljoin
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request, UnknownHandler

from .address import Address, parse_address

MAX_BYTES = 4 << 20
"""Limit of an answer, as it comes and unpacked."""
_REDIRECTS = 5
# RFC 9110 lets a POST stay one for these; 303 asks for a GET, which is no question any more
_SAME_QUESTION = (301, 302, 307, 308)
_PACKED = ("gzip", "x-gzip", "deflate")
_ANY_WRAPPER = zlib.MAX_WBITS | 32  # gzip's or zlib's, told apart by the first bytes


class Reply(NamedTuple):
    """A server's answer: status, headers and unpacked body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class RedirectError(ValueError):
    """The server sends the question on, to where it must not go."""


class TooLargeError(ValueError):
    """The answer is larger than MAX_BYTES."""


class Call:
    """POSTs within `timeout` seconds altogether. `end`, called by any thread, breaks off the one under way."""

    def __init__(self, timeout: float) -> None:
        self._deadline = time.monotonic() + timeout
        self._is_over = threading.Event()
        self._socket: socket.socket | None = None
        self._opener = OpenerDirector()
        for handler in (ProxyHandler(), _Http(self), _Https(self), UnknownHandler()):
            self._opener.add_handler(handler)

    def post(self, address: Address, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """The reply to a POST at a path below an address. Redirects are followed to the same origin only.

        Raises TimeoutError; other OSErrors and HTTPException where the connection fails; RedirectError;
        TooLargeError; zlib.error."""
        url = str(address) + path
        for _ in range(_REDIRECTS + 1):
            reply = self._post(url, headers, body)
            if not 300 <= reply.status < 400:
                return reply
            url = _next_address(url, address, reply)
        raise RedirectError(f"redirects more than {_REDIRECTS} times")

    def pause(self, seconds: float) -> None:
        """Waits, at most until time is up: then TimeoutError."""
        left = self._deadline - time.monotonic()
        if self._is_over.wait(max(0.0, min(seconds, left))) or seconds >= left:
            raise TimeoutError

    def end(self) -> None:
        """Breaks off what is under way, and all that would follow."""
        self._is_over.set()
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        self.pause(0)
        request = Request(url, body, dict(headers), method="POST")
        try:
            with self._opener.open(request, timeout=max(0.01, self._deadline - time.monotonic())) as reply:
                return Reply(reply.status, reply.headers, _read(reply))
        except URLError as error:  # wraps what went wrong
            raise (error.reason if isinstance(error.reason, OSError) else error) from None
        finally:
            self._socket = None

    def connected(self, connected: socket.socket) -> None:
        """Notes the connection that is to be broken off."""
        self._socket = connected
        if self._is_over.is_set():
            self.end()


class _Http(HTTPHandler):
    def __init__(self, call: Call) -> None:
        super().__init__()
        self._call = call

    def http_open(self, request: Request) -> Any:
        return self.do_open(_noted(http.client.HTTPConnection, self._call), request)


class _Https(HTTPSHandler):
    def __init__(self, call: Call) -> None:
        super().__init__()
        self._call, self._certificates = call, _certificates()

    def https_open(self, request: Request) -> Any:
        return self.do_open(
            _noted(http.client.HTTPSConnection, self._call), request, context=self._certificates
        )


def _noted(kind: Any, call: Call) -> Any:
    """A kind of connection that tells a call its socket."""

    class Noted(kind):
        def connect(self) -> None:
            super().connect()
            call.connected(self.sock)

    return Noted


def _certificates() -> ssl.SSLContext:
    """Certificates of the system, and those of certifi where it is installed: some Pythons find no others."""
    context = ssl.create_default_context()
    try:
        import certifi
    except ImportError:
        return context
    context.load_verify_locations(certifi.where())
    return context


def _read(reply: Any) -> bytes:
    body = reply.read(MAX_BYTES + 1)
    if len(body) <= MAX_BYTES and reply.headers.get("Content-Encoding", "").strip().lower() in _PACKED:
        body = zlib.decompressobj(_ANY_WRAPPER).decompress(body, MAX_BYTES + 1)
    if len(body) > MAX_BYTES:
        raise TooLargeError(f"is larger than {MAX_BYTES >> 20} MB")
    return body


def _next_address(url: str, asked: Address, reply: Reply) -> str:
    """Target of a redirect, if that may be asked too."""
    try:
        target = parse_address(urljoin(url, reply.headers.get("Location", "")))
    except ValueError:
        raise RedirectError("redirects to what is no plain address") from None
    if target.origin != asked.origin:
        raise RedirectError(f"redirects to {target.origin}")
    if reply.status not in _SAME_QUESTION:
        raise RedirectError(f"redirects with status {reply.status}")
    return str(target)
