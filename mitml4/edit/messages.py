"""What an editor is given, and may change: requests, responses and messages."""

from __future__ import annotations

from dataclasses import field
from enum import Enum
from typing import Final, Literal, TypeAlias

from mitml4.dataclass import dataclass
from mitml4.edit.headers import Headers

__all__ = [
    "Answer",
    "Ending",
    "Message",
    "Request",
    "Response",
    "Server",
    "is_unread",
    "plain_answer",
]

REASONS: Final = {200: "OK", 404: "Not Found", 502: "Bad Gateway", 503: "Service Unavailable"}


class Ending(Enum):
    """How an editor ends the connection, or the stream of HTTP/2."""

    RESET = "reset"
    CLOSE = "close"
    HANG = "hang"
    """Nothing more is sent; the client may leave."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where a request goes instead of its own server."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    prefix: str = ""
    """What comes before the path of each request, without a slash at its end."""

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (
            host if self.port == {"http": 80, "https": 443}[self.scheme] else f"{host}:{self.port}"
        )


@dataclass(slots=True, kw_only=True)
class _HttpMessage:
    version: str
    headers: Headers = field(default_factory=Headers)
    body: bytes | None = None
    """The content, with its codings undone. None: it is not handed over, since nobody asked for it,
    or it is above the limit, or its coding cannot be undone."""
    streams: bool = False
    """Whether content passes by without being handed over: then no other body can be set."""
    delay_s: float = 0.0
    """How long it waits before it goes on."""
    rate: float | None = None
    """How many bytes of its content may go on in a second."""


@dataclass(slots=True, kw_only=True)
class Request(_HttpMessage):
    """A request."""

    method: str
    scheme: str
    authority: str
    """The host (and port) that it asks for: `Host` or `:authority`, or else the connection's."""
    target: str
    """The request target as it was sent: a path with its query, or an absolute URL."""
    stream: int = 1
    """The stream of HTTP/2, or the number of the request on its connection, from 1."""
    server: Server | None = None
    """Where it goes instead of its own server."""
    sent: tuple[str, str] = field(init=False)
    """The method and the URL that the client has sent, which filters are about, also once the
    request was changed."""

    def __post_init__(self) -> None:
        self.sent = self.method, self.url

    @property
    def url(self) -> str:
        if self.target.startswith("/"):
            return f"{self.scheme}://{self.authority}{self.target}"
        return f"{self.scheme}://{self.authority}" if self.target == "*" else self.target

    @property
    def path(self) -> str:
        """The path with its query, also of an absolute URL."""
        if self.target.startswith("/") or "://" not in self.target:
            return self.target
        _, slash, path = self.target.partition("://")[2].partition("/")
        return slash + path or "/"


@dataclass(slots=True, kw_only=True)
class Response(_HttpMessage):
    """A response: a server's, or one that an editor gives instead."""

    version: str = "HTTP/1.1"
    status: int
    reason: str | None = None
    """The reason phrase; None: the usual one."""


def plain_answer(status: int, text: str) -> Response:
    """An answer of mitml4's: a line of text."""
    headers = Headers.of([("Content-Type", "text/plain; charset=utf-8")])
    body = f"mitml4: {text}\n".encode("utf-8", "backslashreplace")
    return Response(status=status, headers=headers, body=body)


def is_unread(message: Request | Response, came: bytes | bytearray) -> bool:
    """Whether a body came that is not handed over, such as one whose coding cannot be undone."""
    return bool(came) and message.body is None


@dataclass(slots=True, kw_only=True)
class Message:
    """A message of WebSocket, with its compression undone."""

    direction: Literal["up", "down"]
    is_text: bool
    content: bytes


Answer: TypeAlias = Response | Ending
"""What happens instead of going to the server."""
