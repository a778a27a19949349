"""Addresses of servers, in one spelling: what is compared is what is asked."""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
_IN_PATHS = "/%:@!$&'()*+,;=~"


@dataclass(frozen=True)
class Address:
    """Scheme, host, port and path of a server. str() gives the spelling that all others of it come down to."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> str:
        """Scheme, host and port: who is asked."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"

    def __str__(self) -> str:
        return self.origin + self.path


class OddAddressError(ValueError):
    """The text is no address; the message says why, and repeats nothing of it, for it may hold a key."""


def parse_address(url: str) -> Address:
    """The address that a text stands for.

    Raises OddAddressError for any but http and https, and where there is more than host, port and path."""
    strange = next((c for c in url if not c.isprintable() or c == "\\"), None)
    if strange is not None:
        raise OddAddressError(
            f"must be an address, and has a character that none has (U+{ord(strange):04X}): write it anew"
        )
    try:
        parts = urlsplit(url)
        port, host = parts.port, _host(parts.hostname or "")
    except ValueError:  # UnicodeError of strange hosts among them
        parts, port, host = None, None, ""
    if parts is None or parts.scheme not in _PORTS or port == 0 or not host:
        raise OddAddressError("must be an address such as https://example.org/v1 or http://127.0.0.1:8000/v1")
    if "@" in parts.netloc or "?" in url or "#" in url:
        raise OddAddressError("must be an address alone, without a user, password, ? or #")
    path = quote(parts.path, safe=_IN_PATHS)
    return Address(parts.scheme, host, port or _PORTS[parts.scheme], path)


def _host(name: str) -> str:
    """A host's name in ASCII, or its IP address; "" where it is neither."""
    if ":" in name:
        return str(ipaddress.IPv6Address(name))
    name = name.encode("idna").decode("ascii").lower().removesuffix(".")
    return name if _HOST.fullmatch(name) and ".." not in name else ""
