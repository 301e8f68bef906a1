"""The events of HTTP: request, response, and the end of an exchange."""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias

from mitml4.dataclass import dataclass
from mitml4.protocols.protocol_event import ProtocolEvent

__all__ = ["HttpEnd", "HttpRequest", "HttpResponse", "Outcome", "Pairs"]

Pairs: TypeAlias = tuple[tuple[str, str], ...]
"""Names and values of header fields, in the order and the spelling of the wire."""

Outcome: TypeAlias = Literal["complete", "reset", "cut"]
"""How an exchange ended. `reset`: one side reset the stream; `cut`: the connection ended first, or
could not be followed further."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest(ProtocolEvent):
    """A request head was seen; if it waits behind others, or begins a connection with CONNECT or
    an `Upgrade`, also its answer. `stream`: the HTTP/2 stream id, or the message number from 1."""

    type: ClassVar[str] = "http.request"
    stream: int
    method: str
    url: str
    version: str
    content_type: str | None = None
    headers: Pairs | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse(ProtocolEvent):
    """A response head was seen, informational ones included."""

    type: ClassVar[str] = "http.response"
    stream: int
    status: int
    version: str
    content_type: str | None = None
    headers: Pairs | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpEnd(ProtocolEvent):
    """The exchange has ended; body bytes as sent. `outcome`: `reset` if a side reset the stream,
    with its `reset_code` (RFC 9113 §7); `cut` if the connection ended first.
    """

    type: ClassVar[str] = "http.end"
    stream: int
    request_bytes: int
    response_bytes: int
    duration_s: float
    outcome: Outcome = "complete"
    reset_code: str | None = None
    request_trailers: Pairs | None = None
    trailers: Pairs | None = None
