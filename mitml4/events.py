"""All events: the public contract of the JSON lines.

An event is a frozen dataclass. Its fields are the fields of the JSON object, in order, after
`type`, `time` and `v`. A protocol declares its own events (`http.request`); `LayerEvent` adds the
time, the flow and the layer. `encode` (mitml4/encoding.py) makes one compact line; `json_schema`
(mitml4/schema.py) is generated from these classes. Fields may be added; a changed meaning needs a
new `VERSION`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field, fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from types import UnionType
from typing import Any, ClassVar, Final, Literal, TypeAlias, get_args, get_origin, get_type_hints

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.process import Process
from mitml4.protocols.conversation import Details
from mitml4.protocols.protocol_event import ProtocolEvent

__all__ = [
    "EVENTS",
    "FAILURES",
    "NOT_APPLIED",
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
    "now",
    "weight",
]

VERSION: Final = 1


now: Final[Callable[[], datetime]] = partial(datetime.now, UTC)
"""The time of an event that happens now."""


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
    """With `--container`, the name of that container; its network may be that of others (a pod)."""
    process: Process | None = None
    """Which program of this host has connected, where that was found: a live connection that was
    forwarded comes from elsewhere."""


Action: TypeAlias = Literal["relayed", "intercepted", "passthrough", "answered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowLayer(Event):
    """A layer of the stack is known; outermost first, each depth once.

    TLS is `intercepted` if it was decrypted, also with the secrets of a capture, `passthrough` if
    it was not, and `relayed` if `--block` or `--allow` ended the flow before that. A layer is
    `answered` if mitml4 itself is the server (the CA page). `connect_s` of the outermost layer: how
    long it took to connect to the server.
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
    _weight: int = field(default=0, init=False, repr=False, compare=False)

    @property
    def weight(self) -> int:
        """Its approximate memory, in bytes; not on its line."""
        if not self._weight:  # it is assigned here only
            self._weight = content_weight(self.content)  # type: ignore[misc]
        return self._weight


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


NOT_APPLIED: Final = ("unedited", "not replaced")
"""What `rule.applied` says where nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleApplied(Event):
    """A rule or a hook has changed something. `rule` is its number in its `file`, from 1, and
    `match` its expression; `hook` is the script and its function. `what` is what was done: the key
    of the rule, `replace in response.body`, `changed headers, content`, or `not replaced` or
    `unedited` with the `reason`. `stream` is null where the protocol has none.
    """

    type: ClassVar[str] = "rule.applied"
    flow: int
    depth: int
    stream: int | None
    rule: int | None
    file: str | None
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
    """Exactly one per flow.open, always the last of its flow. The bytes are 0 where the process
    that carried the flow has ended (`flow.error` of the kind `internal`). A client that resets its
    connection once it was sent the server's end has `closed` it, without reading all.
    """

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

VITAL: Final = frozenset(
    {SessionStart, FlowOpen, FlowError, FlowClose, ClientProbe, DnsRefused, SessionStop}
)
"""Events that are never dropped, so that the list of flows is complete."""

_BARE_BYTES: Final = 512
"""Approximate memory of an event without its texts; on a line it is less."""
_ITEM_BYTES: Final = 56
"""Approximate memory of an item of a list; a pair of texts takes three times as much."""
_OF_ONE_SIZE: Final = (int, float, bool, type(None), datetime, Address)


def weight(event: Event) -> int:
    """The approximate memory of an event, in bytes."""
    if isinstance(event, LayerEvent):
        return event.weight
    if isinstance(event, FlowLayer) and event.details is not None:
        return _BARE_BYTES + _WEIGHERS[type(event.details)](event.details)
    return _BARE_BYTES


def content_weight(content: object) -> int:
    """The approximate memory of the event of what happened in a conversation, in bytes."""
    return _BARE_BYTES + _WEIGHERS[type(content)](content)


_Weigh: TypeAlias = Callable[[Any], int]


class _Weighers(dict[type, _Weigh]):
    """What tells the memory of the texts in a value of a class."""

    def __missing__(self, cls: type) -> _Weigh:
        weigh: _Weigh = lambda _: 0  # noqa: E731
        if issubclass(cls, (str, bytes)):
            weigh = len
        elif issubclass(cls, tuple):
            weigh = _tuple_weight
        elif is_dataclass(cls):
            weigh = _fields_weigher(cls)
        self[cls] = weigh
        return weigh


_WEIGHERS: Final = _Weighers()


def _tuple_weight(values: tuple[Any, ...]) -> int:
    total = _ITEM_BYTES * len(values)
    for each in values:
        total += _WEIGHERS[type(each)](each)
    return total


def _fields_weigher(cls: type[Any]) -> _Weigh:
    """The weights of those fields whose values differ in size, added up in one expression."""
    hints = get_type_hints(cls)
    names = [item.name for item in fields(cls) if not _is_of_one_size(hints[item.name])]
    terms = [f"(0 if (_ := value.{name}) is None else _weighers[type(_)](_))" for name in names]
    known: dict[str, Any] = {"_weighers": _WEIGHERS}
    exec(f"def weigh(value):\n return {' + '.join(terms) or 0}", known)
    weigh: _Weigh = known["weigh"]
    return weigh


def _is_of_one_size(hint: Any) -> bool:
    return (
        hint in _OF_ONE_SIZE
        or get_origin(hint) is Literal
        or (isinstance(hint, type) and issubclass(hint, Enum))
        or (get_origin(hint) is UnionType and all(map(_is_of_one_size, get_args(hint))))
    )
