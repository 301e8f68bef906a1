"""A capture's reports as the events of live traffic."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from mitml4.capture.follow import follow
from mitml4.capture.packet import Packet
from mitml4.capture.reports import Happened, Report
from mitml4.encoding import encode
from mitml4.events import Event, FlowClose, FlowLayer, FlowOpen
from mitml4.protocols.http.events import HttpRequest
from mitml4.protocols.protocol_event import ProtocolEvent
from mitml4.session import detect as detect_module
from mitml4.session.detect import CaptureSession
from mitml4.session.reporting.hub import Hub

ENDS = bytes([192, 0, 2, 1, 192, 0, 2, 2])


def hub(events: list[Event], *wants: type) -> Hub:
    """One that hands the events that somebody wants to a list."""
    listener = SimpleNamespace(wants=wants or (Event, ProtocolEvent), publish=events.append)
    return Hub(listeners=[listener])


def syn() -> bytes:
    tcp = struct.pack("!HHIIBBHHH", 40000, 80, 1, 0, 0x50, 2, 500, 0, 0)
    return struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, 6, 0) + ENDS + tcp


@pytest.mark.parametrize(
    ("time_s", "said"),
    [
        (1.5e12, "9999-12-31T23:59:59.000000Z"),
        (1.8e19, "9999-12-31T23:59:59.000000Z"),
        (-9e18, "0001-01-01T00:00:00.000000Z"),
        (0.25, "1970-01-01T00:00:00.250000Z"),
    ],
)
def test_a_clock_beyond_all_dates_is_told_by_the_nearest(time_s: float, said: str) -> None:
    events: list[Event] = []
    CaptureSession(hub(events)).read([(time_s, 101, syn(), 0, 40)])
    assert [f'"time":"{said}"' in encode(event) for event in events] == [True, True]
    assert isinstance(events[-1], FlowClose)
    assert events[-1].duration_s == 0


def test_a_comment_is_of_its_capture_only() -> None:
    events: list[Event] = []
    session = CaptureSession(hub(events))

    def packets(comment: str) -> Iterator[Packet]:
        session.add_comment(1.0, comment)
        yield 1.0, 101, syn(), 0, 40

    session.read(packets("flow 7, server's side"))
    session.read(packets("of somebody else"))
    said = [(event.side, event.session_flow) for event in events if isinstance(event, FlowOpen)]
    assert said == [("server", 7), (None, None)]


def test_events_of_reports_are_the_same_when_they_are_made_later() -> None:
    """Though other comments have come, and the server has answered late."""

    def packets(session: CaptureSession) -> Iterator[Packet]:
        for number in (1, 2):
            session.add_comment(1.0, f"flow {number}, client's side")
            packet = syn()[:20] + number.to_bytes(2, "big") + syn()[22:]
            yield 1.0, 101, packet, 0, 40
        for time_s, ports, ends in ((1.5, (1, 80), ENDS), (2.0, (80, 1), ENDS[4:] + ENDS[:4])):
            tcp = struct.pack("!HHIIBBHHH", *ports, 2, 2, 0x50, 16, 500, 0, 0)
            said = ends + tcp + b"GET / HTTP/1.1\r\n\r\n"
            packet = syn()[:2] + (12 + len(said)).to_bytes(2, "big") + syn()[4:12] + said
            yield time_s, 101, packet, 0, len(packet)

    at_once, later = CaptureSession(), CaptureSession()
    expected = list(at_once.events(packets(at_once)))
    assert [type(event) for event in expected].count(FlowOpen) == 2
    assert any(isinstance(event, FlowLayer) for event in expected)
    assert list(later.events_of(list(later.reports_of(packets(later))))) == expected


def test_flows_that_were_not_followed_to_their_end_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def few(packets: Iterable[Packet], **options: Any) -> Iterator[Report]:
        return follow(packets, max_flows=2, **options)

    monkeypatch.setattr(detect_module, "follow", few)
    session = CaptureSession(Hub())
    ports = [port.to_bytes(2, "big") for port in range(1, 6)]
    for _ in range(2):
        session.read([(1.0, 101, syn()[:20] + port + syn()[22:], 0, 40) for port in ports])
    assert session.cut_short == 6


def test_an_event_that_nobody_wants_is_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(HttpRequest):
        """Fails when an event is built with it."""

        @property
        def in_stream_layer(self) -> bool:
            raise AssertionError

    content = Refusing(stream=1, method="GET", url="/", version="1.1")
    flow: Any = SimpleNamespace(number=1)
    found = [Happened(flow=flow, time_s=1.0, depth=0, protocol_event=content)]
    monkeypatch.setattr(detect_module, "follow", lambda *_, **__: iter(found))
    CaptureSession(hub([], FlowClose)).read([])
    with pytest.raises(AssertionError):
        CaptureSession(hub([], HttpRequest)).read([])
