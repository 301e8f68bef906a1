"""Why a proxy does not connect, and how each of its protocols says so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Final, NamedTuple, TypeAlias

from mitml4.edit.http1 import response_bytes
from mitml4.edit.messages import plain_answer
from mitml4.net.stream import Stream
from mitml4.protocols.policy import Target
from mitml4.regex import regex

__all__ = ["CHALLENGE", "Open", "Refused", "Why", "http_refusal", "socks5_reply"]

_UNQUOTABLE: Final = regex(r"[^ !#-\[\]-~]")
CHALLENGE: Final = ("Proxy-Authenticate", 'Basic realm="mitml4", charset="UTF-8"')


class _Told(NamedTuple):
    status: int
    socks5: int
    """RFC 1928 §6."""
    error: str
    """RFC 9209 §2.3."""


class Why(Enum):
    """The reasons."""

    NO_PROXY_REQUEST = _Told(400, 1, "http_request_error")
    POLICY = _Told(403, 2, "http_request_denied")
    FORBIDDEN = _Told(403, 2, "destination_ip_prohibited")
    NO_NAME = _Told(502, 4, "dns_error")
    NAME_TIMEOUT = _Told(504, 4, "dns_timeout")
    REFUSED = _Told(502, 5, "connection_refused")
    NO_NETWORK = _Told(502, 3, "destination_ip_unroutable")
    NO_HOST = _Told(502, 4, "destination_unavailable")
    TIMEOUT = _Told(504, 6, "connection_timeout")
    ENDED = _Told(502, 1, "connection_terminated")
    INTERNAL = _Told(500, 1, "proxy_internal_error")


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """The proxy does not connect the client; the text is for the client."""

    def __init__(self, why: Why, text: str) -> None:
        super().__init__(text)
        self.why = why


Open: TypeAlias = Callable[[Target | None], Awaitable[Stream]]
"""Connects to a server; None: to the pages of the proxy itself. Raises Refused."""


def socks5_reply(reply: int) -> bytes:
    """`VER REP RSV ATYP BND.ADDR BND.PORT` (RFC 1928 §6), without an address."""
    return bytes((5, reply, 0, 1, 0, 0, 0, 0, 0, 0))


def http_refusal(
    status: int, text: str, *headers: tuple[str, str], error: str = "", method: str = ""
) -> bytes:
    """A response of the proxy's own, after which the connection ends. `error`: for Proxy-Status."""
    response = plain_answer(status, text)
    for name, value in headers:
        response.headers.add(name, value)
    if error:
        said = _UNQUOTABLE.sub("?", text)
        response.headers.add("Proxy-Status", f'mitml4; error={error}; details="{said}"')
    return response_bytes(response, method, closes=True)
