"""Every event, frozen: the public contract that JSON lines, the live table and users' jq speak.

An event is a dataclass whose fields are the JSON object's fields, in order, behind `type`, `time`
and `v`. `encode` makes the one compact line; `json_schema` (mitml4/schema.py) is generated from
these same classes. A field is only ever added; a changed meaning is a new `VERSION`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, ClassVar, Final, Literal, TypeAlias

from mitml4.address import Address
from mitml4.protocols.conversation import Facts

__all__ = [
    "EVENTS",
    "VERSION",
    "Address",
    "CertificateAuthority",
    "Event",
    "FlowClose",
    "FlowError",
    "FlowLayer",
    "FlowOpen",
    "HttpEnd",
    "HttpRequest",
    "HttpResponse",
    "SessionStart",
    "SessionStop",
    "WebSocketMessage",
    "encode",
    "now",
    "text",
    "to_json",
]

VERSION: Final = 1


def now() -> datetime:
    """The time of an event that is happening."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class CertificateAuthority:
    """The authority that signs the leaves: RFC 4514 subject, and the SHA-256 of its DER in hex."""

    subject: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What every event has: its type, and when (UTC; packet time for captures)."""

    type: ClassVar[str]
    time: datetime = field(default_factory=now)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStart(Event):
    """Rules and listeners are up, and a connection of the session's own has come through them."""

    type: ClassVar[str] = "session.start"
    version: str
    mode: Literal["intercept", "run", "detect"]
    interfaces: tuple[str, ...]
    listeners: tuple[Address, ...]
    ca: CertificateAuthority | None
    table: str | None
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowOpen(Event):
    """A connection was accepted (live), or its first packet was seen (captures)."""

    type: ClassVar[str] = "flow.open"
    flow: int
    client: Address
    destination: Address
    interface: str | None = None
    name: str | None = None


Action: TypeAlias = Literal["relayed", "intercepted", "passthrough"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowLayer(Event):
    """A layer of the stack is known; outermost first, each depth once.

    TLS is `intercepted` where it was opened, be it with the secrets of a capture, and `passthrough`
    where it stayed closed.
    """

    type: ClassVar[str] = "flow.layer"
    flow: int
    depth: int
    protocol: str
    speaker: Literal["client", "server"]
    action: Action
    details: Facts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest(Event):
    """A request head was seen. `stream`: the HTTP/2 stream id, or the message number from 1."""

    type: ClassVar[str] = "http.request"
    flow: int
    depth: int
    stream: int
    method: str
    url: str
    version: str
    content_type: str | None = None
    headers: tuple[tuple[str, str], ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse(Event):
    """A response head was seen, informational ones included."""

    type: ClassVar[str] = "http.response"
    flow: int
    depth: int
    stream: int
    status: int
    version: str
    content_type: str | None = None
    headers: tuple[tuple[str, str], ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpEnd(Event):
    """The exchange is complete: body bytes as sent."""

    type: ClassVar[str] = "http.end"
    flow: int
    depth: int
    stream: int
    request_bytes: int
    response_bytes: int
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSocketMessage(Event):
    """A message (all its fragments) or a control frame ended."""

    type: ClassVar[str] = "websocket.message"
    flow: int
    depth: int
    direction: Literal["up", "down"]
    opcode: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowError(Event):
    """Something failed in a flow."""

    type: ClassVar[str] = "flow.error"
    flow: int
    depth: int
    side: Literal["ingress", "egress"]
    stage: Literal["connect", "detect", "handshake", "relay"]
    kind: Literal[
        "refused",
        "timeout",
        "reset",
        "alert",
        "certificate",
        "protocol",
        "resources",
        "internal",
    ]
    reason: str


CloseReason: TypeAlias = Literal[
    "closed", "reset", "refused", "timeout", "blocked", "error", "shutdown"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowClose(Event):
    """Exactly one per flow.open, always the last of its flow."""

    type: ClassVar[str] = "flow.close"
    flow: int
    stack: tuple[str, ...]
    reason: CloseReason
    bytes_up: int
    bytes_down: int
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStop(Event):
    """The rules are gone; totals. `stacks` maps `socks5 › tls` to the number of flows."""

    type: ClassVar[str] = "session.stop"
    flows: int
    bytes_up: int
    bytes_down: int
    stacks: Mapping[str, int]
    dropped_events: int
    reason: str


EVENTS: Final[tuple[type[Event], ...]] = (
    SessionStart,
    FlowOpen,
    FlowLayer,
    HttpRequest,
    HttpResponse,
    HttpEnd,
    WebSocketMessage,
    FlowError,
    FlowClose,
    SessionStop,
)


def text(data: bytes) -> str:
    r"""Wire bytes as text: UTF-8, and ``\xNN`` for every byte that is not."""
    return data.decode("utf-8", "backslashreplace")


def to_json(value: object) -> object:
    """A value of a field that the json module does not know, one level of it."""
    match value:
        case bytes():
            return text(value)
        case datetime():
            return (
                f"{value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
            )
        case Enum():
            return value.value
        case Mapping():
            return dict(value)
    if is_dataclass(value):
        return {name: getattr(value, name) for name in _names(type(value))}
    raise TypeError(f"no JSON form for {type(value).__name__}")


def encode(event: Event) -> str:
    """One compact JSON object, without the newline. Takes some 10 µs."""
    body: dict[str, object] = {"type": event.type, "time": event.time, "v": VERSION}
    for name in _names(type(event)):
        value = getattr(event, name)
        body[name] = round(value, 6) if isinstance(value, float) else value
    line = _to_line(body)
    return line if line.isascii() else _OBEYED.sub(_escape, line)


# What JSON need not escape, though a terminal obeys it, or a reader takes it for the end of a line:
# C1, bidirectional formatting, line and paragraph separators.
_OBEYED: Final = re.compile(r"[\x80-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _names(cls: type[Any]) -> tuple[str, ...]:
    if cls not in _names_of:
        _names_of[cls] = tuple(item.name for item in fields(cls))
    return _names_of[cls]


_names_of: Final[dict[type[Any], tuple[str, ...]]] = {}


_to_line: Final = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), default=to_json
).encode
