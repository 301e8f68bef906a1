"""The interface between protocols over UDP and what feeds them.

A datagram is a whole unit, so a rule reads it to its end, or raises ProtocolError. A protocol is
detected from the first datagrams of both directions (`Exchange` → `Verdict`), by its rules and the
strength of their evidence. It is then followed by a `DatagramConversation`, which is shown each
datagram until it has learned enough. It never holds a datagram back: it only reads copies.

Adding a protocol takes a row (`DatagramProtocol`) in a file of `datagrams/`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from enum import Enum
from typing import ClassVar, Final, TypeAlias

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import Details, Direction, Verdict
from mitml4.protocols.expected import Announcement
from mitml4.protocols.parts.fields import Reader, Short

__all__ = [
    "MAX_DATAGRAMS",
    "DatagramConversation",
    "DatagramProtocol",
    "Evidence",
    "Exchange",
    "Resolved",
    "fits",
]

MAX_DATAGRAMS: Final = 8
"""After so many datagrams in both directions together, the likely answer, or none, is final."""

Rule: TypeAlias = Callable[[Reader], object]
"""Reads a datagram; raises ProtocolError, or Short, if it is not the protocol's."""


class Evidence(Enum):
    """What it takes to be certain of a protocol. `ports` are its usual ones, on either side."""

    MAGIC = "magic"
    """A datagram that fits, on any port."""
    PORT_OR_ANSWER = "port or answer"
    """A datagram that fits on a usual port; elsewhere, one of each side."""
    PORT = "port"
    """A datagram that fits on a usual port; elsewhere nothing."""
    PORT_AND_ANSWER = "port and answer"
    """One of each side, and a usual port. One side alone is LIKELY there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """The first datagrams of both directions (at most MAX_DATAGRAMS), each whole, as captured."""

    up: tuple[bytes, ...] = ()
    down: tuple[bytes, ...] = ()
    ports: frozenset[int] = frozenset()
    """Of both sides: a hint, and never enough."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A name, and an address that it stands for. `for_everybody`: not only for who has asked."""

    name: str
    ip: str
    for_everybody: bool = False


@dataclass(slots=True)
class DatagramConversation:
    """One flow's conversation, to be subclassed. All calls are synchronous."""

    name: ClassVar[str]

    context: LayerContext = field(default_factory=LayerContext)
    details_ready: bool = False
    """The details are as complete as the opening makes them: the layer may be announced."""
    over: bool = False
    """Nothing more is to be learned: no datagram need be shown any more."""
    inner: str | None = None
    """The protocol that goes on inside, or beside it, on the same pair of ports; it is shown what
    comes from now on."""
    resolved: list[Resolved] = field(default_factory=list)
    announced: list[Announcement] = field(default_factory=list)
    is_answered_elsewhere: bool = False
    """The server answers from another port, to the port that the client speaks from."""

    def take(self, direction: Direction, datagram: bytes) -> None:
        """Read the next datagram. Raises ProtocolError where it is broken; the next ones may still
        be read."""
        raise NotImplementedError

    def details(self) -> Details:
        """What has been learned so far."""
        return Details()

    @property
    def memory(self) -> int:
        """About how many bytes of the traffic it keeps."""
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DatagramProtocol:
    """A row of the registry of protocols over UDP."""

    name: str
    request: Rule | None
    """Reads a datagram of the side that speaks first; None: known only by an announcement, or as
    what another protocol carries."""
    reply: Rule | None = None
    """Reads one of the other side; None: like those of the first."""
    announced: Rule | None = None
    """Reads a datagram of a flow that another one has announced."""
    ports: frozenset[int] = frozenset()
    evidence: Evidence = Evidence.PORT_OR_ANSWER
    converse: Callable[[LayerContext], DatagramConversation] | None = None
    """None: named only."""

    def detect(self, exchange: Exchange) -> Verdict:
        """The answer for these datagrams. A capture may begin with a reply, so the sides may be
        the other way round. Never raises, whatever they are."""
        if self.request is None:
            return Verdict.REJECT
        request, reply = self.request, self.reply or self.request
        if not (_fit(request, reply, exchange) or (self.reply and _fit(reply, request, exchange))):
            return Verdict.REJECT
        both = bool(exchange.up and exchange.down)
        usual = not self.ports.isdisjoint(exchange.ports)
        match self.evidence:
            case Evidence.MAGIC:
                return Verdict.MATCH
            case Evidence.PORT_OR_ANSWER:
                return Verdict.MATCH if usual or both else Verdict.NEED_MORE
            case Evidence.PORT:
                return Verdict.MATCH if usual else Verdict.REJECT
            case Evidence.PORT_AND_ANSWER if usual:
                return Verdict.MATCH if both else Verdict.LIKELY
        return Verdict.REJECT


def _fit(up: Rule, down: Rule, exchange: Exchange) -> bool:
    for each in exchange.up:
        if not fits(up, each):
            return False
    for each in exchange.down:  # noqa: SIM110 - a generator would cost more than most rules
        if not fits(down, each):
            return False
    return True


def fits(rule: Rule, datagram: bytes) -> bool:
    """Whether a rule reads a datagram without an objection."""
    try:
        rule(Reader(datagram, end=len(datagram)))
    except (ProtocolError, Short):
        return False
    return True
