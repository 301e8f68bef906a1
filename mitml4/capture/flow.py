"""Flows of a capture. That of TCP has two halves, one for each sender, and a listener that is told
what they carry."""

from __future__ import annotations

from dataclasses import field
from typing import Final, Generic, Literal, Protocol, TypeAlias, TypeVar

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.protocols.conversation import Direction

__all__ = ["ALL", "MASK", "CloseReason", "Flow", "FlowListener", "FlowOf", "Half"]

ALL: Final = 1 << 62
"""As a number of unseen bytes: all that follow."""

CloseReason: TypeAlias = Literal["closed", "reset", "refused", "shutdown"]
"""Both FINs; an RST; an RST for the SYN; the capture (or our memory) ended before the flow did."""

MASK: Final = 0xFFFFFFFF
"""Sequence numbers count modulo 2^32 (RFC 9293 §3.4)."""


class FlowListener(Protocol):
    """Who is told what a flow's streams carry. Times are the packet's, in seconds."""

    kept_bytes: int
    """How much it holds in memory now."""

    def data(self, direction: Direction, data: bytes, time_s: float) -> None:
        """The next bytes of a direction."""

    def passed(self, direction: Direction, count: int, time_s: float) -> None:
        """Bytes went by that it had declared unseen."""

    def lost(self, direction: Direction, count: int, time_s: float) -> None:
        """The next bytes are not in the capture."""

    def end(self, direction: Direction, time_s: float) -> None:
        """The direction's FIN, after its last byte."""

    def over(self) -> None:
        """Both directions have ended, and only `close` will follow, after a while."""

    def close(self, flow: Flow, reason: CloseReason) -> None:
        """Nothing more will be told of the flow."""

    def unseen(self) -> tuple[int, int]:
        """How many of the next bytes it need not see (ALL: all), of the client's and of the
        server's; asked after each call."""

    def give_up(self, time_s: float) -> None:
        """Keep no bytes any more."""


class _Counted(Protocol):
    @property
    def count(self) -> int:
        """Payload bytes so far."""


_H = TypeVar("_H", bound=_Counted)


@dataclass(slots=True, eq=False)
class FlowOf(Generic[_H]):
    """A flow whose directions are of this type."""

    number: int
    client: Address
    destination: Address
    opened_s: float
    up: _H = field(init=False)
    down: _H = field(init=False)
    last_s: float = 0.0
    """The time of its last packet."""

    @property
    def bytes_up(self) -> int:
        return self.up.count

    @property
    def bytes_down(self) -> int:
        return self.down.count


@dataclass(slots=True, eq=False)
class Flow(FlowOf["Half"]):
    """A TCP connection of the capture, from its first packet on."""

    transport: Literal["tcp"] = field(default="tcp", init=False)
    syn: bool = False
    """Whether its start was seen."""
    reset: bool = False
    answered_s: float | None = None
    """When the server first sent anything but an RST."""
    gave_up: bool = False
    """Whether it was told to keep no bytes any more."""
    listener: FlowListener = field(init=False)

    @property
    def connect_s(self) -> float | None:
        """How long the server took to accept it; None if that was not seen."""
        if not self.syn or self.answered_s is None or self.answered_s <= self.opened_s:
            return None
        return self.answered_s - self.opened_s

    @property
    def ended(self) -> bool:
        return self.reset or (self.up.ended and self.down.ended)

    def let_go(self) -> None:
        """It is over: undo the circles, so that nothing is left for the garbage collector."""
        del self.listener
        for half in (self.up, self.down):
            del half.flow, half.other


class Half:
    """One direction of a flow: what its sender has sent so far. Places in it count from 0."""

    __slots__ = (
        "acknowledged",
        "confirmed",
        "direction",
        "ended",
        "first",
        "flow",
        "free",
        "key",
        "lost",
        "origin",
        "other",
        "position",
        "told",
        "waiting",
        "waiting_bytes",
        "wanted",
        "watched",
    )

    def __init__(self, flow: Flow, direction: Direction, key: bytes) -> None:
        self.flow = flow
        self.direction = direction
        self.key = key
        self.other: Half = self
        self.first: int | None = None
        """The SYN's sequence number, where it was seen."""
        self.confirmed = False
        """Whether the receiver has acknowledged it: a second SYN with another number is void."""
        self.origin: int | None = None
        """The sequence number that makes place 0; None until anything was seen."""
        self.position = 0
        """Where the next byte stands."""
        self.lost = 0
        """How many of those before it are in holes."""
        self.told = 0
        """Up to where the listener has been told what went by…"""
        self.wanted = 0
        """…and from where it wants to see it again."""
        self.free = -1
        """Up to where a segment that comes next may just move `position`, untaken."""
        self.ended = False
        self.waiting: list[tuple[int, int, bytes, bool]] | None = None
        """Behind a hole: a heap of position, length, data and FIN; None where none ever did."""
        self.waiting_bytes = 0
        self.acknowledged = False
        """Whether the receiver has what is missing before `waiting`."""
        self.watched = False
        """Whether the other half has a hole, or a SYN that is not confirmed, so that this half's
        acknowledgements matter."""

    @property
    def count(self) -> int:
        """Payload bytes so far, each once, as the headers say; those in holes not among them."""
        return self.position - self.lost

    def ahead(self, seq: int) -> int:
        """How far this sequence number is from the one that comes next, modulo 2^32."""
        assert self.origin is not None
        return (seq - self.origin - self.position) & MASK

    def set_free(self) -> None:
        """Which segments need not be taken from now on: none, empty ones, all before `wanted`."""
        if self.watched:
            self.free = -1
        elif self.position >= self.wanted or self.other.watched or self.acknowledged or self.ended:
            self.free = self.position
        else:
            self.free = self.wanted - 1
