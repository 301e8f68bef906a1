"""The events of HTTP: request, response, bodies, and the end of an exchange."""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias

from mitml4.dataclass import dataclass
from mitml4.payload.text import PayloadText
from mitml4.protocols.conversation import Direction
from mitml4.protocols.protocol_event import ProtocolEvent

__all__ = [
    "GrpcMessage",
    "HttpBody",
    "HttpEnd",
    "HttpRequest",
    "HttpResponse",
    "Outcome",
    "Pairs",
]

Pairs: TypeAlias = tuple[tuple[str, str], ...]
"""Names and values of header fields, in the order and the spelling of the wire."""

Outcome: TypeAlias = Literal["complete", "reset", "cut"]
"""How an exchange ended. `reset`: one side reset the stream; `cut`: the connection ended first, or
could not be followed further."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest(ProtocolEvent):
    """A request head was seen. Where the request waits behind others, or is the first of its
    connection and a CONNECT or an `Upgrade`, the event comes with its answer. `stream`: the HTTP/2
    stream id, or the message number from 1."""

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
class HttpBody(ProtocolEvent):
    """With --payload: the body of a request or response has ended, and was not empty. `size` is as
    sent; `decoded_size` with the codings in `encoding` undone, null if not all was decoded. Where
    they could not be undone, `encoding` is empty and the body is as it came; `coding_error` says
    why. Either `text`, which was in `charset`, or `base64`. `truncated`: there is more than is
    shown.
    """

    type: ClassVar[str] = "http.body"
    stream: int
    side: Literal["request", "response"]
    size: int
    decoded_size: int | None
    encoding: tuple[str, ...]
    coding_error: str | None
    charset: str | None
    text: PayloadText | None
    base64: PayloadText | None
    truncated: bool

    @property
    def payload_size(self) -> int:
        return len(self.text or self.base64 or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcMessage(ProtocolEvent):
    """With --payload: a message of gRPC has ended; its stream has no `http.body`. `size` is as
    sent, and `compressed` the flag before it. `base64` is the message with `encoding` undone; see
    `http.body` for `coding_error`, `decoded_size` and `truncated`.
    """

    type: ClassVar[str] = "grpc.message"
    stream: int
    direction: Direction
    size: int
    compressed: bool
    decoded_size: int | None
    encoding: tuple[str, ...]
    coding_error: str | None
    base64: PayloadText
    truncated: bool

    @property
    def payload_size(self) -> int:
        return len(self.base64)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpEnd(ProtocolEvent):
    """The exchange has ended; body bytes as sent. `outcome`: `reset` if a side reset the stream,
    with its `reset_code` (RFC 9113 §7); `cut` if the connection ended first. `request_s`: how long
    it took until the request's content was complete; null if it has none, or never was. Where the
    process that carried the flow has ended, the bytes of its exchanges are 0.
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
    request_s: float | None = None
