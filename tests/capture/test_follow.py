"""From packets to reports: the offline twin of a live session."""

from __future__ import annotations

import gc
import io
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitml4.capture.files.reader import read_packets
from mitml4.capture.flow import Flow
from mitml4.capture.follow import Statistics, follow
from mitml4.capture.packet import Packet
from mitml4.capture.reports import Closed, Happened, Layer, Opened, Report
from mitml4.errors import CaptureError
from mitml4.protocols.http.events import HttpEnd

REQUEST = b"GET /x HTTP/1.1\r\nHost: example.org\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"


def whole(time_s: float, link_type: int, frame: bytes) -> Packet:
    """A packet in a separate buffer."""
    return time_s, link_type, frame, 0, len(frame)


def connection(wire: Any, port: int = 40000, start_s: float = 1000.0) -> list[Packet]:
    """An HTTP exchange from SYN to FIN, half a second between packets."""
    up, down = {"source": port}, {"source": 80, "destination": port}
    ends = {"source": "198.51.100.2", "destination": "192.0.2.1"}
    asked, answered = 101 + len(REQUEST), 901 + len(RESPONSE)
    segments = [
        wire.ipv4(wire.tcp(seq=100, flags=wire.SYN, **up)),
        wire.ipv4(wire.tcp(seq=900, flags=wire.SYN | wire.ACK, ack=101, **down), **ends),
        wire.ipv4(wire.tcp(REQUEST, seq=101, ack=901, **up)),
        wire.ipv4(wire.tcp(RESPONSE, seq=901, ack=asked, **down), **ends),
        wire.ipv4(wire.tcp(seq=asked, flags=wire.FIN | wire.ACK, ack=answered, **up)),
        wire.ipv4(wire.tcp(seq=answered, flags=wire.FIN | wire.ACK, **down), **ends),
    ]
    times = itertools.count(start_s, 0.5)
    return [whole(time_s, 101, packet) for time_s, packet in zip(times, segments, strict=False)]


def names(reports: Iterable[Report]) -> list[str]:
    return [type(report).__name__ for report in reports]


def test_a_connection_is_reported_from_open_to_close(wire: Any) -> None:
    reports = list(follow(connection(wire)))
    assert names(reports) == ["Opened", "Layer", "Happened", "Happened", "Happened", "Closed"]
    opened, layer, *protocol_event, closed = reports
    assert isinstance(opened, Opened)
    assert isinstance(layer, Layer)
    assert isinstance(closed, Closed)
    assert (opened.time_s, layer.time_s, closed.time_s) == (1000.0, 1001.0, 1002.5)
    assert (layer.depth, layer.protocol, layer.speaker) == (0, "http/1", "client")
    assert all(isinstance(report, Happened) and report.depth == 0 for report in protocol_event)
    assert (closed.stack, closed.reason) == (("http/1",), "closed")
    assert (closed.flow.bytes_up, closed.flow.bytes_down) == (len(REQUEST), len(RESPONSE))
    assert str(closed.flow.client) == "192.0.2.1:40000"


def test_durations_of_exchanges_come_from_the_packets(wire: Any) -> None:
    ends = [
        report.protocol_event.duration_s
        for report in follow(connection(wire))
        if isinstance(report, Happened) and isinstance(report.protocol_event, HttpEnd)
    ]
    assert ends == [0.5]


def test_flows_are_numbered_in_the_order_of_their_opening(wire: Any) -> None:
    first, second = connection(wire, 1), connection(wire, 2)
    packets = [packet for pair in zip(first, second, strict=True) for packet in pair]
    opened = [report for report in follow(packets) if isinstance(report, Opened)]
    assert [(report.flow.number, report.flow.client.port) for report in opened] == [(1, 1), (2, 2)]


def test_reports_come_as_the_packets_do(wire: Any) -> None:
    taken: list[Packet] = []

    def taking() -> Iterator[Packet]:
        for packet in connection(wire):
            taken.append(packet)
            yield packet

    reports = follow(taking())
    assert isinstance(next(reports), Opened)
    assert len(taken) == 1
    assert isinstance(next(reports), Layer)
    assert len(taken) == 3


def test_a_capture_that_breaks_off_is_reported_to_there_and_then_raised(wire: Any) -> None:
    data = wire.pcap([(t, packet) for t, _, packet, *_ in connection(wire)], link_type=101)
    seen: list[Report] = []
    packets = read_packets(io.BytesIO(data[:-10]), "broken.pcap")
    with pytest.raises(CaptureError, match=r"broken\.pcap"):
        seen.extend(follow(packets))
    assert names(seen)[-1] == "Closed"
    assert isinstance(seen[-1], Closed)
    assert (seen[-1].stack, seen[-1].reason) == (("http/1",), "shutdown")


def test_the_statistics_say_what_became_of_the_packets(wire: Any) -> None:
    other = [
        whole(1.0, 101, wire.ipv4(b"x" * 20, protocol=132)),
        whole(1.0, 101, wire.ipv4(wire.tcp(source=9, flags=wire.ACK))),
        whole(1.0, 250, b""),
    ]
    statistics = Statistics()
    list(follow([*other, *connection(wire)], statistics=statistics))
    assert statistics == Statistics(
        skipped={"neither TCP nor UDP": 1, "link type 250": 1}, orphan_segments=1
    )


def test_the_oldest_flows_beyond_the_limit_are_closed_and_counted(wire: Any) -> None:
    statistics = Statistics()
    syns = [
        whole(1.0, 101, wire.ipv4(wire.tcp(source=port, flags=wire.SYN))) for port in range(1, 51)
    ]
    reports = list(follow(syns, max_flows=10, statistics=statistics))
    closed = [report.flow.number for report in reports if isinstance(report, Closed)]
    assert closed == [report.flow.number for report in reports if isinstance(report, Opened)]
    assert len(closed) == 50
    assert statistics.evicted == 40


def test_flows_that_are_over_need_no_garbage_collector(wire: Any) -> None:
    gc.collect()
    gc.disable()
    try:
        deque(follow(connection(wire)), maxlen=0)
        assert not [each for each in gc.get_objects() if isinstance(each, Flow)]
    finally:
        gc.enable()


def test_tunnels_are_a_switch(wire: Any) -> None:
    packets = [
        whole(t, link, wire.ipv4(packet, protocol=4)) for t, link, packet, *_ in connection(wire)
    ]
    assert list(follow(packets, tunnels=False)) == []
    assert names(follow(packets))[-1] == "Closed"


@settings(max_examples=100)
@given(st.data())
def test_mutated_packets_never_raise_and_every_flow_is_closed_once(
    wire: Any, data: st.DataObject
) -> None:
    packets = []
    for time_s, link_type, packet, *_ in connection(wire):
        broken = bytearray(packet)
        for _ in range(data.draw(st.integers(0, 2))):
            broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
        packets.append(whole(time_s, link_type, bytes(broken)))
    reports = list(follow(data.draw(st.permutations(packets)), tunnels=True))
    opened = [report.flow.number for report in reports if isinstance(report, Opened)]
    closed = [report.flow.number for report in reports if isinstance(report, Closed)]
    assert sorted(opened) == sorted(closed)
