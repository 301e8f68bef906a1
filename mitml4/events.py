"""All events: the public contract of the JSON lines.

An event is a frozen dataclass. Its fields are the fields of the JSON object, in order, after
`type`, `time` and `v`. A protocol declares its own events (`http.request`); `LayerEvent` adds the
time, the flow and the layer. `encode` makes one compact line; `json_schema` (mitml4/schema.py) is
generated from these classes. Fields may be added; a changed meaning needs a new `VERSION`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import field, fields, is_dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from json.encoder import encode_basestring
from math import isfinite
from operator import attrgetter
from types import UnionType
from typing import Any, ClassVar, Final, Literal, TypeAlias, get_args, get_origin, get_type_hints

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.payload.text import PayloadText
from mitml4.process import Process
from mitml4.protocols.conversation import Details
from mitml4.protocols.protocol_event import ProtocolEvent
from mitml4.protocols.tls.certificate import CertificateDetails
from mitml4.protocols.wire_text import MAX_TEXT, bounded, shorten, text
from mitml4.regex import regex

__all__ = [
    "EVENTS",
    "FAILURES",
    "VERSION",
    "VITAL",
    "Address",
    "CertificateAuthority",
    "ClientProbe",
    "DnsRefused",
    "Event",
    "FlowClose",
    "FlowError",
    "FlowLayer",
    "FlowOpen",
    "LayerEvent",
    "ProbeOutcome",
    "Process",
    "QuicRefused",
    "RuleApplied",
    "SessionStart",
    "SessionStop",
    "content_weight",
    "encode",
    "now",
    "to_json",
    "to_line",
    "weight",
]

VERSION: Final = 1


def now() -> datetime:
    """The time of an event that happens now."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class CertificateAuthority:
    """The authority that signs the leaves: RFC 4514 subject, and the SHA-256 of its DER in hex."""

    subject: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The common fields of all events: the type, and the time (UTC; packet time for captures)."""

    type: ClassVar[str]
    time: datetime = field(default_factory=now)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStart(Event):
    """Rules and listeners are ready, and a test connection has passed through them. `via`: the
    proxies that connections go through, as `URL`, `HOST=URL` or `VARIABLE=URL`, without
    credentials.
    """

    type: ClassVar[str] = "session.start"
    version: str
    mode: Literal["intercept", "run", "proxy", "detect"]
    interfaces: tuple[str, ...]
    listeners: tuple[Address, ...]
    ca: CertificateAuthority | None
    table: str | None
    pid: int
    via: tuple[str, ...] = ()
    attached: str | None = None
    """The container, process, network namespace, users or cgroups whose connections these are, in
    words, where that is not an interface."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowOpen(Event):
    """A connection was accepted (live), or its first packet was seen (captures). `name`: what its
    client had asked DNS for, where that is known. Flows of UDP are in captures only; one ends when
    both sides have been silent for a minute.
    """

    type: ClassVar[str] = "flow.open"
    flow: int
    transport: Literal["tcp", "udp"] = "tcp"
    client: Address
    destination: Address
    interface: str | None = None
    name: str | None = None
    side: Literal["client", "server"] | None = None
    """In a packet file that mitml4 wrote: the side of mitml4 on which the packets were seen."""
    session_flow: int | None = None
    """In such a file: the number of the flow in the session that wrote it."""
    container: str | None = None
    """The name of the container that it comes from, with `--container`."""
    process: Process | None = None
    """Which program of this host has connected, where that was found: a live connection that was
    forwarded comes from elsewhere."""


Action: TypeAlias = Literal["relayed", "intercepted", "passthrough", "answered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowLayer(Event):
    """A layer of the stack is known; outermost first, each depth once.

    TLS is `intercepted` if it was decrypted, also with the secrets of a capture, and `passthrough`
    otherwise. A layer is `answered` if mitml4 itself is the server (the CA page). `connect_s` of
    the outermost layer: how long it took to connect to the server.
    """

    type: ClassVar[str] = "flow.layer"
    flow: int
    depth: int
    protocol: str
    speaker: Literal["client", "server"]
    action: Action
    details: Details | None = None
    connect_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerEvent(Event):
    """An event of a protocol, in a layer of a flow.

    On its line, the fields of `content` follow `flow` and `depth`, and `type` is the content's
    type.
    """

    flow: int
    depth: int
    content: ProtocolEvent
    weight: int = field(init=False, repr=False, compare=False)
    """Its approximate memory, in bytes; not on its line."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", _BARE_BYTES + _fields_weight(self.content))


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowError(Event):
    """Something failed in a flow."""

    type: ClassVar[str] = "flow.error"
    flow: int
    depth: int
    side: Literal["client", "server"]
    stage: Literal["connect", "detect", "handshake", "relay"]
    kind: Literal["refused", "timeout", "reset", "alert", "certificate", "protocol", "internal"]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleApplied(Event):
    """A rule or a hook has changed something. `rule` is its number in its file, from 1, and `match`
    its expression; `hook` is the script and its function. `what` is what was done: the key of the
    rule, `replace in response.body`, `changed headers, content`, or `not replaced` or `unedited`
    with the `reason`. `stream` is null where the protocol has none.
    """

    type: ClassVar[str] = "rule.applied"
    flow: int
    depth: int
    stream: int | None
    rule: int | None
    match: str | None
    what: str
    reason: str | None
    hook: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptError(Event):
    """A hook has failed, and the traffic is as it was. `hook` is the script and its function,
    `what` whether it has raised an `exception`, took too long (`timeout`), its process has `ended`,
    or what it wants cannot be done (`refused`)."""

    type: ClassVar[str] = "script.error"
    flow: int
    depth: int
    stream: int | None
    hook: str
    what: Literal["exception", "timeout", "ended", "refused"]
    reason: str


CloseReason: TypeAlias = Literal[
    "closed", "reset", "refused", "timeout", "blocked", "denied", "error", "shutdown"
]


FAILURES: Final = frozenset({"reset", "refused", "timeout", "error"})
"""The reasons of flow.close that count as a failure."""


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


ProbeOutcome: TypeAlias = Literal["refused", "accepted", "sent_data", "not_offered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientProbe(Event):
    """`--probe-clients`: what a client did when it was shown a defect (`case`) in place of the
    certificate for `name`. `not_offered`: its ClientHello leaves no way to show it. `reason`: its
    alert, how it ended the connection, or how much it sent.
    """

    type: ClassVar[str] = "client.probe"
    flow: int
    client: Address
    process: Process | None = None
    name: str
    case: Literal[
        "self_signed",
        "unknown_issuer",
        "wrong_name",
        "expired",
        "not_yet_valid",
        "leaf_as_issuer",
        "weak_key",
        "sha1",
        "old_version",
        "revoked",
    ]
    outcome: ProbeOutcome
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsRefused(Event):
    """`--allow` names no such host: the query was answered with REFUSED, and nobody was asked.
    `name` is null where the query has none that can be read."""

    type: ClassVar[str] = "dns.refused"
    client: Address
    name: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuicRefused(Event):
    """QUIC of a client was refused, so that it falls back to TCP (`--quic block`); once for each
    pair of ports. `name`: what it had asked DNS for, where that is known. `sni`, `alpn` (what it
    offers) and `ja4` are its ClientHello's, and null where not all of that came.
    """

    type: ClassVar[str] = "quic.refused"
    client: Address
    destination: Address
    name: str | None
    sni: str | None
    alpn: tuple[bytes, ...] | None
    ja4: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStop(Event):
    """The rules are removed; totals. `stacks` maps `socks5 › tls` to the number of flows."""

    type: ClassVar[str] = "session.stop"
    flows: int
    bytes_up: int
    bytes_down: int
    stacks: Mapping[str, int]
    dropped_events: int
    refused_connections: int
    """Connections that were refused because a limit was reached; they have no flow events."""
    reason: str


EVENTS: Final[tuple[type[Event], ...]] = (
    SessionStart,
    FlowOpen,
    FlowLayer,
    FlowError,
    RuleApplied,
    ScriptError,
    FlowClose,
    ClientProbe,
    DnsRefused,
    QuicRefused,
    SessionStop,
)
"""All events except those of protocols, which are in their rows of the registry."""

VITAL: Final = (SessionStart, FlowOpen, FlowError, FlowClose, ClientProbe, DnsRefused, SessionStop)
"""Events that are never dropped, so that the list of flows is complete."""

_BARE_BYTES: Final = 512
"""Approximate memory of an event without its texts; on a line it is less."""
_ITEM_BYTES: Final = 56
"""Approximate memory of an item of a list; a pair of texts takes three times as much."""
_TEXTS: Final = (str, bytes)
_OF_ONE_SIZE: Final = (int, float, bool, type(None), datetime, Address)


def weight(event: Event) -> int:
    """The approximate memory of an event, in bytes."""
    if isinstance(event, LayerEvent):
        return event.weight
    if isinstance(event, FlowLayer):
        return _BARE_BYTES + _text_weight(event.details)
    return _BARE_BYTES


def content_weight(content: object) -> int:
    """The approximate memory of the event of what happened in a conversation, in bytes."""
    return _BARE_BYTES + _fields_weight(content)


def _fields_weight(value: Any) -> int:
    total = 0
    for each in (_texts_of.get(type(value)) or _texts(type(value)))(value):
        if type(each) is str:  # most are, and this is on the way of every event
            total += len(each)
        elif each is not None:
            total += _text_weight(each)
    return total


def _text_weight(value: Any) -> int:
    if isinstance(value, _TEXTS):
        return len(value)
    if isinstance(value, tuple):
        return _ITEM_BYTES * len(value) + sum(map(_text_weight, value))
    return _fields_weight(value) if is_dataclass(value) else 0


_Texts: TypeAlias = Callable[[Any], tuple[Any, ...]]


def _texts(cls: type[Any]) -> _Texts:
    """What gets those fields of an instance of this class whose values differ in size."""
    hints = get_type_hints(cls)
    names = [item.name for item in fields(cls) if not _is_of_one_size(hints[item.name])]
    several: _Texts = attrgetter(*names) if len(names) > 1 else lambda _: ()
    _texts_of[cls] = (lambda value: (getattr(value, names[0]),)) if len(names) == 1 else several
    return _texts_of[cls]


_texts_of: Final[dict[type[Any], _Texts]] = {}


def _is_of_one_size(hint: Any) -> bool:
    return (
        hint in _OF_ONE_SIZE
        or get_origin(hint) is Literal
        or (isinstance(hint, type) and issubclass(hint, Enum))
        or (get_origin(hint) is UnionType and all(map(_is_of_one_size, get_args(hint))))
    )


def to_json(value: object) -> object:
    """Convert a field's value that the json module does not support, by one level."""
    match value:
        case bytes():
            return text(value)
        case datetime():
            return _time(value)
        case Enum():
            return value.value
        case Mapping():
            return dict(value)
    if is_dataclass(value):
        return {
            name: getattr(value, name)
            for name, _ in _keys_of.get(type(value)) or _keys(type(value))
        }
    raise TypeError(f"no JSON form for {type(value).__name__}")


def _time(value: datetime) -> str:
    global _second
    if value.tzinfo is not UTC:
        value = value.astimezone(UTC)
    day = value.year, value.month, value.day, value.hour, value.minute, value.second
    known, start = _second
    if known != day:
        start = value.isoformat(timespec="seconds")[:-6]  # without +00:00
        _second = day, start
    return f"{start}.{value.microsecond:06}Z"


_second: tuple[tuple[int, ...], str] = ((), "")
"""The second of the last time that was written, and its text: events come many a second."""


def encode(event: Event, *, headers: bool = True) -> str:
    """One compact JSON object, without the newline. Takes some 4 µs, of which the time is one.

    `headers`: whether to include the headers of messages.
    """
    if isinstance(event, LayerEvent):
        content: Any = event.content
        if not headers and getattr(content, "headers", None) is not None:
            content = replace(content, headers=None)
        members = f'"flow":{event.flow},"depth":{event.depth},{_members(content)}'
    else:
        content, members = event, _members(event, 1)  # without the time, which is the first
    head = f'{{"type":"{content.type}","time":"{_time(event.time)}","v":{VERSION},'
    return _harmless(f"{head}{members}}}")


def to_line(value: object) -> str:
    """Any value as one compact line of JSON."""
    return _harmless(_to_json(value))


def _harmless(line: str) -> str:
    return line if line.isascii() else _OBEYED.sub(_escape, line)


# Characters that JSON need not escape, but that a terminal interprets, or that a reader takes for
# the end of a line: C1, bidirectional formatting, line and paragraph separators.
_OBEYED: Final = regex(r"[\x80-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


_to_json: Final = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), default=to_json
).encode


def _members(value: Any, start: int = 0) -> str:
    members = []
    for name, key in (_keys_of.get(type(value)) or _keys(type(value)))[start:]:
        member = getattr(value, name)
        if member is None:
            members.append(f"{key}null")
        elif type(member) is str and len(member) <= MAX_TEXT:
            members.append(key + encode_basestring(member))
        elif type(member) is int:
            members.append(f"{key}{member}")
        else:
            members.append(key + _WRITE.get(type(member), _json)(member))
    return ",".join(members)


def _json(value: object) -> str:
    """The same result as `_to_json`, in half the time for the values in events."""
    write = _WRITE.get(type(value))
    if write:
        return write(value)
    if is_dataclass(value):
        return "{" + _members(value) + "}"
    return _json(value.value) if isinstance(value, Enum) else _to_json(value)


_REMEMBERED: Final = 64
_WRITE: Final[dict[type, Callable[[Any], str]]] = {
    str: lambda value: encode_basestring(shorten(value)),
    PayloadText: encode_basestring,
    int: int.__repr__,
    bool: lambda value: "true" if value else "false",
    type(None): lambda _: "null",
    bytes: lambda value: encode_basestring(text(value)),
    datetime: lambda value: f'"{_time(value)}"',
    Address: lambda value: f'{{"ip":{encode_basestring(value.ip)},"port":{value.port}}}',
    # The same certificate is in the event of each connection to a site.
    CertificateDetails: lru_cache(_REMEMBERED)(lambda value: f"{{{_members(value)}}}"),
    tuple: lambda value: f"[{','.join(map(_json, bounded(value)))}]",
    float: lambda value: float.__repr__(round(value, 6)) if isfinite(value) else _to_json(value),
}


def _keys(cls: type[Any]) -> tuple[tuple[str, str], ...]:
    """The names of its fields, and the text before their values."""
    keys = _keys_of[cls] = tuple((item.name, f'"{item.name}":') for item in fields(cls))
    return keys


_keys_of: Final[dict[type[Any], tuple[tuple[str, str], ...]]] = {}
