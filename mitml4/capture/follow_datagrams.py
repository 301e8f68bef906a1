"""A flow of UDP to reports: what its datagrams are, and what they say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mitml4.capture.datagrams import DatagramFlow
from mitml4.capture.files.comments import CaptureSide
from mitml4.capture.flow import CloseReason
from mitml4.capture.known import Known
from mitml4.capture.reports import Closed, Layer, Opened, Report
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Direction, LayerContext, Target
from mitml4.protocols.datagram import (
    MAX_DATAGRAMS,
    DatagramConversation,
    DatagramProtocol,
    Exchange,
)
from mitml4.protocols.datagrams import registry
from mitml4.protocols.expected import Announcement
from mitml4.protocols.parts.fields import Short
from mitml4.protocols.payload import Shown
from mitml4.protocols.policy import ANYTHING

__all__ = ["DatagramFollower"]

_UNKNOWN: Final = "unknown"
_MAX_BROKEN: Final = 16
"""After so many datagrams that its conversation cannot read, a flow is shown no more of them."""


class DatagramFollower:
    """The listener of one flow. It sees datagrams until they are known, and their conversation has
    learned what it can."""

    __slots__ = (
        "_broken",
        "_conversation",
        "_expected",
        "_flow",
        "_known",
        "_looked",
        "_now_s",
        "_report",
        "_row",
        "_seen",
        "_shown",
        "_stack",
        "_told",
        "kept_bytes",
    )

    def __init__(
        self,
        flow: DatagramFlow,
        report: Callable[[Report], None],
        known: Known,
        shown: Shown,
        side_of: Callable[[float], CaptureSide | None],
    ) -> None:
        self._flow = flow
        self._report = report
        self._known = known
        self._shown = shown
        self._now_s = flow.opened_s
        client, destination = flow.client, flow.destination
        self._expected = known.expected("udp", destination, client, now_s=flow.opened_s)
        self._row: DatagramProtocol | None = None
        """The likely protocol, as long as it is not certain."""
        self._seen: list[tuple[Direction, bytes]] = []
        """Datagrams so far, as long as it is not certain what they are."""
        self._conversation: DatagramConversation | None = None
        self._broken = 0
        self._looked = 0
        """At how many datagrams it has looked to find out what they are."""
        self._stack: list[str] = []
        self._told = False
        """Whether the last layer of the stack is reported."""
        self.kept_bytes = 0
        name = known.name_of(client.ip, destination.ip)
        time_s = flow.opened_s
        report(Opened(flow=flow, time_s=time_s, name=name, side=side_of(time_s)))

    def _clock(self) -> float:
        return self._now_s

    def take(self, direction: Direction, data: bytes, time_s: float) -> bool:
        self._now_s = time_s
        if not data:
            return True
        if self._stack:
            self._converse(direction, data)
        else:
            self._look(direction, data)
        wants = not self._stack or self._conversation is not None
        conversation = self._conversation
        self.kept_bytes = conversation.memory if conversation else self._size_of_seen()
        return wants

    def _look(self, direction: Direction, data: bytes) -> None:
        """Find out what this datagram and those before it are. Those that are of no protocol, such
        as what keeps a NAT open, are forgotten: the next ones may be."""
        self._looked += 1
        self._seen.append((direction, data))
        self._row, is_final = self._detect()
        if not is_final:
            return
        if self._row or self._looked >= MAX_DATAGRAMS:
            self._begin()
        else:
            self._seen.clear()

    def _size_of_seen(self) -> int:
        return sum(len(data) for _, data in self._seen)

    def give_up(self, time_s: float) -> None:
        self._now_s = time_s
        self._conclude()
        self._seen.clear()
        self.kept_bytes = 0

    def close(self, reason: CloseReason) -> None:
        flow = self._flow
        self._conclude()
        stack = tuple(self._stack)
        self._report(Closed(flow=flow, time_s=flow.last_s, stack=stack, reason=reason))

    def _conclude(self) -> None:
        """Answer an open question as it stands, and look at nothing any more."""
        self._now_s = max(self._now_s, self._flow.last_s)
        if self._looked and not self._stack:
            self._begin()
        if self._stack and not self._told:
            self._tell()
        self._conversation = None

    def _detect(self) -> tuple[DatagramProtocol | None, bool]:
        if self._expected and (row := registry.announced(self._expected, self._seen[0][1])):
            return row, True
        ups = tuple([data for direction, data in self._seen if direction is Direction.UP])
        downs = tuple([data for direction, data in self._seen if direction is Direction.DOWN])
        ports = frozenset((self._flow.client.port, self._flow.destination.port))
        return registry.detect(Exchange(up=ups, down=downs, ports=ports))

    def _begin(self) -> None:
        """It is known what the datagrams are, or that this cannot be known."""
        seen, self._seen = self._seen, []
        self._enter(self._row)
        for direction, data in seen:
            self._converse(direction, data)

    def _enter(self, row: DatagramProtocol | None) -> None:
        self._stack.append(row.name if row else _UNKNOWN)
        self._told = False
        if row and row.converse:
            destination = self._flow.destination
            context = LayerContext(
                clock=self._clock,
                stack=tuple(self._stack[:-1]),
                target=Target(destination.ip, destination.port),
                policy=ANYTHING,
                shown=self._shown,
            )
            self._conversation = row.converse(context)
        else:
            self._conversation = None
            self._tell()

    def _converse(self, direction: Direction, data: bytes) -> None:
        conversation = self._conversation
        if conversation is None:
            return
        try:
            conversation.take(direction, data)
        except (ProtocolError, Short):
            self._broken += 1
        self._learn(conversation, direction)
        if conversation.details_ready and not self._told:
            self._tell()
        if conversation.inner:
            if not self._told:
                self._tell()
            self._enter(registry.by_name(conversation.inner))
            self._converse(direction, data)
        elif conversation.over or self._broken > _MAX_BROKEN:
            if not self._told:
                self._tell()
            self._conversation = None

    def _learn(self, conversation: DatagramConversation, direction: Direction) -> None:
        flow = self._flow
        to = flow.client if direction is Direction.DOWN else flow.destination
        for resolved in conversation.resolved:
            self._known.add_name(to.ip, resolved)
        announced = conversation.announced
        if conversation.is_answered_elsewhere:
            port = flow.client.port
            announced.append(
                Announcement(protocol=conversation.name, transport="udp", of_client=True, port=port)
            )
        for announcement in announced:
            self._known.expectations.add(
                announcement, flow.client.ip, flow.destination.ip, self._now_s
            )
        conversation.resolved.clear()
        announced.clear()

    def _tell(self) -> None:
        self._told = True
        conversation = self._conversation
        self._report(
            Layer(
                flow=self._flow,
                time_s=self._now_s,
                depth=len(self._stack) - 1,
                protocol=self._stack[-1],
                speaker="client",
                details=conversation.details() if conversation else None,
            )
        )
