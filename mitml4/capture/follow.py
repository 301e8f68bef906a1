"""Packets to reports: which flows a capture holds, and which layers each of them has.

The pieces in between: a segment out of each packet (fast_path.py, network/dissector.py), streams
out of segments (reassembly.py), and layers out of a flow's streams (converse.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import field
from functools import partial
from typing import TypeAlias

from mitml4.capture.agenda import Agenda
from mitml4.capture.converse import Depth
from mitml4.capture.datagrams import DatagramFlows
from mitml4.capture.fast_path import fast_path
from mitml4.capture.files.comments import CaptureSide
from mitml4.capture.flow import CloseReason, Flow
from mitml4.capture.follow_datagrams import DatagramFollower
from mitml4.capture.known import Known
from mitml4.capture.network.dissector import Dissector
from mitml4.capture.network.tunnels import is_tunnel
from mitml4.capture.packet import Packet
from mitml4.capture.reassembly import MAX_FLOWS, Reassembler
from mitml4.capture.reports import Closed, Fault, Happened, Layer, Opened, Report
from mitml4.capture.sharing import Share
from mitml4.capture.tls.secrets import Secrets
from mitml4.dataclass import dataclass
from mitml4.engine.plaintext import Plaintext
from mitml4.engine.rules import HOLD_S
from mitml4.errors import CaptureError
from mitml4.protocols.conversation import Details, Direction, LayerContext, Speaker, Target
from mitml4.protocols.expected import Announcement
from mitml4.protocols.payload import Shown
from mitml4.protocols.policy import ANYTHING
from mitml4.protocols.protocol_event import ProtocolEvent

__all__ = ["Copies", "SideOf", "Statistics", "follow"]

Copies: TypeAlias = Callable[[Flow, Callable[[], int], int | None], Plaintext]
"""Makes what takes the copies of a flow's decrypted TLS, from the flow, the clock of its packets in
nanoseconds, and the port that the TLS is bound for."""

SideOf: TypeAlias = Callable[[float], CaptureSide | None]
"""What a comment of the packet that is read says, from its time."""


@dataclass(slots=True)
class Statistics:
    """Counts of the packets and flows of a capture that were not followed."""

    skipped: dict[str, int] = field(default_factory=dict)
    """Packets without a segment of TCP or a datagram of UDP, by reason."""
    orphan_segments: int = 0
    """Segments without payload that belong to no flow."""
    evicted: int = 0
    """Flows closed early, or no longer followed, because memory was short."""


def follow(
    packets: Iterable[Packet],
    *,
    tunnels: bool = True,
    secrets: Secrets | None = None,
    shown: Shown | None = None,
    copies: Copies | None = None,
    share: Share | None = None,
    side_of: SideOf = lambda _time_s: None,
    max_flows: int = MAX_FLOWS,
    statistics: Statistics | None = None,
) -> Iterator[Report]:
    """What a capture's flows carry, in the order in which the packets show it.

    With `tunnels`, flows inside tunnels are included, beside the tunnels' own. TLS is decrypted if
    `secrets` contain those of its ClientHello when it is read; secrets may be added as packets are
    read. `shown`: what events show of what is said. `copies` makes what takes the copies of
    decrypted TLS. `share`: which flows are followed; it knows where a report stands until the next
    one is asked for. `side_of` is asked where a flow opens. `statistics` is updated. If the packets
    end with a CaptureError, all flows are closed and reported before it is raised again.
    """
    reports: list[Report] = []
    statistics = statistics if statistics is not None else Statistics()
    dissector = Dissector(tunnels=tunnels)
    shown = shown or Shown()
    share = share or Share()
    known = share.known
    agenda = Agenda()
    streams = Reassembler(
        lambda flow: _Follower(flow, reports.append, known, secrets, shown, copies, side_of),
        agenda=agenda,
        share=share,
        max_flows=max_flows,
    )
    datagrams = DatagramFlows(
        lambda flow: DatagramFollower(flow, reports.append, known, shown, side_of),
        agenda=agenda,
        share=share,
        is_tunnel=is_tunnel if tunnels else lambda _ports: False,
        max_flows=max_flows,
    )
    steps = fast_path(
        packets, streams.halves, datagrams.halves, dissector, agenda=agenda, share=share
    )
    failure: CaptureError | None = None
    try:
        for packet, time_s, unit in steps:
            if unit is None:
                for due in agenda.pass_to(time_s):
                    share.step_to_due(packet, due)
                    yield from reports
                    reports.clear()
                continue
            share.step_to(packet)
            if len(unit) == 3:
                datagrams.take(time_s, unit)
            else:
                streams.take(time_s, unit)
            if reports:
                yield from reports
                reports.clear()
    except CaptureError as error:
        failure = error
    for kind, closing in enumerate((streams.close(), datagrams.close())):
        for number in closing:
            share.step_to_end(kind, number)
            yield from reports
            reports.clear()
    statistics.skipped = dict(dissector.skipped)
    statistics.orphan_segments = streams.orphan_segments
    statistics.evicted = streams.evicted + datagrams.evicted
    if failure:
        raise failure


class _Follower:
    """The listener of one flow: its layers."""

    __slots__ = (
        "_copies",
        "_first",
        "_flow",
        "_known",
        "_report",
        "_secrets",
        "_shown",
        "kept_bytes",
        "now_s",
        "port",
        "stack",
    )

    def __init__(
        self,
        flow: Flow,
        report: Callable[[Report], None],
        known: Known,
        secrets: Secrets | None,
        shown: Shown,
        copies: Copies | None,
        side_of: SideOf,
    ) -> None:
        self._flow = flow
        self._known = known
        self._copies = copies
        self._secrets = secrets
        self._shown = shown.of_flow()
        self._report = report
        self._first: Depth | None = None
        self.kept_bytes = 0
        self.now_s = flow.opened_s
        self.stack: list[str] = []
        name = known.name_of(flow.client.ip, flow.destination.ip)
        time_s = flow.opened_s
        report(Opened(flow=flow, time_s=time_s, name=name, side=side_of(time_s)))

    def clock(self) -> float:
        return self.now_s

    def _clock_ns(self) -> int:
        return int(self.now_s * 10**9)

    def _announce(self, announcement: Announcement) -> None:
        client, server = self._flow.client, self._flow.destination
        self._known.expectations.add(announcement, client.ip, server.ip, self.now_s)

    def _announced_for(self, target: Target) -> str | None:
        return self._known.expectations.take_in_tunnel(target.host, target.port, self.now_s)

    def _begin(self) -> Depth:
        client, destination = self._flow.client, self._flow.destination
        context = LayerContext(
            clock=self.clock,
            target=Target(destination.ip, destination.port),
            policy=ANYTHING,
            hold_s=HOLD_S,
            shown=self._shown,
            announced=self._known.expected("tcp", destination, client, now_s=self.now_s),
            announced_for=self._announced_for,
            on_announced=self._announce,
        )
        copies = partial(self._copies, self._flow, self._clock_ns) if self._copies else None
        self._first = Depth(self, context, secrets=self._secrets, copies=copies)
        return self._first

    def data(self, direction: Direction, data: bytes, time_s: float) -> None:
        self.now_s = time_s
        (self._first or self._begin()).data(direction, data)

    def passed(self, direction: Direction, count: int, time_s: float) -> None:
        self.now_s = time_s
        (self._first or self._begin()).passed(direction, count)

    def lost(self, direction: Direction, count: int, time_s: float) -> None:
        self.now_s = time_s
        (self._first or self._begin()).lost(direction, count)

    def end(self, direction: Direction, time_s: float) -> None:
        self.now_s = time_s
        (self._first or self._begin()).end(direction)

    def give_up(self, time_s: float) -> None:
        self.now_s = time_s
        (self._first or self._begin()).give_up()

    def unseen(self) -> tuple[int, int]:
        first = self._first
        return (first.unseen(Direction.UP), first.unseen(Direction.DOWN)) if first else (0, 0)

    def over(self) -> None:
        if self._first and self._first.over:
            self._first.close()
            self._first = None
            self.kept_bytes = 0

    def close(self, flow: Flow, reason: CloseReason) -> None:
        if self._first:
            self._first.close()
            self._first = None  # which knows us
        self._shown.close()
        self._report(Closed(flow=flow, time_s=flow.last_s, stack=tuple(self.stack), reason=reason))

    def layer(
        self, depth: int, protocol: str, speaker: Speaker, details: Details | None, *, opened: bool
    ) -> None:
        self.stack.append(protocol)
        self._report(
            Layer(
                flow=self._flow,
                time_s=self.now_s,
                depth=depth,
                protocol=protocol,
                speaker=speaker,
                details=details,
                opened=opened,
                connect_s=None if depth else self._flow.connect_s,
            )
        )

    def protocol_event(self, depth: int, protocol_event: ProtocolEvent) -> None:
        self._report(
            Happened(flow=self._flow, time_s=self.now_s, depth=depth, protocol_event=protocol_event)
        )

    def fault(self, depth: int, direction: Direction, reason: str) -> None:
        self._report(
            Fault(
                flow=self._flow,
                time_s=self.now_s,
                depth=depth,
                innermost=max(len(self.stack) - 1, 0),
                direction=direction,
                reason=reason,
            )
        )
