"""The interface between protocols and the engine.

A protocol is detected from the first bytes of both directions (`Opening` → `Verdict`) and then
followed by a `Conversation`, which is fed bytes and says for each direction what may happen to the
bytes that come next (`Directive`). Only the engine (`mitml4/engine/`) calls it; no protocol knows a
socket.

    PEEK        show the bytes before they move; the conversation says how many are its own
    MIRROR      all that follow are its own: show each before it moves, and move it in any case
    Forward(n)  the next n (None: all) are its own: move them unseen, and say how many moved; or
                show a copy of each piece first, whatever its length
    PAUSE       move nothing until the other direction has changed this directive
    SWITCH      this direction is over; the next byte belongs to an inner protocol

MIRROR may only be followed by FORWARD_ALL. Each call returns a `Decision`: the directives, and what
was learned.

A conversation ends when both directions are `SWITCH` (then an inner protocol is looked for), or
when the streams end. `PEEK` is what keeps a boundary exact: bytes that are not the conversation's
own stay where they are, so that an inner TLS can read them from the socket itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import field
from enum import Enum
from functools import wraps
from typing import ClassVar, Final, Literal, TypeAlias

from mitml4.dataclass import dataclass
from mitml4.enums import plain_members
from mitml4.protocols.context import LayerContext
from mitml4.protocols.expected import Announcement
from mitml4.protocols.policy import End, Target, Unreadable
from mitml4.protocols.protocol_event import ProtocolEvent, StreamLayer

__all__ = [
    "DIRECTIONS",
    "FORWARD_ALL",
    "MAX_PEEK",
    "MIRROR",
    "PAUSE",
    "PEEK",
    "SWITCH",
    "Conversation",
    "Decision",
    "Details",
    "Direction",
    "Directive",
    "End",
    "Forward",
    "Framing",
    "InnerProtocol",
    "LayerContext",
    "Opening",
    "Prelude",
    "Protocol",
    "Speaker",
    "Target",
    "Unreadable",
    "Verdict",
]

MAX_PEEK: Final = 65536
"""The most bytes that a conversation is shown at once: a unit that is longer is a ProtocolError."""

Speaker: TypeAlias = Literal["client", "server"]
"""Who sent the first byte of a layer."""


@plain_members
class Direction(Enum):
    """Up is from the client to the server, down is from the server to the client."""

    UP = "up"
    DOWN = "down"

    # It is a key wherever bytes move, and Enum would hash in Python.
    __hash__ = object.__hash__

    @property
    def other(self) -> Direction:
        return Direction.DOWN if self is Direction.UP else Direction.UP


DIRECTIONS: Final = (Direction.UP, Direction.DOWN)
"""Both. To iterate over an Enum is slower, because that is Python too."""


@plain_members
class Verdict(Enum):
    """The answer of a detector. MATCH and REJECT are final: no bytes that follow change them.

    A server's bytes alone reject nothing, as long as the client may still speak: they may be the
    answer to what it says. `Protocol` sees to that for every detector.
    """

    MATCH = "match"
    LIKELY = "likely"
    """Not certain yet, but the answer if nothing more comes."""
    NEED_MORE = "need-more"
    REJECT = "reject"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """The first bytes of both directions, as far as they have arrived (at most MAX_PEEK each)."""

    up: bytes = b""
    down: bytes = b""
    up_ended: bool = False
    down_ended: bool = False
    stack: tuple[str, ...] = ()
    """The protocols outside, outermost first: inside `smtp › tls` an `EHLO` needs no greeting."""
    port: int | None = None
    """The destination port: a hint for rules that are too weak alone, and never enough."""


@dataclass(frozen=True, slots=True)
class Forward:
    """Move the next `count` bytes (None: all that follow) without showing them."""

    count: int | None = None
    is_copied: bool = False
    """Whether the conversation is given a copy of each piece, before it moves."""


class _Directive(Enum):
    PEEK = "peek"
    MIRROR = "mirror"
    PAUSE = "pause"
    SWITCH = "switch"

    __hash__ = object.__hash__


PEEK: Final = _Directive.PEEK
MIRROR: Final = _Directive.MIRROR
PAUSE: Final = _Directive.PAUSE
SWITCH: Final = _Directive.SWITCH
FORWARD_ALL: Final = Forward()

Directive: TypeAlias = _Directive | Forward


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What a protocol has learned of one connection: the `details` of `flow.layer`.

    Each protocol has a subclass. Fields hold str, int, float, bool, None, bytes (shown as text with
    ``\\xNN`` escapes), `Target`, tuples of these, or nested dataclasses of these. The docstring is
    the description in the JSON Schema.
    """


class Framing(ABC):
    """How an inner TLS handshake is carried: in packets of the outer protocol.

    One object serves one end of a connection, for both directions.
    """

    @abstractmethod
    def unwrap(self, data: bytes | memoryview) -> bytes | memoryview:
        """The inner bytes of the bytes that come next, which may be split anywhere. Keeps none of
        the inner bytes.

        Bytes without packets around them are returned as they are, so it need not be told when the
        packets end. Never raises: the inner protocol rejects what is neither packet nor TLS.
        """

    @abstractmethod
    def wrap(self, data: bytes) -> bytes:
        """The packets of one message."""


@dataclass(frozen=True, slots=True)
class Prelude:
    """What a client has said before an inner protocol began, if another connection to the server
    comes to the same point by it."""

    messages: tuple[bytes, ...]
    """The client's, each of which has an answer."""
    begin: Callable[[], Conversation]
    """A conversation that follows the other connection, and is SWITCH at the same point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerProtocol:
    """The protocol that begins where both directions are SWITCH."""

    protocol: str | None = None
    """Its name where it was negotiated (`websocket`), else None: detect it."""
    negotiated: bytes = b""
    """What was negotiated for it: the extensions of a WebSocket."""
    framing: Callable[[], Framing] | None = None
    """The packets around an inner TLS handshake; None: there are none."""
    passthrough_reason: str | None = None
    """Why intercepting the inner TLS would break the connection, where that is known before."""
    prelude: Prelude | None = None
    """How another connection to the server comes to this point; None: it may not."""


@dataclass(slots=True)
class Decision:
    """What a conversation has decided after one call. The engine sees nothing else of it."""

    taken: int
    """How many of the bytes shown are the conversation's own."""
    up: Directive
    down: Directive
    details_ready: bool = False
    """The details are as complete as the opening makes them: the layer may be announced."""
    protocol_events: Sequence[ProtocolEvent | StreamLayer] = ()
    """What happened, in order."""
    announced: Sequence[Announcement] = ()
    """Connections that follow, as one of the sides has said."""
    named: Sequence[End] = ()
    """Where the client has asked to go in the bytes shown: targets, SNI, Host."""
    target: Target | None = None
    """Where the inner protocol is bound for, once the client has asked for it here."""
    elsewhere: bool = False
    """Whether the client may ask here for hosts at any port, as one asks a proxy."""
    channel_binding: bool | None = None
    """Whether logins are bound to the TLS that this runs in: True once the server offers it, False
    once it accepts a login, which it would not have done where that TLS was opened."""
    inner: InnerProtocol | None = None
    """Set where both directions are SWITCH."""


@dataclass(slots=True)
class Conversation:
    """One layer's conversation, to be subclassed. All calls are synchronous and never block.

    The engine calls `start`, `receive`, `receive_forwarded`, `receive_end` and `finish`. Each
    returns a `Decision`, made of what the subclass has recorded in the fields below. A subclass
    implements `feed` and, where needed, `passed`, `end` and `close`. It raises ProtocolError, and
    nothing else, for bytes that break the protocol; the rest is then relayed unseen.
    """

    name: ClassVar[str]
    counts_all: ClassVar[bool] = False
    """Whether it is told how many bytes move under a Forward without end."""
    may_lead_on: ClassVar[bool] = True
    """Whether a client may ask for a host in it or inside it, so that a broken one may hide a
    host."""

    context: LayerContext = field(default_factory=LayerContext)
    up: Directive = PEEK
    down: Directive = PEEK
    details_ready: bool = False
    inner: str | None = None
    """The name of the inner protocol, where it was negotiated."""
    negotiated: bytes = b""
    """What was negotiated for it beside its name."""
    framing: Callable[[], Framing] | None = None
    passthrough_reason: str | None = None
    prelude: Prelude | None = None
    channel_binding: bool | None = None
    target: Target | None = None
    elsewhere: bool = False
    named: list[End] = field(default_factory=list)
    announced: list[Announcement] = field(default_factory=list)
    protocol_events: list[ProtocolEvent | StreamLayer] = field(default_factory=list)
    """They are told behind the layer, and so wait until its details are ready."""

    # What the engine calls

    def start(self) -> Decision:
        """The directives before the first byte."""
        return self._decide()

    def receive(self, direction: Direction, data: bytes) -> Decision:
        """Show bytes under PEEK or MIRROR. Raises ProtocolError."""
        return self._decide(self.feed(direction, data))

    def receive_forwarded(self, direction: Direction, count: int) -> Decision:
        """Say that `count` bytes moved under a Forward, which they never exceed. Raises
        ProtocolError."""
        self.passed(direction, count)
        return self._decide()

    def receive_copied(self, direction: Direction, data: bytes) -> Decision:
        """Show bytes that move under a copied Forward, which they never exceed. Raises
        ProtocolError."""
        self.copied(direction, data)
        self.passed(direction, len(data))
        return self._decide()

    def receive_end(self, direction: Direction) -> Decision:
        """Say that a direction has ended (FIN). Raises ProtocolError."""
        self.end(direction)
        return self._decide()

    def finish(self) -> Decision:
        """Say that nothing more will come, for whatever reason."""
        self.close()
        self.details_ready = True
        return self._decide()

    def _decide(self, taken: int = 0) -> Decision:
        up, down, inner = self.up, self.down, None
        protocol_events: Sequence[ProtocolEvent | StreamLayer] = ()
        announced: Sequence[Announcement] = ()
        named: Sequence[End] = ()
        if self.protocol_events and self.details_ready:
            protocol_events, self.protocol_events = self.protocol_events, []
        if self.announced:
            announced, self.announced = self.announced, []
        if self.named:
            named, self.named = self.named, []
        if up is SWITCH and down is SWITCH:
            inner = InnerProtocol(
                protocol=self.inner,
                negotiated=self.negotiated,
                framing=self.framing,
                passthrough_reason=self.passthrough_reason,
                prelude=self.prelude,
            )
        return Decision(
            taken, up, down, self.details_ready, protocol_events, announced, named, self.target,
            self.elsewhere, self.channel_binding, inner,
        )  # fmt: skip

    # What a subclass uses and implements

    @property
    def awaits_answer(self) -> bool:
        """Whether the server has to answer before the next message of a prelude."""
        return False

    def directive(self, direction: Direction) -> Directive:
        return self.up if direction is Direction.UP else self.down

    def set_directive(self, direction: Direction, directive: Directive) -> None:
        if direction is Direction.UP:
            self.up = directive
        else:
            self.down = directive

    def feed(self, direction: Direction, data: bytes) -> int:
        """Read the bytes that come next in a direction, from the first one that has not moved.

        Under PEEK, return how many of them belong to the conversation and may move now. 0 means
        "not whole yet": the same bytes come again, with more after them. Take each unit as soon as
        it is whole, and leave the rest. Under MIRROR, no byte is shown twice, and the result is
        ignored.
        """
        raise NotImplementedError

    def copied(self, direction: Direction, data: bytes) -> None:
        """The next bytes of a copied Forward; `passed` is called with their number afterwards.

        The directive may be set to the same Forward without copies.
        """
        raise NotImplementedError

    def passed(self, direction: Direction, count: int) -> None:
        """`count` bytes moved under a Forward; under one without end only with `counts_all`.

        The default counts a bounded Forward down and goes back to PEEK at its end.
        """
        directive = self.directive(direction)
        if isinstance(directive, Forward) and directive.count is not None:
            left = directive.count - count
            rest = Forward(left, directive.is_copied) if left else PEEK
            self.set_directive(direction, rest)

    def end(self, direction: Direction) -> None:
        """The direction ended (FIN); nothing more will come in it. The default does nothing."""

    def close(self) -> None:
        """Nothing more will come, whatever the reason: record what is left unfinished.

        The default does nothing.
        """

    @property
    def memory(self) -> int:
        """About how many bytes of the traffic it keeps, where that can be many.

        Where many conversations are followed, those that keep most are given up first.
        """
        return 0

    def details(self) -> Details:
        """What has been learned so far."""
        return Details()

    def asked_ahead(self, data: bytes) -> Sequence[End] | None:
        """Where the client asks to go in bytes that move before the conversation takes them: a part
        of a message under PEEK, or bytes that were sent before their turn under PAUSE.

        None, the default under PAUSE: the bytes belong to an inner protocol.
        """
        return () if self.up is PEEK else None

    def ask_for(self, target: Target) -> None:
        """The client has asked for this target here: the inner protocol is bound for it."""
        self.target = target
        self.named.append(target)


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """A row of the registry."""

    name: str
    detect: Callable[[Opening], Verdict] | None
    """None: never detected from bytes alone (websocket)."""
    converse: Callable[[LayerContext], Conversation] | None = None
    """None: named only, and relayed unseen."""
    client_first: bytes | None = None
    """Every byte that the client's side can begin with; None: any byte."""
    server_first: bytes | None = None
    """Every byte that the server's side can begin with if it speaks first; None: any byte; empty:
    the server never speaks first."""
    terminates: bool = False
    """Whether its layer may terminate the client's bytes (TLS), so that they must not move while
    this is still possible."""
    is_proxy: bool = False
    """Whether its server is a proxy, and what is inside goes to another server."""
    names_hosts: bool = False
    """Whether the client names a host in its messages. Where the policy refuses hosts, a message
    waits until it is whole."""
    has_messages: bool = False
    """Whether its conversation makes events of what is said in it; else its bytes are shown."""
    starttls: bool = False
    """Whether TLS may begin in the middle of it, and then carries the same protocol."""
    events: tuple[type[ProtocolEvent], ...] = ()
    """The events that its conversation may append."""
    conclusive: bool = False
    """Whether a MATCH ends detection, since nothing else begins so, which the tests check: this
    saves the other rules for the most common protocols."""

    def __post_init__(self) -> None:
        if self.detect:
            object.__setattr__(self, "detect", _awaiting_the_client(self.detect))


def _awaiting_the_client(detect: Callable[[Opening], Verdict]) -> Callable[[Opening], Verdict]:
    """A detector that does not reject a client which has not spoken yet."""

    @wraps(detect)
    def awaiting(opening: Opening) -> Verdict:
        verdict = detect(opening)
        if verdict is Verdict.REJECT and not (opening.up or opening.up_ended):
            return Verdict.NEED_MORE
        return verdict

    return awaiting
