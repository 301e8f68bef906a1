"""What a flow publishes."""

from __future__ import annotations

from mitml4.events import Event, LayerEvent
from mitml4.layers.report import Report
from mitml4.protocols.http.events import HttpEnd, HttpRequest


def test_an_event_that_nobody_wants_is_not_published() -> None:
    told: list[Event] = []
    report = Report(1, told.append, lambda kind: kind is HttpRequest)
    asked = HttpRequest(stream=1, method="GET", url="/", version="1.1")
    report.protocol_event(0, asked)
    ended = HttpEnd(stream=1, request_bytes=0, response_bytes=0, duration_s=0.1)
    report.protocol_event(0, ended)
    assert [event.content for event in told if isinstance(event, LayerEvent)] == [asked]
