"""Requests to a proxy (RFC 9112 §3.2): whom they ask for, and what the server gets of them."""

from __future__ import annotations

import re
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.edit.headers import Headers
from mitml4.edit.http1 import RequestHead, read_request
from mitml4.edit.messages import Request
from mitml4.errors import ProtocolError
from mitml4.protocols.http.http1_heads import CONNECT_LINE, connect_target
from mitml4.protocols.policy import Target
from mitml4.regex import regex

__all__ = ["Asked", "forwarded", "is_last", "is_upgrade", "read_asked", "without_hops"]

# RFC 3986 §3.2; nothing in which two readers see different hosts.
_ABSOLUTE: Final = regex(
    rb"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*)://(?:[^@/?#\\]*@)?"
    rb"(?P<host>\[[0-9A-Fa-f:.%A-Za-z]+\]|[^\[\]:@/?#\\\s]+)(?::(?P<port>[0-9]{0,5}))?"
    rb"(?P<path>(?:[/?][^#\\]*)?)(?:#.*)?",
    re.DOTALL,
)
# RFC 9110 §9.3.6: there is no default port.
_AUTHORITY: Final = regex(r"(?:\[[^\[\]\s]+\]|[^\[\]:@/?#\\\s]+):[0-9]{1,5}")
_HOPS: Final = ("connection", "proxy-connection", "keep-alive", "te", "upgrade")
_SECRETS: Final = ("proxy-authorization", "proxy-authenticate", "proxy-authentication-info")
_MAX_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and the server that it asks for; `target` None: the proxy itself."""

    head: RequestHead
    request: Request
    target: Target | None

    @property
    def is_connect(self) -> bool:
        return self.request.method == "CONNECT"


def read_asked(raw: bytes) -> Asked:
    """Read a whole head. Raises ProtocolError, whose message is for the client."""
    if any(b":" not in line for line in raw.strip(b"\r\n").split(b"\n")[1:]):
        raise ProtocolError("a field line without a colon")
    if b"\0" in raw or b"\r" in raw.replace(b"\r\n", b""):  # RFC 9110 §5.5, RFC 9112 §2.2
        raise ProtocolError("a NUL or a bare CR in the head")
    head, request = read_request(raw, scheme="http", authority="", stream=1)
    target: Target | None = None
    if request.method == "CONNECT":
        line = CONNECT_LINE.match(raw.lstrip(b"\r\n"))
        target = connect_target(line) if line else None
        if target is None or not _AUTHORITY.fullmatch(request.target):
            raise ProtocolError("CONNECT needs a host and a port")
    elif not request.target.startswith("/") and request.target != "*":
        target = _absolute(request)
    if target and not 0 < target.port <= _MAX_PORT:
        raise ProtocolError("a port is 1 to 65535")
    return Asked(head, request, target)


def _absolute(request: Request) -> Target:
    url = _ABSOLUTE.fullmatch(request.target.encode("latin-1"))
    if url is None:
        raise ProtocolError("a request to a proxy names a URL or a host")
    scheme = url["scheme"].lower()
    if scheme == b"https":
        raise ProtocolError("https:// needs CONNECT")
    if scheme not in (b"http", b"ws"):
        raise ProtocolError("only http:// is forwarded; other schemes need CONNECT or SOCKS")
    return Target(url["host"].strip(b"[]").decode("latin-1"), int(url["port"] or 80))


def forwarded(asked: Asked) -> bytes:
    """The head as the server gets it: in origin-form, with the Host of the URL, and without what is
    for the proxy alone (RFC 9112 §3.2.2, RFC 9110 §7.6.1)."""
    request = asked.request
    url = _ABSOLUTE.fullmatch(request.target.encode("latin-1"))
    assert url
    path = url["path"].decode("latin-1")
    if request.method == "OPTIONS" and not path:
        request.target = "*"
    else:
        request.target = path if path.startswith("/") else f"/{path}"
    headers = request.headers
    upgrade = headers.get("upgrade") if is_upgrade(headers) else None
    without_hops(headers)
    headers.discard("http2-settings")
    authority = url["host"] + (b":" + url["port"] if url["port"] else b"")
    headers["Host"] = authority.decode("latin-1")
    if upgrade is not None:
        headers["Connection"], headers["Upgrade"] = "Upgrade", upgrade
    return asked.head.bytes_of(request)


def without_hops(headers: Headers) -> None:
    """Remove what is for the next hop only."""
    for value in headers.get_all("connection"):
        for name in value.split(","):
            # Without these, the message would end elsewhere or be for another host.
            if name.strip().lower() not in ("host", "content-length", "transfer-encoding", ""):
                headers.discard(name.strip())
    for name in (*_HOPS, *_SECRETS):
        headers.discard(name)


def is_upgrade(headers: Headers) -> bool:
    """Whether a request asks for another protocol (RFC 9110 §7.8). HTTP/2 does not count: its
    requests name other hosts, and this proxy reads them in HTTP/1 only."""
    wanted = _options(headers, "upgrade")
    return bool(wanted - {"h2c"}) and "upgrade" in _options(headers, "connection")


def is_last(headers: Headers, version: str) -> bool:
    """Whether the connection ends after this message (RFC 9112 §9.3)."""
    options = _options(headers, "connection") | _options(headers, "proxy-connection")
    return "close" in options or version != "HTTP/1.1"


def _options(headers: Headers, name: str) -> set[str]:
    return {each.strip().lower() for value in headers.get_all(name) for each in value.split(",")}
